/** Merged CIMs on disk: written under a temporary name, looked at once, put in place by a rename. */

import { join } from 'node:path';
import { requireLayers, requireSameSeal } from '../chain-layers.ts';
import type { ChainId, EffectContext, MergedChain, MergeRequest } from '../host.ts';
import { lowerVolumeGuid } from '../identity.ts';
import { MERGED_FILE, mergeFolder } from '../layout.ts';
import { checkMergeRequest } from '../merge-request.ts';
import { sourceIdentity, writeMergeRecord } from '../records.ts';
import { beginFolder, discardFolder, removeAside, setAside } from '../snapshot-folders.ts';
import { suffices } from '../unpack-request.ts';
import { afterFailure, holding } from './acquire.ts';
import { builderOf } from './builders.ts';
import { MERGED_IMAGE } from './cim-paths.ts';
import { runJob } from './jobs.ts';
import { layerImage, type Store, soundLayer, soundMerge } from './store.ts';
import type { ShownImage } from './volumes.ts';
import type { Workshop } from './workshop.ts';

/** What is there, when it is all that is asked for. */
export async function sufficientMerge(store: Store, request: MergeRequest): Promise<MergedChain | undefined> {
  const known = (await soundMerge(store, request.chain))?.merge;
  return known !== undefined && suffices(known, request) ? known : undefined;
}

/** Leaves the merged CIM in a folder that `commitMerge` puts in place. */
export async function writeMerge(
  workshop: Workshop,
  request: MergeRequest,
  context: EffectContext,
): Promise<void> {
  const { chain, format, vhdFooter = false } = request;
  const { layout, volumes } = workshop;
  const top = checkMergeRequest(request);
  const operation = `merge chain ${top}`;
  const layers = await requireLayers(request, operation, (ref) => soundLayer(workshop, ref));
  requireSameSeal(layers, request.seal, operation);
  // Windows merges sealed layers into nothing but a sealed CIM.
  const seal = layers.every(({ layer }) => layer.rootHash !== undefined);
  const folder = mergeFolder(top);
  const sources = layers.map((layer) => layerImage(workshop, layer)).reverse();
  context.progress?.({ phase: 'merging', done: 0, total: 0 });
  const guid = lowerVolumeGuid(layout.root, folder);
  await volumes.dismount(guid);
  try {
    const image = { container: join(await beginFolder(layout, folder), MERGED_FILE), name: MERGED_IMAGE };
    const written = await runJob({ kind: 'merge', image, sources, seal, vhdFooter }, context);
    // Some builds of Windows accept a merge that can't be mounted; and a file that a crash cut off looks whole.
    const shown: ShownImage = { image, sources, kind: 'block', rootHash: written.rootHash };
    await holding(volumes.resource(shown, guid), async () => undefined);
    const merge: MergedChain = {
      chain: [...chain],
      format,
      bytes: written.bytes,
      builder: builderOf('merge', workshop.build),
      ...(written.rootHash === undefined ? {} : { rootHash: written.rootHash }),
      ...(vhdFooter ? { vhdFooter } : {}),
    };
    const { cimFiles } = written;
    await writeMergeRecord(layout, top, {
      formatVersion: 1,
      merge,
      cimFiles,
      sources: layers.map(sourceIdentity),
    });
  } catch (error) {
    throw await afterFailure(error, async () => {
      await volumes.dismount(guid);
      await discardFolder(layout, folder);
    });
  }
}

export async function removeMergeFiles(
  { layout, volumes }: Workshop,
  top: ChainId,
  context: EffectContext,
): Promise<void> {
  const folder = mergeFolder(top);
  await volumes.dismount(lowerVolumeGuid(layout.root, folder));
  await setAside(layout, folder);
  await discardFolder(layout, folder);
  await removeAside(layout, folder, context);
}
