/** Services of Windows, as the service control manager keeps them. */

import { win32 } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { CimletError, classify } from '../errors.ts';
import { Dlls } from '../native/windows/dll.ts';
import {
  ServiceAccess,
  ServiceControlManager,
  type ServiceHandle,
  type ServiceReport,
  type ServiceSettings,
  ServiceState,
} from '../native/windows/services.ts';
import { serviceCommandLine } from './command-line.ts';
import type { ServiceDefinition, ServiceManager, ServiceStatus } from './service-manager.ts';

/** On top of the agent's own deadline. */
const STOP_MARGIN_MS = 15_000;
const RESTART_AFTER_MS = [5000, 15_000, 60_000];
const FAILURES_FORGOTTEN_AFTER_SECONDS = 3600;
const LOOK_EVERY_MS = 200;
/** For a service that starts or stops to get on, beyond what it announces itself. */
const PATIENCE_MS = 30_000;
/** ERROR_SERVICE_NEVER_STARTED, since the system started. */
const NEVER_STARTED = 1077;
/** What only a service of ours has in its command line, before its name. */
const MARK = '--service';

const {
  connect,
  create,
  queryConfig,
  queryStatus,
  changeConfig,
  start,
  stop,
  delete: remove,
} = ServiceAccess;

export function createWindowsServices(dlls = new Dlls()): ServiceManager {
  const services = new WindowsServices(new ServiceControlManager(dlls));
  return {
    describe,
    install: (service, signal) => services.install(service, signal),
    uninstall: (name, signal) => services.uninstall(name, signal),
    status: async (name) => services.status(name),
  };
}

/** Where the agent of a service logs to: it has no standard output. */
function logFileOf({ root, name }: ServiceDefinition): string {
  return win32.join(root, 'logs', `${name}.log`);
}

function settingsOf(service: ServiceDefinition): ServiceSettings {
  const { name, command, stopTimeoutMs } = service;
  return {
    displayName: name === 'cimlet' ? 'cimlet agent' : `cimlet agent (${name})`,
    description: 'Keeps container layers and their mounts as declared.',
    commandLine: serviceCommandLine([...command, '--log-file', logFileOf(service), MARK, name]),
    restartAfterMs: RESTART_AFTER_MS,
    failuresForgottenAfter: FAILURES_FORGOTTEN_AFTER_SECONDS,
    preshutdownMs: stopTimeoutMs + STOP_MARGIN_MS,
  };
}

function describe(service: ServiceDefinition): string {
  const { displayName, commandLine, preshutdownMs } = settingsOf(service);
  const waits = RESTART_AFTER_MS.map((ms) => `${ms / 1000} s`).join(', ');
  return `service:     ${service.name} (${displayName})
runs:        ${commandLine}
as:          LocalSystem
starts:      with the system, delayed
restarts:    when it fails, after ${waits}
at shutdown: has ${Math.ceil(preshutdownMs / 1000)} s to stop
logs to:     ${logFileOf(service)}
`;
}

class WindowsServices {
  readonly #api: ServiceControlManager;

  constructor(api: ServiceControlManager) {
    this.#api = api;
  }

