/** What was written to a snapshot, as the tar of a layer. Runs in the job's thread. */

import { createHash } from 'node:crypto';
import { classify } from '../../errors.ts';
import { exportTree } from '../../layers/export-tree.ts';
import { LAYER_ROOTS } from '../../layers/layer-path.ts';
import { foldName } from '../../layers/layer-tree.ts';
import { Dlls } from '../../native/windows/dll.ts';
import { fileFacts } from '../../native/windows/file-info.ts';
import type { DiffId } from '../host.ts';
import type { JobControl } from '../job-thread.ts';
import { writeTarFile } from '../tar-file.ts';
import type { ExportTreeJob } from './jobs.ts';
import { MountedLayers } from './mounted-layers.ts';

/** What a scratch's volume has of NTFS' own, and of the filter that shows WCIFS layers under it. */
const OF_THE_SYSTEM = new Set(['System Volume Information', '$RECYCLE.BIN', 'WcSandboxState'].map(foldName));
const OF_A_LAYER = new Set(LAYER_ROOTS.map(foldName));

export async function writeTreeTar(job: ExportTreeJob, control: JobControl): Promise<{ diffId: DiffId }> {
  const { upper, lower, below } = job;
  const facts = fileFacts(new Dlls());
  const digest = createHash('sha256');
  const chunks = exportTree(new MountedLayers(upper, facts), {
    lower: lower === undefined ? undefined : new MountedLayers(lower, facts),
    below,
    isOmitted: (name) => (below === '' ? !OF_A_LAYER.has(name) : OF_THE_SYSTEM.has(name)),
    signal: control.signal,
  });
  try {
    writeTarFile({ ...job, bytes: 0 }, chunks, control, (batch) => digest.update(batch));
  } catch (error) {
    throw classify(error, `export ${upper} to ${job.file}`);
  }
  return { diffId: `sha256:${digest.digest('hex')}` as DiffId };
}
