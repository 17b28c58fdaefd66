/** The DLLs that cimlet uses, opened together. Nothing is loaded before its first call. */

import { Advapi32 } from './advapi32.ts';
import { BindFilter } from './bindfltapi.ts';
import type { CimWriteCalls } from './cim-calls.ts';
import { CimFs } from './cimfs.ts';
import { CimWriterDll, cimWriteCalls } from './cimwriter.ts';
import { ComputeCore } from './computecore.ts';
import { ComputeStorage } from './computestorage.ts';
import { Dlls } from './dll.ts';
import { FilterLibrary } from './fltlib.ts';
import { Kernel32 } from './kernel32.ts';
import { Ntdll } from './ntdll.ts';
import { Offreg } from './offreg.ts';
import { RestartManager } from './rstrtmgr.ts';
import { VirtDisk } from './virtdisk.ts';
import { VmCompute } from './vmcompute.ts';

export interface WindowsApi {
  /** What was opened, for probing. */
  dlls: Dlls;
  cimfs: CimFs;
  cimwriter: CimWriterDll;
  /** Writes CIMs with whichever DLL this machine has; `unsupported-host` comes from the first call. */
  cimWriteCalls(): CimWriteCalls;
  computestorage: ComputeStorage;
  vmcompute: VmCompute;
  computecore: ComputeCore;
  virtdisk: VirtDisk;
  offreg: Offreg;
  bindfilter: BindFilter;
  restartManager: RestartManager;
  filters: FilterLibrary;
  kernel32: Kernel32;
  ntdll: Ntdll;
  advapi32: Advapi32;
}

/** `dlls` decides where DLLs come from; only tests give their own. */
export function openWindowsApi(dlls: Dlls = new Dlls()): WindowsApi {
  const kernel32 = new Kernel32(dlls);
  const cimfs = new CimFs(dlls);
  const cimwriter = new CimWriterDll(dlls);
  return {
    dlls,
    cimfs,
    cimwriter,
    cimWriteCalls: () => cimWriteCalls(cimwriter, cimfs),
    computestorage: new ComputeStorage(dlls),
    vmcompute: new VmCompute(dlls),
    computecore: new ComputeCore(dlls),
    virtdisk: new VirtDisk(dlls, kernel32),
    offreg: new Offreg(dlls),
    bindfilter: new BindFilter(dlls),
    restartManager: new RestartManager(dlls),
    filters: new FilterLibrary(dlls),
    kernel32,
    ntdll: new Ntdll(dlls),
    advapi32: new Advapi32(dlls, kernel32),
  };
}