  async install(definition: ServiceDefinition, signal: AbortSignal): Promise<string[]> {
    const { name } = definition;
    const settings = settingsOf(definition);
    const access = queryConfig | queryStatus | changeConfig | start | stop;
    const { isNew, unknown } = await this.#withManager(connect | create, async (manager) => {
      const there = this.#api.open(manager, name, access);
      const service = there ?? this.#api.create(manager, name, access, settings);
      return this.#closing(service, async () => {
        if (there !== undefined) {
          this.#requireOurs(service, name);
          await this.#stop(service, name, signal);
        }
        const missing = this.#api.configure(service, name, settings);
        await this.#api.start(service, name);
        await this.#requireRunning(service, definition, signal);
        return { isNew: there === undefined, unknown: missing };
      });
    });
    return [
      `${isNew ? 'created' : 'changed'} and started service ${name}${isNew ? ', which runs as LocalSystem' : ''}`,
      `it logs to ${logFileOf(definition)}`,
      ...unknown.map((setting) => `this system doesn't have ${setting}`),
    ];
  }

  async uninstall(name: string, signal: AbortSignal): Promise<string[]> {
    const removed = await this.#withService(
      name,
      queryConfig | queryStatus | stop | remove,
      async (service) => {
        this.#requireOurs(service, name);
        await this.#stop(service, name, signal);
        this.#api.delete(service, name);
        return true;
      },
    );
    if (removed === undefined) return [`there is no service ${name}`];
    return [`removed service ${name}`, 'what the agent mounted stays mounted'];
  }

  async status(name: string): Promise<ServiceStatus> {
    const report = await this.#withService(name, queryStatus, async (service) =>
      this.#api.report(service, name),
    );
    if (report === undefined) return { state: 'absent', detail: `there is no service ${name}` };
    const { state, processId, exitCode } = report;
    switch (state) {
      case ServiceState.running:
        return { state: 'running', detail: `process ${processId}`, processId };
      case ServiceState.startPending:
        return { state: 'stopped', detail: `starting, process ${processId}`, processId };
      case ServiceState.stopPending:
        return { state: 'running', detail: `stopping, process ${processId}`, processId };
      default:
        if (exitCode === NEVER_STARTED) return { state: 'stopped', detail: 'never started' };
        return { state: 'stopped', detail: `exit code ${exitCode}`, exitCode };
    }
  }

  /** Others' services are left alone. */
  #requireOurs(service: ServiceHandle, name: string): void {
    const line = this.#api.commandLineOf(service, name);
    if (line.endsWith(` ${MARK} ${name}`)) return;
    throw new CimletError('already-exists', `service ${name} is not cimlet's: it runs ${line}`, {
      hint: 'choose another --name',
    });
  }

  async #requireRunning(
    service: ServiceHandle,
    definition: ServiceDefinition,
    signal: AbortSignal,
  ): Promise<void> {
    const { name } = definition;
    const { state, exitCode } = await this.#settled(service, name, signal);
    if (state === ServiceState.running) return;
    throw new CimletError(
      'unavailable',
      `service ${name} is installed, but stopped with exit code ${exitCode}`,
      {
        hint: `${logFileOf(definition)} says why`,
      },
    );
  }

  async #stop(service: ServiceHandle, name: string, signal: AbortSignal): Promise<void> {
    const { state } = await this.#settled(service, name, signal);
    if (state === ServiceState.stopped) return;
    await this.#api.stop(service, name);
    await this.#settled(service, name, signal);
  }

  /** As it is once it neither starts nor stops. */
  async #settled(service: ServiceHandle, name: string, signal: AbortSignal): Promise<ServiceReport> {
    let last = 0;
    let since = performance.now();
    for (;;) {
      const report = this.#api.report(service, name);
      const { state, checkpoint, waitHint } = report;
      if (state !== ServiceState.startPending && state !== ServiceState.stopPending) return report;
      if (checkpoint !== last) [last, since] = [checkpoint, performance.now()];
      if (performance.now() - since > waitHint + PATIENCE_MS)
        throw new CimletError(
          'unavailable',
          `service ${name}: no sign of life from process ${report.processId}`,
          {
            hint: 'end that process, and try again',
          },
        );
      try {
        await delay(LOOK_EVERY_MS, undefined, { signal });
      } catch (error) {
        throw classify(error, `wait for service ${name}`);
      }
    }
  }

  #withService<T>(
    name: string,
    access: number,
    use: (service: ServiceHandle) => Promise<T>,
  ): Promise<T | undefined> {
    return this.#withManager(connect, async (manager) => {
      const service = this.#api.open(manager, name, access);
      return service === undefined ? undefined : this.#closing(service, () => use(service));
    });
  }

  async #withManager<T>(access: number, use: (manager: ServiceHandle) => Promise<T>): Promise<T> {
    const manager = this.#api.connect(access);
    return this.#closing(manager, () => use(manager));
  }

  async #closing<T>(handle: ServiceHandle, use: () => Promise<T>): Promise<T> {
    try {
      return await use();
    } finally {
      this.#api.close(handle);
    }
  }
}
