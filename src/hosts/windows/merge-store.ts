/** Merged CIMs on disk: written under a temporary name, looked at once, put in place by a rename. */

import { join } from 'node:path';
import { CimletError } from '../../errors.ts';
import type { ChainId, EffectContext, MergedChain, MergeRequest } from '../host.ts';
import { lowerVolumeGuid } from '../identity.ts';
import { MERGED_FILE, mergeFolder } from '../layout.ts';
import { checkMergeRequest } from '../merge-request.ts';
import { readMergeRecord, writeMergeRecord } from '../records.ts';
import { beginFolder, discardFolder, putInPlace, removeAside, setAside } from '../snapshot-folders.ts';
import { afterFailure, holding } from './acquire.ts';
import { builderOf } from './builders.ts';
import { MERGED_IMAGE } from './cim-paths.ts';
import { runJob } from './jobs.ts';
import {
  layerImage,
  type Store,
  soundLayer,
  soundMerge,
  sourceIdentity,
  type WindowsLayerRecord,
} from './store.ts';
import type { ShownImage } from './volumes.ts';
import type { Workshop } from './workshop.ts';

/** What is there, when it is all that is asked for. */
export async function sufficientMerge(
  store: Store,
  { chain, seal, vhdFooter }: MergeRequest,
): Promise<MergedChain | undefined> {
  const known = (await soundMerge(store, chain))?.merge;
  const suffices =
    (seal !== true || known?.rootHash !== undefined) && (vhdFooter !== true || known?.vhdFooter === true);
  return suffices ? known : undefined;
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
  const layers = await requireLayers(workshop, request);
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

export async function commitMerge({ layout }: Store, top: ChainId): Promise<MergedChain> {
  const written = await readMergeRecord(layout, top, 'tmp-');
  if (written === undefined) throw new Error(`the merged CIM on ${top} was not written`);
  const folder = mergeFolder(top);
  await setAside(layout, folder);
  await putInPlace(layout, folder);
  await removeAside(layout, folder);
  return written.merge;
}

export async function removeMergeFiles({ layout, volumes }: Workshop, top: ChainId): Promise<void> {
  const folder = mergeFolder(top);
  await volumes.dismount(lowerVolumeGuid(layout.root, folder));
  await setAside(layout, folder);
  await discardFolder(layout, folder);
  await removeAside(layout, folder);
}

async function requireLayers(
  store: Store,
  { chain, format, seal }: MergeRequest,
): Promise<WindowsLayerRecord[]> {
  const operation = `merge chain ${chain.at(-1)}`;
  const layers: WindowsLayerRecord[] = [];
  for (const chainId of chain) {
    const record = await soundLayer(store, { chainId, format });
    if (record === undefined)
      throw new CimletError(
        'failed-precondition',
        `${operation}: layer ${chainId} is not committed, or is damaged`,
      );
    layers.push(record);
  }
  const sealed = layers.filter(({ layer }) => layer.rootHash !== undefined).length;
  if ((sealed > 0 && sealed < layers.length) || (seal === true && sealed === 0))
    throw new CimletError(
      'failed-precondition',
      `${operation}: ${sealed} of its ${layers.length} layers are sealed`,
      { hint: 'seal all of them, or none' },
    );
  return layers;
}
