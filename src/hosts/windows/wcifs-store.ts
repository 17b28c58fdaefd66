/** WCIFS layers written, which Windows does for the most part, and deleted, which only Windows does. */

import { join } from 'node:path';
import type { VmCompute } from '../../native/windows/vmcompute.ts';
import { throwIfAborted } from '../abort.ts';
import { requireLayers } from '../chain-layers.ts';
import { ensureDirectory, listDirectory, removeTree } from '../directories.ts';
import type { EffectContext, UnpackRequest } from '../host.ts';
import { holding } from './acquire.ts';
import { runJob, type WrittenImage } from './jobs.ts';
import { scratchVolume } from './scratches.ts';
import { soundLayer } from './store.ts';
import { isWcifsName, topmostFirst, wcifsPath } from './wcifs-paths.ts';
import { destroyScratch, viewScratch } from './wcifs-scratch.ts';
import type { Workshop } from './workshop.ts';

/** While a layer is unpacked, beside it: a scratch that shows the layers below, and what Windows is to import. */
const LOWER = 'lower';
const IMPORT = 'import';
/** An image's files belong to SYSTEM, and some have audit rules. */
const WRITING = ['SeBackupPrivilege', 'SeRestorePrivilege', 'SeSecurityPrivilege'] as const;

/** Has the layer made below `folder`, its own; what is left of it on failure is the caller's to remove. */
export async function writeWcifsLayer(
  workshop: Workshop,
  { chainId, diffId, blob, parents: chain }: UnpackRequest,
  folder: string,
  context: EffectContext,
): Promise<WrittenImage> {
  const { layout, privileges, vmcompute } = workshop;
  const operation = `unpack layer ${chainId}`;
  await requireLayers({ chain, format: 'WCIFS' }, operation, (ref) => soundLayer(workshop, ref));
  const parents = topmostFirst(layout, chain);
  const layer = wcifsPath(layout, chainId, 'tmp-');
  const importFrom = join(folder, IMPORT);
  for (const directory of [layer, importFrom]) await ensureDirectory(directory);
  const unpack = (lower?: string) =>
    runJob({ kind: 'unpack-wcifs', blob, diffId, folder, lower, layer, parents, importFrom }, context);
  const written = await privileges.withPrivileges(WRITING, async () => {
    const isBase = parents.length === 0;
    const result = isBase ? await unpack() : await withLower(vmcompute, join(folder, LOWER), parents, unpack);
    throwIfAborted(context.signal, operation);
    if (isBase) await vmcompute.processBaseImage(layer);
    else {
      await vmcompute.importLayer(layer, importFrom, parents);
      const { afterImport } = result;
      await runJob({ kind: 'complete-wcifs', layer, parents, afterImport }, context);
    }
    if (result.hasUtilityVm) await vmcompute.processUtilityImage(join(layer, 'UtilityVM'));
    return result;
  });
  await removeTree(importFrom);
  const { bytes, files, warnings } = written;
  return { cimFiles: [], bytes, files, warnings };
}

/** Deletes a folder of a WCIFS layer. Windows deletes its layers itself: links out of them would lead anything else astray. */
export async function deleteWcifsFolder(vmcompute: VmCompute, folder: string): Promise<void> {
  for (const name of await listDirectory(folder)) {
    const path = join(folder, name);
    if (name === LOWER) await destroyScratch(vmcompute, path);
    else if (isWcifsName(name)) await vmcompute.destroyLayer(path);
  }
  await removeTree(folder);
}

/** Runs `use` with a volume that shows the layers below: how they lie on disk is Windows' own business. */
async function withLower<T>(
  vmcompute: VmCompute,
  scratch: string,
  parents: readonly string[],
  use: (volume: string) => Promise<T>,
): Promise<T> {
  return holding(viewScratch(vmcompute, scratch, parents), async () => {
    const volume = await scratchVolume(vmcompute, scratch);
    if (volume === undefined) throw new Error(`scratch ${scratch} is active and has no volume`);
    return use(volume);
  });
}
