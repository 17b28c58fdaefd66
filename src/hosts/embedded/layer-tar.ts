/** Layers as tars: committed ones, and what snapshots will be. Runs in the worker. */

import { createHash } from 'node:crypto';
import { type CimReader, openCim } from '../../cim/reader.ts';
import { classify } from '../../errors.ts';
import { exportLayer } from '../../layers/export-layer.ts';
import type { DiffId } from '../host.ts';
import type { JobControl } from '../job-thread.ts';
import { writeTarFile } from '../tar-file.ts';
import { readingSealed } from './containers.ts';
import type { DiffJob, ExportJob, JobResults } from './jobs.ts';
import { withUpperTar } from './layer-source.ts';

export async function writeLayerTar(job: ExportJob, control: JobControl): Promise<JobResults['export']> {
  const { file, cim: path, rootHash } = job;
  try {
    const bytes = await readingSealed([{ path, rootHash }], control.signal, () => writeLayer(job, control));
    return { bytes };
  } catch (error) {
    throw classify(error, `export layer to ${file}`);
  }
}

function writeLayer(job: ExportJob, control: JobControl): number {
  const opened: CimReader[] = [];
  const open = (path: string, rootHash?: string): CimReader => {
    const cim = openCim(path, { rootHash });
    opened.push(cim);
    return cim;
  };
  try {
    const cim = open(job.cim, job.rootHash);
    const parent = job.parent === undefined ? undefined : open(job.parent);
    return writeTarFile(job, exportLayer(cim, { parent }), control);
  } finally {
    for (const cim of opened) cim.close();
  }
}

/** What was written over a chain, as the tar of a layer. */
export async function writeSnapshotTar(job: DiffJob, control: JobControl): Promise<JobResults['diff']> {
  const digest = createHash('sha256');
  const warnings: string[] = [];
  try {
    const bytes = await withUpperTar(job, control.signal, warnings, (chunks) =>
      writeTarFile(job, chunks, control, (batch) => digest.update(batch)),
    );
    return { bytes, diffId: `sha256:${digest.digest('hex')}` as DiffId, warnings };
  } catch (error) {
    throw classify(error, `export snapshot to ${job.file}`);
  }
}
