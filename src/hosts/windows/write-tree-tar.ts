/** What was written to a snapshot, and layers, as tars. Runs in the job's thread. */

import { createHash } from 'node:crypto';
import { classify } from '../../errors.ts';
import { exportTree } from '../../layers/export-tree.ts';
import { HIVES } from '../../layers/hives.ts';
import { LAYER_ROOTS } from '../../layers/layer-path.ts';
import { foldName } from '../../layers/layer-tree.ts';
import { Dlls } from '../../native/windows/dll.ts';
import { fileFacts } from '../../native/windows/file-info.ts';
import type { DiffId } from '../host.ts';
import type { JobControl } from '../job-thread.ts';
import { writeTarFile } from '../tar-file.ts';
import { exportFolder } from './exported-folder.ts';
import type { ExportFolderJob, ExportTreeJob } from './jobs.ts';
import { MountedLayers } from './mounted-layers.ts';

/** What a scratch's volume has of NTFS' own, and of the filter that shows WCIFS layers under it. */
const OF_THE_SYSTEM = new Set(['System Volume Information', '$RECYCLE.BIN', 'WcSandboxState'].map(foldName));
const HIVES_FOLDER = foldName('Hives');
const MERGED_HIVES = new Set(HIVES.map(({ name }) => foldName(`${name}_BASE`)));
const OF_A_LAYER = new Set(LAYER_ROOTS.map(foldName));

export async function writeTreeTar(job: ExportTreeJob, control: JobControl): Promise<{ diffId: DiffId }> {
  const { upper, lower, below, hidesHives = false } = job;
  const facts = fileFacts(new Dlls());
  const digest = createHash('sha256');
  const treeAt = (place: string) =>
    hidesHives ? new WithoutHives(place, facts) : new MountedLayers(place, facts);
  const chunks = exportTree(treeAt(upper), {
    lower: lower === undefined ? undefined : treeAt(lower),
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

export async function writeFolderTar(job: ExportFolderJob, control: JobControl): Promise<undefined> {
  try {
    writeTarFile(job, exportFolder(job.folder, fileFacts(new Dlls())), control);
  } catch (error) {
    throw classify(error, `export ${job.folder} to ${job.file}`);
  }
}

/** A layer without the hives that its import made, which are no part of its tar. */
class WithoutHives extends MountedLayers {
  override entries(path: string): { name: string }[] {
    const entries = super.entries(path);
    if (foldName(path) !== HIVES_FOLDER) return entries;
    return entries.filter(({ name }) => !MERGED_HIVES.has(foldName(name)));
  }
}
