/** What was written to a snapshot, as the tar of a layer. Runs in the job's thread. */

import { createHash } from 'node:crypto';
import { classify } from '../../errors.ts';
import { exportTree } from '../../layers/export-tree.ts';
import { Dlls } from '../../native/windows/dll.ts';
import { fileFacts } from '../../native/windows/file-info.ts';
import type { DiffId } from '../host.ts';
import type { JobControl } from '../job-thread.ts';
import { writeTarFile } from '../tar-file.ts';
import type { ExportTreeJob } from './jobs.ts';
import { MountedLayers } from './mounted-layers.ts';

export async function writeTreeTar(job: ExportTreeJob, control: JobControl): Promise<{ diffId: DiffId }> {
  const { upper, lower, below, omit } = job;
  const facts = fileFacts(new Dlls());
  const digest = createHash('sha256');
  const chunks = exportTree(new MountedLayers(upper, facts), {
    lower: lower === undefined ? undefined : new MountedLayers(lower, facts),
    below,
    omit: new Set(omit),
    signal: control.signal,
  });
  try {
    writeTarFile({ ...job, bytes: 0 }, chunks, control, (batch) => digest.update(batch));
  } catch (error) {
    throw classify(error, `export ${upper} to ${job.file}`);
  }
  return { diffId: `sha256:${digest.digest('hex')}` as DiffId };
}
