/** Entry of the thread that hashes a disk while it is being written. Imported by nothing; `disk-verity.ts` starts it. */

import { BLOCK_SIZE } from '../ext4/format.ts';
import { VerityBuilder } from '../ext4/verity-builder.ts';
import { Told, type VerityJob } from './disk-verity.ts';
import type { JobControl } from './job-thread.ts';
import { serveJob } from './serve-job.ts';

/** How long an abort may go unheard. */
const PATIENCE_MS = 50;

async function build({ file, first, told }: VerityJob, { checkpoint }: JobControl): Promise<string> {
  const seen = new Int32Array(told);
  const builder = new VerityBuilder(file, first, checkpoint);
  try {
    for (;;) {
      checkpoint();
      const changes = Atomics.load(seen, Told.changes);
      const blocks = Atomics.load(seen, Told.whole) >>> 0;
      if (blocks > 0) return builder.finish(blocks * BLOCK_SIZE);
      builder.follow(Atomics.load(seen, Told.written) >>> 0);
      Atomics.wait(seen, Told.changes, changes, PATIENCE_MS);
    }
  } finally {
    builder.close();
  }
}

await serveJob(build);
