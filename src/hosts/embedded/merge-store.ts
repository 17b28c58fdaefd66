/** Merged CIMs on disk: at most one on each block layer, in a folder of its own, bound to its layers as they were. */

import { join } from 'node:path';
import { CimletError } from '../../errors.ts';
import type { ChainId, EffectContext, MergedChain, MergeRequest } from '../host.ts';
import { mergedRegionGuid } from '../identity.ts';
import { type Layout, layerFolder, MERGED_FILE, mergeFolder } from '../layout.ts';
import { checkMergeRequest } from '../merge-request.ts';
import {
  type LayerRecord,
  type MergeRecord,
  readMergeRecord,
  sourceIdentity,
  writeMergeRecord,
} from '../records.ts';
import {
  beginFolder,
  cleanUpAfterFailure,
  discardFolder,
  putInPlace,
  removeAside,
  setAside,
} from '../snapshot-folders.ts';
import { MERGE_BUILDER } from './builders.ts';
import { removeView, soundLayer, sourceContainer } from './layer-store.ts';
import { mergeFaults } from './observe.ts';
import { runJob } from './run-job.ts';
import { mergeSealFaults } from './seal-faults.ts';

/** The merged CIM of this very chain, when it is there and has no faults. */
export async function soundMerge(
  layout: Layout,
  chain: readonly ChainId[],
): Promise<MergeRecord | undefined> {
  const top = chain.at(-1);
  const record = top === undefined ? undefined : await readMergeRecord(layout, top);
  if (record === undefined || record.merge.chain.join() !== chain.join()) return undefined;
  const sources = new Map<string, string>();
  for (const chainId of chain) {
    const layer = await soundLayer(layout, { chainId, format: 'BlockCIM' });
    if (layer !== undefined) sources.set(layerFolder(layer.layer), sourceIdentity(layer));
  }
  return (await mergeFaults(layout, record, sources)).length === 0 ? record : undefined;
}

/** Whether what is there is all that is asked for, and still what was sealed. */
export async function sufficientMerge(
  layout: Layout,
  { chain, seal, vhdFooter }: MergeRequest,
  signal: AbortSignal,
): Promise<MergedChain | undefined> {
  const top = chain.at(-1);
  const record = await soundMerge(layout, chain);
  if (top === undefined || record === undefined) return undefined;
  const { merge } = record;
  const suffices =
    (seal !== true || merge.rootHash !== undefined) && (vhdFooter !== true || merge.vhdFooter === true);
  return suffices && (await mergeSealFaults(layout, top, record, signal)).length === 0 ? merge : undefined;
}

/** Leaves the merged CIM durable in a folder that `commitMerge` puts in place. */
export async function writeMerge(
  layout: Layout,
  request: MergeRequest,
  context: EffectContext,
): Promise<void> {
  const { chain, format, seal = false, vhdFooter = false } = request;
  const top = checkMergeRequest(request);
  const layers = await requireLayers(layout, request);
  const folder = mergeFolder(top);
  context.progress?.({ phase: 'merging', done: 0, total: 0 });
  try {
    const written = await runJob<'merge'>(
      {
        kind: 'merge',
        file: join(await beginFolder(layout, folder), MERGED_FILE),
        regionGuid: mergedRegionGuid(top),
        sources: layers.map((layer) => sourceContainer(layout, layer)).reverse(),
        seal,
        vhdFooter,
      },
      context,
    );
    const { bytes, cimFiles, rootHash } = written;
    const merge: MergedChain = {
      chain: [...chain],
      format,
      bytes,
      builder: MERGE_BUILDER,
      ...(rootHash === undefined ? {} : { rootHash }),
      ...(vhdFooter ? { vhdFooter } : {}),
    };
    const sources = layers.map(sourceIdentity);
    await writeMergeRecord(layout, top, { formatVersion: 1, merge, cimFiles, sources });
  } catch (error) {
    await cleanUpAfterFailure(context, () => discardFolder(layout, folder));
    throw error;
  }
}

export async function commitMerge(layout: Layout, top: ChainId): Promise<MergedChain> {
  const written = await readMergeRecord(layout, top, 'tmp-');
  if (written === undefined) throw new Error(`the merged CIM on ${top} was not written`);
  const folder = mergeFolder(top);
  await setAside(layout, folder);
  await putInPlace(layout, folder);
  await removeAside(layout, folder);
  return written.merge;
}

export async function removeMergeFiles(layout: Layout, top: ChainId): Promise<void> {
  const folder = mergeFolder(top);
  if (await setAside(layout, folder)) await removeView(layout, { chainId: top, format: 'BlockCIM' });
  await discardFolder(layout, folder);
  await removeAside(layout, folder);
}

async function requireLayers(layout: Layout, { chain, format, seal }: MergeRequest): Promise<LayerRecord[]> {
  const operation = `merge chain ${chain.at(-1)}`;
  const layers: LayerRecord[] = [];
  for (const chainId of chain) {
    const record = await soundLayer(layout, { chainId, format });
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
