/** Entry of the job thread. Imported by nothing; jobs.ts starts it. */

import { writeDiskTar, writeScratchTar } from '../disk-tar.ts';
import type { JobControl } from '../job-thread.ts';
import { serveJob } from '../serve-job.ts';
import { unpackLinux } from '../unpack-linux.ts';
import type { Job, JobResults } from './jobs.ts';
import { writeLinuxScratch } from './linux-scratch.ts';
import { mergeImages, unpackBlock, unpackForked } from './write-images.ts';
import { writeFolderTar, writeTreeTar } from './write-tree-tar.ts';
import { completeWcifs, unpackWcifs } from './write-wcifs.ts';

async function runJob(job: Job, control: JobControl): Promise<JobResults[Job['kind']]> {
  switch (job.kind) {
    case 'unpack-forked':
      return unpackForked(job, control);
    case 'unpack-block':
      return unpackBlock(job, control);
    case 'merge':
      return mergeImages(job);
    case 'unpack-wcifs':
      return unpackWcifs(job, control);
    case 'complete-wcifs':
      return completeWcifs(job);
    case 'unpack-linux':
      return unpackLinux(job, control);
    case 'linux-scratch':
      return writeLinuxScratch(job);
    case 'export-tree':
      return writeTreeTar(job, control);
    case 'export-folder':
      return writeFolderTar(job, control);
    case 'export-disk':
      return writeDiskTar(job, control);
    case 'export-scratch':
      return writeScratchTar(job, control);
  }
}

await serveJob(runJob);
