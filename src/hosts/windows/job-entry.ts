/** Entry of the job thread. Imported by nothing; jobs.ts starts it. */

import type { JobControl } from '../job-thread.ts';
import { serveJob } from '../serve-job.ts';
import type { Job, WrittenImage } from './jobs.ts';
import { mergeImages, unpackBlock, unpackForked } from './write-images.ts';

async function runJob(job: Job, control: JobControl): Promise<WrittenImage> {
  switch (job.kind) {
    case 'unpack-forked':
      return unpackForked(job, control);
    case 'unpack-block':
      return unpackBlock(job, control);
    case 'merge':
      return mergeImages(job);
  }
}

await serveJob(runJob);
