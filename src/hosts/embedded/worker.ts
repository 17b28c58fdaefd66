/** Entry of the worker thread: runs one job and ends. Imported by nothing; `run-job.ts` starts it. */

import { writeDiskTar } from '../disk-tar.ts';
import type { JobControl } from '../job-thread.ts';
import { serveJob } from '../serve-job.ts';
import { writeLinuxDisk } from '../unpack-linux.ts';
import { extractView, writeView } from './build-view.ts';
import type { Job, JobResults } from './jobs.ts';
import { withLayerTar } from './layer-source.ts';
import { writeLayerTar, writeSnapshotTar } from './layer-tar.ts';
import { mergeLayers } from './merge-layers.ts';
import { verifyContainerSeal, verifyDiskSeal } from './seal-check.ts';
import { unpackBlockLayer } from './unpack-block.ts';
import { unpackForkedLayer } from './unpack-forked.ts';

async function runJob(job: Job, control: JobControl): Promise<JobResults[Job['kind']]> {
  switch (job.kind) {
    case 'unpack-forked':
      return unpackForkedLayer(job, control);
    case 'unpack-block':
      return unpackBlockLayer(job, control);
    case 'unpack-disk':
      return withLayerTar(job, job.lower, control, ({ chunks }) => writeLinuxDisk(chunks, job, control));
    case 'merge':
      return mergeLayers(job, control);
    case 'view':
      return writeView(job, control);
    case 'extract':
      return extractView(job, control);
    case 'export-disk':
      return writeDiskTar(job, control);
    case 'export':
      return writeLayerTar(job, control);
    case 'diff':
      return writeSnapshotTar(job, control);
    case 'verify':
      return verifyContainerSeal(job.container, control.signal);
    case 'verify-disk':
      return verifyDiskSeal(job.container, { throwIfAborted: control.checkpoint });
  }
}

await serveJob(runJob);
