/** Entry of the thread that looks through a disk. Imported by nothing; `verify-disk.ts` starts it. */

import { type CheckedDisk, checkDisk } from '../ext4/check.ts';
import { serveJob } from './serve-job.ts';
import type { VerifyDiskJob } from './verify-disk.ts';

await serveJob<VerifyDiskJob, CheckedDisk>(async ({ path, rootHash }, { checkpoint }) =>
  checkDisk(path, { rootHash, signal: { throwIfAborted: checkpoint } }),
);
