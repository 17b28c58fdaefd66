/** Services of Linux: units in /etc/systemd/system, and systemctl where systemd runs. */

import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import { open, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { CimletError, classify, isErrorCode } from '../errors.ts';
import type { ServiceManager, ServiceStatus } from './service-manager.ts';
import { systemdUnit } from './systemd-unit.ts';

const run = promisify(execFile);

/** For systemctl to answer. Stopping waits for the agent. */
const PATIENCE_MS = 120_000;

export interface SystemdOptions {
  /** Where an administrator's units are. */
  directory?: string;
  /** There when systemd is what started this system (sd_booted(3)). */
  marker?: string;
  systemctl?: string;
}

export function createSystemd(options: SystemdOptions = {}): ServiceManager {
  const {
    directory = '/etc/systemd/system',
    marker = '/run/systemd/system',
    systemctl = 'systemctl',
  } = options;
  const isRunning = () => existsSync(marker);
  const unitOf = (name: string) => `${name}.service`;
  const fileOf = (name: string) => join(directory, unitOf(name));
  const control = async (signal: AbortSignal, ...args: string[]) => {
    try {
      return (await run(systemctl, args, { signal, timeout: PATIENCE_MS })).stdout;
    } catch (error) {
      throw explain(error, args);
    }
  };
  return {
    describe: systemdUnit,
    install: async (service, signal) => {
      const { name } = service;
      await writeWhole(fileOf(name), systemdUnit(service));
      const wrote = `wrote ${fileOf(name)}`;
      if (!isRunning()) {
        const todo = `systemctl daemon-reload && systemctl enable --now ${unitOf(name)}`;
        return [wrote, `systemd doesn't run here; where it does: ${todo}`];
      }
      await control(signal, 'daemon-reload');
      await control(signal, 'enable', unitOf(name));
      // Also one that runs already, by the unit before.
      await control(signal, 'restart', unitOf(name));
      return [wrote, `enabled and started ${unitOf(name)}`];
    },
    uninstall: async (name, signal) => {
      if (!existsSync(fileOf(name))) return [`there is no ${fileOf(name)}`];
      if (isRunning()) await control(signal, 'disable', '--now', unitOf(name));
      try {
        await rm(fileOf(name), { force: true });
      } catch (error) {
        throw classify(error, `remove ${fileOf(name)}`);
      }
      if (isRunning()) await control(signal, 'daemon-reload');
      return [`removed ${fileOf(name)}`, 'what the agent mounted stays mounted'];
    },
    status: async (name, signal) => {
      if (!existsSync(fileOf(name))) return { state: 'absent', detail: `there is no ${fileOf(name)}` };
      if (!isRunning())
        return { state: 'stopped', detail: `${fileOf(name)} is installed; systemd doesn't run here` };
      const properties = 'ActiveState,SubState,MainPID,Result,ExecMainStatus';
      return readStatus(await control(signal, 'show', unitOf(name), `--property=${properties}`));
    },
  };
}

/** What `systemctl show` prints: a line for each property. */
function readStatus(text: string): ServiceStatus {
  const value = (name: string) => new RegExp(`^${name}=(.*)$`, 'm').exec(text)?.[1] ?? '';
  const state = `${value('ActiveState')} (${value('SubState')})`;
  const processId = Number(value('MainPID'));
  if (value('ActiveState') === 'active')
    return { state: 'running', detail: `${state}, process ${processId}`, processId };
  const result = value('Result');
  return {
    state: 'stopped',
    detail: result === '' || result === 'success' ? state : `${state}, result ${result}`,
    exitCode: Number(value('ExecMainStatus')),
  };
}

/** The whole file or none of it, also after a crash. */
async function writeWhole(file: string, text: string): Promise<void> {
  const temporary = `${file}.${randomUUID()}`;
  try {
    const handle = await open(temporary, 'wx', 0o644);
    try {
      await handle.writeFile(text);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, file);
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => undefined);
    const classified = classify(error, `write ${file}`);
    if (!isErrorCode(classified, 'access-denied')) throw classified;
    throw new CimletError('access-denied', classified.message, { hint: 'run it as root', cause: error });
  }
}

function explain(error: unknown, args: readonly string[]): unknown {
  const operation = `systemctl ${args.join(' ')}`;
  const { stderr = '', killed } = error as { stderr?: string; killed?: boolean };
  if (killed === true)
    return new CimletError('unavailable', `${operation}: no answer in time`, { cause: error });
  const said = stderr.trim();
  if (said !== '') return new CimletError('unavailable', `${operation}: ${said}`, { cause: error });
  return classify(error, operation);
}
