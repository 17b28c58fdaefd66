/**
 * This process as a service: what the service control manager asks of the processes it starts, in advapi32.dll.
 * https://learn.microsoft.com/windows/win32/services/service-program-tasks
 */

import { alias, C, callable, callback, pointerTo, type Signature, struct } from '../library.ts';
import { BOOL, HANDLE } from './ctypes.ts';
import type { Dll, Dlls } from './dll.ts';
import {
  OWN_PROCESS,
  SERVICE_SPECIFIC_ERROR,
  SERVICE_STATUS,
  ServiceControl,
  ServiceState,
} from './services.ts';

const { uint32, str16, pointer } = C;

const ServiceMain = callback(C.void, [uint32, pointer]);
const Handler = callback(uint32, [uint32, uint32, pointer, pointer]);

/** https://learn.microsoft.com/windows/win32/api/winsvc/ns-winsvc-service_table_entryw */
export const SERVICE_TABLE_ENTRYW = struct('SERVICE_TABLE_ENTRYW', {
  lpServiceName: str16,
  lpServiceProc: ServiceMain,
});

const CALLS = {
  StartServiceCtrlDispatcherW: [BOOL, [pointerTo(SERVICE_TABLE_ENTRYW)]],
  RegisterServiceCtrlHandlerExW: [HANDLE, [str16, alias('LPHANDLER_FUNCTION_EX', Handler), pointer]],
  SetServiceStatus: [BOOL, [HANDLE, pointerTo(SERVICE_STATUS)]],
} satisfies Record<string, Signature>;

const SERVICE_ACCEPT_STOP = 0x1;
const SERVICE_ACCEPT_PRESHUTDOWN = 0x100;
const NO_ERROR = 0;
const ERROR_CALL_NOT_IMPLEMENTED = 120;

export type StatusHandle = number & { readonly brand: 'StatusHandle' };

export interface OwnStatus {
  state: (typeof ServiceState)[keyof typeof ServiceState];
  /** When stopped: 0, or why not, in the service's own numbers. */
  exitCode?: number;
  /** While it starts or stops: counted up to say that it gets on. */
  checkpoint?: number;
  /** While it starts or stops: milliseconds until the next checkpoint, at most. */
  waitHint?: number;
}

export class ServiceDispatcher {
  readonly dll: Dll<keyof typeof CALLS>;

  constructor(dlls: Dlls) {
    this.dll = dlls.open('advapi32.dll', CALLS);
  }

  /**
   * Connects this process to the manager that started it: `onStart` is called once it is known as a service, `onStop` when
   * it is to stop. `ended` rejects when nothing of the kind started it, and resolves when the service was reported stopped.
   * Once in a process. A thread of the pool is its until then.
   */
  connect(
    name: string,
    { onStart, onStop }: { onStart(handle: StatusHandle): void; onStop(): void },
  ): { ended: Promise<void> } {
    const onControl = callable(Handler, (control: number) => {
      if (control === ServiceControl.stop || control === ServiceControl.preshutdown) onStop();
      else if (control !== ServiceControl.interrogate) return ERROR_CALL_NOT_IMPLEMENTED;
      return NO_ERROR;
    });
    const main = callable(ServiceMain, () => {
      const operation = `answer for service ${name}`;
      const handle = this.dll.callNow(operation, 'RegisterServiceCtrlHandlerExW', name, onControl, null);
      onStart(handle as StatusHandle);
    });
    return { ended: this.#dispatch(name, main) };
  }

  /** A call into the manager: quick. */
  report(handle: StatusHandle, { state, exitCode = 0, checkpoint = 0, waitHint = 0 }: OwnStatus): void {
    const { running } = ServiceState;
    this.dll.callNow('report the state of the service', 'SetServiceStatus', handle, {
      dwServiceType: OWN_PROCESS,
      dwCurrentState: state,
      dwControlsAccepted: state === running ? SERVICE_ACCEPT_STOP | SERVICE_ACCEPT_PRESHUTDOWN : 0,
      dwWin32ExitCode: exitCode === 0 ? NO_ERROR : SERVICE_SPECIFIC_ERROR,
      dwServiceSpecificExitCode: exitCode,
      dwCheckPoint: checkpoint,
      dwWaitHint: waitHint,
    });
  }

  async #dispatch(name: string, main: bigint): Promise<void> {
    const table = [
      { lpServiceName: name, lpServiceProc: main },
      { lpServiceName: null, lpServiceProc: null },
    ];
    const { status } = await this.dll.attempt('StartServiceCtrlDispatcherW', table);
    if (status === 0) return;
    throw this.dll.failure(`run as service ${name}`, 'StartServiceCtrlDispatcherW', [table], status);
  }
}
