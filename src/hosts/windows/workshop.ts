import type { Advapi32 } from '../../native/windows/advapi32.ts';
import type { ComputeCore } from '../../native/windows/computecore.ts';
import type { ComputeStorage } from '../../native/windows/computestorage.ts';
import type { VmCompute } from '../../native/windows/vmcompute.ts';
import type { KeyedLock } from '../keyed-lock.ts';
import type { Store } from './store.ts';
import type { Volumes } from './volumes.ts';

/** What writing takes. */
export interface Workshop extends Store {
  volumes: Volumes;
  /** Of the folder that forked images share. */
  locks: KeyedLock;
  privileges: Pick<Advapi32, 'withPrivileges'>;
  vmcompute: VmCompute;
  computestorage: ComputeStorage;
  computecore: ComputeCore;
}
