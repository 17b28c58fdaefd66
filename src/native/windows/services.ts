/**
 * The service control manager, in advapi32.dll: services as it keeps them.
 * https://learn.microsoft.com/windows/win32/api/winsvc/
 */

import { C, layoutOf, out, pointerTo, type Signature, type Struct, string16At, struct } from '../library.ts';
import { BOOL, HANDLE } from './ctypes.ts';
import type { Dll, Dlls } from './dll.ts';
import { Win32Error } from './status.ts';

const { uint32, int32, str16, pointer } = C;

/** https://learn.microsoft.com/windows/win32/api/winsvc/ns-winsvc-service_status */
export const SERVICE_STATUS = struct('SERVICE_STATUS', {
  dwServiceType: uint32,
  dwCurrentState: uint32,
  dwControlsAccepted: uint32,
  dwWin32ExitCode: uint32,
  dwServiceSpecificExitCode: uint32,
  dwCheckPoint: uint32,
  dwWaitHint: uint32,
});
/** https://learn.microsoft.com/windows/win32/api/winsvc/ns-winsvc-service_status_process */
export const SERVICE_STATUS_PROCESS = struct('SERVICE_STATUS_PROCESS', {
  ...SERVICE_STATUS.fields,
  dwProcessId: uint32,
  dwServiceFlags: uint32,
});
/** https://learn.microsoft.com/windows/win32/api/winsvc/ns-winsvc-query_service_configw */
export const QUERY_SERVICE_CONFIGW = struct('QUERY_SERVICE_CONFIGW', {
  dwServiceType: uint32,
  dwStartType: uint32,
  dwErrorControl: uint32,
  lpBinaryPathName: pointer,
  lpLoadOrderGroup: pointer,
  dwTagId: uint32,
  lpDependencies: pointer,
  lpServiceStartName: pointer,
  lpDisplayName: pointer,
});
/** https://learn.microsoft.com/windows/win32/api/winsvc/ns-winsvc-sc_action */
export const SC_ACTION = struct('SC_ACTION', { Type: int32, Delay: uint32 });
/** https://learn.microsoft.com/windows/win32/api/winsvc/ns-winsvc-service_failure_actionsw */
export const SERVICE_FAILURE_ACTIONSW = struct('SERVICE_FAILURE_ACTIONSW', {
  dwResetPeriod: uint32,
  lpRebootMsg: str16,
  lpCommand: str16,
  cActions: uint32,
  lpsaActions: pointerTo(SC_ACTION),
});
export const SERVICE_DESCRIPTIONW = struct('SERVICE_DESCRIPTIONW', { lpDescription: str16 });
export const SERVICE_FAILURE_ACTIONS_FLAG = struct('SERVICE_FAILURE_ACTIONS_FLAG', {
  fFailureActionsOnNonCrashFailures: int32,
});
export const SERVICE_DELAYED_AUTO_START_INFO = struct('SERVICE_DELAYED_AUTO_START_INFO', {
  fDelayedAutostart: int32,
});
export const SERVICE_PRESHUTDOWN_INFO = struct('SERVICE_PRESHUTDOWN_INFO', {
  dwPreshutdownTimeout: uint32,
});

const change2 = (info: Struct): Signature => [
  BOOL,
  [HANDLE, uint32, pointerTo(info)],
  'ChangeServiceConfig2W',
];

const CALLS = {
  OpenSCManagerW: [HANDLE, [str16, str16, uint32]],
  OpenServiceW: [HANDLE, [HANDLE, str16, uint32]],
  CreateServiceW: [
    HANDLE,
    [
      ...[HANDLE, str16, str16, uint32, uint32, uint32, uint32, str16],
      ...[str16, pointer, str16, str16, str16],
    ],
  ],
  ChangeServiceConfigW: [
    BOOL,
    [HANDLE, uint32, uint32, uint32, str16, str16, pointer, str16, str16, str16, str16],
  ],
  changeDescription: change2(SERVICE_DESCRIPTIONW),
  changeFailureActions: change2(SERVICE_FAILURE_ACTIONSW),
  changeFailureFlag: change2(SERVICE_FAILURE_ACTIONS_FLAG),
  changeDelayedStart: change2(SERVICE_DELAYED_AUTO_START_INFO),
  changePreshutdown: change2(SERVICE_PRESHUTDOWN_INFO),
  QueryServiceConfigW: [BOOL, [HANDLE, pointer, uint32, out(uint32)]],
  QueryServiceStatusEx: [BOOL, [HANDLE, uint32, pointer, uint32, out(uint32)]],
  StartServiceW: [BOOL, [HANDLE, uint32, pointer]],
  ControlService: [BOOL, [HANDLE, uint32, out(SERVICE_STATUS)]],
  DeleteService: [BOOL, [HANDLE]],
  CloseServiceHandle: [BOOL, [HANDLE]],
} satisfies Record<string, Signature>;

