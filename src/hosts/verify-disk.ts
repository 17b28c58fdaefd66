/** Looks through a disk image in a thread of its own, so that signals are heard meanwhile. */

import type { CheckedDisk } from '../ext4/check.ts';
import { runInThread, threadEntry } from './job-thread.ts';

export interface VerifyDiskJob {
  kind: 'verify-disk';
  path: string;
  /** What dm-verity's root hash must be, 64 hexadecimal digits. */
  rootHash: string | undefined;
}

const ENTRY = threadEntry('verify-disk-thread', import.meta.url);

/** As `checkDisk`. Throws `cancelled` soon after the signal. */
export async function verifyDisk(
  path: string,
  { rootHash, signal }: { rootHash: string | undefined; signal: AbortSignal },
): Promise<CheckedDisk> {
  return runInThread<VerifyDiskJob, CheckedDisk>(ENTRY, { kind: 'verify-disk', path, rootHash }, { signal });
}
