/** cimwriter.dll: writes every kind of CIM on any build. It mounts nothing. */

import { CimWriteCalls, WRITE_CALLS, type WriteCall } from './cim-calls.ts';
import type { CimFs } from './cimfs.ts';
import type { Dll, Dlls } from './dll.ts';

export class CimWriterDll {
  readonly dll: Dll<WriteCall>;

  constructor(dlls: Dlls) {
    this.dll = dlls.open('cimwriter.dll', WRITE_CALLS);
  }

  /** Whether it is beside the program or in System32. */
  get isPresent(): boolean {
    const { path, problem } = this.dll.probe();
    return path !== undefined && problem === undefined;
  }
}

/** The calls that write CIMs: cimwriter.dll's where it is present, else cimfs.dll's. */
export function cimWriteCalls(cimwriter: CimWriterDll, cimfs: CimFs): CimWriteCalls {
  return new CimWriteCalls(cimwriter.isPresent ? cimwriter.dll : cimfs.dll);
}