export type ServiceHandle = number & { readonly brand: 'ServiceHandle' };

/** Rights over a service, or (`create`) over the manager. */
export const ServiceAccess = {
  connect: 0x1,
  create: 0x2,
  queryConfig: 0x1,
  changeConfig: 0x2,
  queryStatus: 0x4,
  start: 0x10,
  stop: 0x20,
  delete: 0x10000,
} as const;

export const ServiceState = {
  stopped: 1,
  startPending: 2,
  stopPending: 3,
  running: 4,
} as const;

/** What a service is told. */
export const ServiceControl = { stop: 1, interrogate: 4, preshutdown: 0xf } as const;

/** dwServiceType: its process runs nothing else. */
export const OWN_PROCESS = 0x10;
/** dwWin32ExitCode: the exit code is the service's own. */
export const SERVICE_SPECIFIC_ERROR = 1066;

const AUTO_START = 2;
const ERROR_NORMAL = 1;
const STATUS_PROCESS_INFO = 0;
const RESTART = 1;
const InfoLevel = {
  description: 1,
  failureActions: 2,
  delayedStart: 3,
  failureFlag: 4,
  preshutdown: 7,
} as const;
/** The longest that QueryServiceConfigW gives. */
const CONFIG_BYTES = 8192;

type Change =
  | 'changeDescription'
  | 'changeFailureActions'
  | 'changeFailureFlag'
  | 'changeDelayedStart'
  | 'changePreshutdown';

/** What the manager knows of a service beside its name. */
export interface ServiceSettings {
  displayName: string;
  description: string;
  /** As CommandLineToArgvW reads it. %NAME% in it is a variable. */
  commandLine: string;
  /** Waits before each restart after a failure, in milliseconds; the last one holds for all that follow. */
  restartAfterMs: readonly number[];
  /** A service that ran for so long begins with the first wait again. Seconds. */
  failuresForgottenAfter: number;
  /** How long it may take to stop when the system shuts down, in milliseconds. */
  preshutdownMs: number;
}

export interface ServiceReport {
  /** One of `ServiceState`, or another of winsvc.h's. */
  state: number;
  /** 0 while it starts or runs, and after it ended well. */
  exitCode: number;
  /** Counts up while it starts or stops. */
  checkpoint: number;
  /** Milliseconds until the next checkpoint, at most. */
  waitHint: number;
  /** 0 when it doesn't run. */
  processId: number;
}

/** What is installed. Handles come from `open` or `create`, and are closed with `close`. */
export class ServiceControlManager {
  readonly dll: Dll<keyof typeof CALLS>;

  constructor(dlls: Dlls) {
    this.dll = dlls.open('advapi32.dll', CALLS);
  }

  /** The manager of this machine. */
  connect(access: number): ServiceHandle {
    const operation = 'open the service control manager';
    return this.dll.callNow(operation, 'OpenSCManagerW', null, null, access) as ServiceHandle;
  }

  /** Undefined when there is none of that name. */
  open(manager: ServiceHandle, name: string, access: number): ServiceHandle | undefined {
    const args = [manager, name, access];
    const { status, value } = this.dll.attemptNow('OpenServiceW', ...args);
    if (status === Win32Error.SERVICE_DOES_NOT_EXIST) return undefined;
    if (status !== 0) throw this.dll.failure(`open service ${name}`, 'OpenServiceW', args, status);
    return Number(value) as ServiceHandle;
  }

  close(handle: ServiceHandle): void {
    this.dll.callNow('close a service', 'CloseServiceHandle', handle);
  }

  /** Starts with the system, as LocalSystem. What `configure` sets is not set yet. */
  create(
    manager: ServiceHandle,
    name: string,
    access: number,
    { displayName, commandLine }: ServiceSettings,
  ): ServiceHandle {
    const kind = [OWN_PROCESS, AUTO_START, ERROR_NORMAL, commandLine];
    const args = [manager, name, displayName, access, ...kind, null, null, null, null, null];
    return this.dll.callNow(`create service ${name}`, 'CreateServiceW', ...args) as ServiceHandle;
  }

