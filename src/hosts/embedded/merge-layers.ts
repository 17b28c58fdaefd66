/** The merged CIM of a chain of block layers: written, read once to see that it is whole, sealed. Runs in the worker. */

import { mergeBlockCims } from '../../cim/merge.ts';
import { openCim } from '../../cim/reader.ts';
import type { JobControl } from '../job-thread.ts';
import { completeContainer, readingSealed } from './containers.ts';
import type { MergeJob, WrittenContainer } from './jobs.ts';

/** Leaves the container durable. What is left of it on failure is the caller's to remove. */
export async function mergeLayers(job: MergeJob, control: JobControl): Promise<WrittenContainer> {
  return readingSealed(job.sources, control.signal, () => merge(job, control));
}

async function merge(job: MergeJob, control: JobControl): Promise<WrittenContainer> {
  const { file, regionGuid, sources, seal, vhdFooter } = job;
  const finished = mergeBlockCims({
    file,
    name: 'merged',
    regionGuid,
    sources: pathsOf(job),
    rootHashes: sources.map(({ rootHash }) => rootHash),
    checkpoint: control.checkpoint,
  });
  const written = await completeContainer(file, finished, {
    seal,
    vhdFooter,
    checksumName: 'merged_integrity_checksum',
    warnings: [],
    signal: control.signal,
  });
  confirm(job, control);
  return written;
}

/** Opens what was written as it will be opened, and walks it once. */
function confirm(job: MergeJob, { checkpoint }: JobControl): void {
  const cim = openCim(job.file, { sources: pathsOf(job) });
  try {
    for (const _ of cim.walk()) checkpoint();
  } finally {
    cim.close();
  }
}

function pathsOf({ sources }: MergeJob): string[] {
  return sources.map(({ path }) => path);
}
