/** A committed layer as a tar again. Runs in the worker. */

import { closeSync, fsyncSync, openSync, renameSync, rmSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import { syncDirectory } from '../../cim/durable-files.ts';
import { type CimReader, openCim } from '../../cim/reader.ts';
import { classify } from '../../errors.ts';
import { exportLayer } from '../../layers/export-layer.ts';
import type { JobControl } from '../job-thread.ts';
import { readingSealed } from './containers.ts';
import type { ExportJob, JobResults } from './jobs.ts';

const WRITE_BYTES = 1024 * 1024;

/** Renamed to `file`, durably, when it is whole; a pipe or device that is there is written to. */
export async function writeLayerTar(job: ExportJob, control: JobControl): Promise<JobResults['export']> {
  const { file, temporary, cim: path, rootHash } = job;
  try {
    const bytes = await readingSealed([{ path, rootHash }], control.signal, () => writeTar(job, control));
    if (temporary !== file) {
      renameSync(temporary, file);
      syncDirectory(dirname(file));
    }
    return { bytes };
  } catch (error) {
    if (temporary !== file) rmSync(temporary, { force: true });
    throw classify(error, `export layer to ${file}`);
  }
}

function writeTar(job: ExportJob, { checkpoint, progress }: JobControl): number {
  const opened: CimReader[] = [];
  const open = (path: string, rootHash?: string): CimReader => {
    const cim = openCim(path, { rootHash });
    opened.push(cim);
    return cim;
  };
  const descriptor = openSync(job.temporary, 'w');
  try {
    const cim = open(job.cim, job.rootHash);
    const parent = job.parent === undefined ? undefined : open(job.parent);
    let done = 0;
    for (const batch of inBatches(exportLayer(cim, { parent }))) {
      checkpoint();
      for (let at = 0; at < batch.length; ) at += writeSync(descriptor, batch, at);
      done += batch.length;
      progress({ phase: 'exporting', done, total: Math.max(done, job.bytes) });
    }
    if (job.temporary !== job.file) fsyncSync(descriptor);
    return done;
  } finally {
    closeSync(descriptor);
    for (const cim of opened) cim.close();
  }
}

function* inBatches(chunks: Iterable<Uint8Array>): Generator<Buffer> {
  let pending: Uint8Array[] = [];
  let bytes = 0;
  for (const chunk of chunks) {
    pending.push(chunk);
    bytes += chunk.length;
    if (bytes < WRITE_BYTES) continue;
    yield Buffer.concat(pending);
    pending = [];
    bytes = 0;
  }
  yield Buffer.concat(pending);
}
