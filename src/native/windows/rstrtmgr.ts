/** rstrtmgr.dll: which processes hold a file open. https://learn.microsoft.com/windows/win32/rstmgr/restart-manager-portal */

import { array, C, layoutOf, out, pointerTo, type Signature, struct } from '../library.ts';
import { FILETIME, WIN32_ERROR } from './ctypes.ts';
import type { Dll, Dlls } from './dll.ts';
import { Win32Error } from './status.ts';

const { int32, uint, uint16, uint32, str16, pointer } = C;

/** https://learn.microsoft.com/windows/win32/api/restartmanager/ns-restartmanager-rm_unique_process */
export const RM_UNIQUE_PROCESS = struct('RM_UNIQUE_PROCESS', {
  dwProcessId: uint32,
  ProcessStartTime: FILETIME,
});

/** https://learn.microsoft.com/windows/win32/api/restartmanager/ns-restartmanager-rm_process_info */
export const RM_PROCESS_INFO = struct('RM_PROCESS_INFO', {
  Process: RM_UNIQUE_PROCESS,
  strAppName: array(uint16, 256),
  strServiceShortName: array(uint16, 64),
  ApplicationType: int32,
  AppStatus: uint32,
  TSSessionId: uint32,
  bRestartable: int32,
});

const CALLS = {
  RmStartSession: [WIN32_ERROR, [out(uint32), uint32, pointer]],
  RmRegisterResources: [WIN32_ERROR, [uint32, uint, pointerTo(str16), uint, pointer, uint, pointer]],
  RmGetList: [WIN32_ERROR, [uint32, out(uint), pointer, pointer, out(uint32)]],
  RmEndSession: [WIN32_ERROR, [uint32]],
} satisfies Record<string, Signature>;

const SESSION_KEY_UNITS = 33;

export interface HoldingProcess {
  processId: number;
  name: string;
  /** The service that it runs, if it is one's. */
  service: string | undefined;
}

export class RestartManager {
  readonly dll: Dll<keyof typeof CALLS>;

  constructor(dlls: Dlls) {
    this.dll = dlls.open('rstrtmgr.dll', CALLS);
  }

  /** Processes that hold any of some files (not directories) open. Drivers don't show. */
  async processesHolding(files: readonly string[]): Promise<HoldingProcess[]> {
    const operation = `ask who holds ${files.join(', ')}`;
    const [session, key] = [[0], Buffer.alloc(SESSION_KEY_UNITS * 2)];
    await this.dll.call(operation, 'RmStartSession', session, 0, key);
    const handle = session[0] ?? 0;
    try {
      const args = [handle, files.length, [...files], 0, null, 0, null];
      await this.dll.call(operation, 'RmRegisterResources', ...args);
      return await this.#list(operation, handle);
    } finally {
      await this.dll.call(operation, 'RmEndSession', handle);
    }
  }

  async #list(operation: string, session: number): Promise<HoldingProcess[]> {
    const { size } = layoutOf(RM_PROCESS_INFO);
    for (let room = 16; ; ) {
      const [needed, count, processes] = [[0], Buffer.alloc(4), Buffer.alloc(room * size)];
      count.writeUInt32LE(room);
      const args = [session, needed, count, processes, [0]];
      const { status } = await this.dll.attempt('RmGetList', ...args);
      if (status !== 0 && status !== Win32Error.MORE_DATA)
        throw this.dll.failure(operation, 'RmGetList', args, status);
      if (status === 0)
        return Array.from({ length: count.readUInt32LE() }, (_, index) =>
          decodeProcess(processes.subarray(index * size, (index + 1) * size)),
        );
      room = Math.max(room * 2, needed[0] ?? 0);
    }
  }
}

function decodeProcess(info: Buffer): HoldingProcess {
  const { offsets } = layoutOf(RM_PROCESS_INFO);
  const text = (from = 0, to = 0): string => info.toString('utf16le', from, to).split('\0', 1)[0] ?? '';
  const service = text(offsets.strServiceShortName, offsets.ApplicationType);
  return {
    processId: info.readUInt32LE(offsets.Process),
    name: text(offsets.strAppName, offsets.strServiceShortName),
    service: service === '' ? undefined : service,
  };
}