  /**
   * All settings, of one that is there; who it runs as stays. Needs `changeConfig` and, to restart it, `start`. Gives the
   * names of settings that this system doesn't have.
   */
  configure(service: ServiceHandle, name: string, settings: ServiceSettings): string[] {
    const { displayName, description, commandLine, restartAfterMs, preshutdownMs } = settings;
    const operation = `configure service ${name}`;
    const kind = [OWN_PROCESS, AUTO_START, ERROR_NORMAL, commandLine];
    const args = [service, ...kind, null, null, null, null, null, displayName];
    this.dll.callNow(operation, 'ChangeServiceConfigW', ...args);
    const unknown: string[] = [];
    const set = (what: string, call: Change, level: number, info: Record<string, unknown>) => {
      const { status } = this.dll.attemptNow(call, service, level, info);
      if (status === Win32Error.INVALID_LEVEL) unknown.push(what);
      else if (status !== 0)
        throw this.dll.failure(`${operation}: ${what}`, call, [service, level, info], status);
    };
    set('its description', 'changeDescription', InfoLevel.description, { lpDescription: description });
    set('restarts after failures', 'changeFailureActions', InfoLevel.failureActions, {
      dwResetPeriod: settings.failuresForgottenAfter,
      lpRebootMsg: null,
      lpCommand: null,
      cActions: restartAfterMs.length,
      lpsaActions: restartAfterMs.map((Delay) => ({ Type: RESTART, Delay })),
    });
    set('restarts after errors', 'changeFailureFlag', InfoLevel.failureFlag, {
      fFailureActionsOnNonCrashFailures: 1,
    });
    set('delayed start', 'changeDelayedStart', InfoLevel.delayedStart, { fDelayedAutostart: 1 });
    set('time to stop at shutdown', 'changePreshutdown', InfoLevel.preshutdown, {
      dwPreshutdownTimeout: preshutdownMs,
    });
    return unknown;
  }

  commandLineOf(service: ServiceHandle, name: string): string {
    const buffer = Buffer.alloc(CONFIG_BYTES);
    const args = [service, buffer, buffer.length, [0]];
    this.dll.callNow(`ask how service ${name} is configured`, 'QueryServiceConfigW', ...args);
    const { lpBinaryPathName = 0 } = layoutOf(QUERY_SERVICE_CONFIGW).offsets;
    return string16At(buffer.readBigUInt64LE(lpBinaryPathName));
  }

  report(service: ServiceHandle, serviceName: string): ServiceReport {
    const { size, offsets } = layoutOf(SERVICE_STATUS_PROCESS);
    const buffer = Buffer.alloc(size);
    const args = [service, STATUS_PROCESS_INFO, buffer, buffer.length, [0]];
    this.dll.callNow(`ask how service ${serviceName} is`, 'QueryServiceStatusEx', ...args);
    const field = (name: string) => buffer.readUInt32LE(offsets[name]);
    const exitCode = field('dwWin32ExitCode');
    return {
      state: field('dwCurrentState'),
      exitCode: exitCode === SERVICE_SPECIFIC_ERROR ? field('dwServiceSpecificExitCode') : exitCode,
      checkpoint: field('dwCheckPoint'),
      waitHint: field('dwWaitHint'),
      processId: field('dwProcessId'),
    };
  }

  /** Waits until its process is there, not until it runs. One that runs already is well. */
  async start(service: ServiceHandle, name: string): Promise<void> {
    const args = [service, 0, null];
    const { status } = await this.dll.attempt('StartServiceW', ...args);
    if (status === 0 || status === Win32Error.SERVICE_ALREADY_RUNNING) return;
    throw this.dll.failure(`start service ${name}`, 'StartServiceW', args, status);
  }

  /** Tells it, and doesn't wait until it has stopped. One that doesn't run is well. */
  async stop(service: ServiceHandle, name: string): Promise<void> {
    const args = [service, ServiceControl.stop, {}];
    const { status } = await this.dll.attempt('ControlService', ...args);
    if (status === 0 || status === Win32Error.SERVICE_NOT_ACTIVE) return;
    throw this.dll.failure(`stop service ${name}`, 'ControlService', args, status);
  }

  /** It is gone when it has stopped and all handles are closed. */
  delete(service: ServiceHandle, name: string): void {
    this.dll.callNow(`delete service ${name}`, 'DeleteService', service);
  }
}
