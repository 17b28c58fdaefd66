/** Merged CIMs on disk: at most one on each block layer, in a folder of its own, bound to its layers as they were. */

import { join } from 'node:path';
import { requireLayers, requireSameSeal } from '../chain-layers.ts';
import type { ChainId, EffectContext, MergedChain, MergeRequest } from '../host.ts';
import { mergedRegionGuid } from '../identity.ts';
import { type Layout, layerFolder, MERGED_FILE, mergeFolder } from '../layout.ts';
import { checkMergeRequest } from '../merge-request.ts';
import { type MergeRecord, readMergeRecord, sourceIdentity, writeMergeRecord } from '../records.ts';
import {
  beginFolder,
  cleanUpAfterFailure,
  discardFolder,
  removeAside,
  setAside,
} from '../snapshot-folders.ts';
import { suffices } from '../unpack-request.ts';
import { MERGE_BUILDER } from './builders.ts';
import { removeView, soundLayer, sourceContainer } from './layer-store.ts';
import { mergeFaults } from './observe.ts';
import { runJob } from './run-job.ts';
import { removeUnmounted } from './scratch.ts';
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
  return mergeFaults(layout, record, sources).length === 0 ? record : undefined;
}

/** Whether what is there is all that is asked for, and still what was sealed. */
export async function sufficientMerge(
  layout: Layout,
  request: MergeRequest,
  signal: AbortSignal,
): Promise<MergedChain | undefined> {
  const top = request.chain.at(-1);
  const record = await soundMerge(layout, request.chain);
  if (top === undefined || record === undefined) return undefined;
  const { merge } = record;
  return suffices(merge, request) && (await mergeSealFaults(layout, top, record, signal)).length === 0
    ? merge
    : undefined;
}

/** Leaves the merged CIM durable in a folder that `commitMerge` puts in place. */
export async function writeMerge(
  layout: Layout,
  request: MergeRequest,
  context: EffectContext,
): Promise<void> {
  const { chain, format, seal = false, vhdFooter = false } = request;
  const top = checkMergeRequest(request);
  const operation = `merge chain ${top}`;
  const layers = await requireLayers(request, operation, (ref) => soundLayer(layout, ref));
  requireSameSeal(layers, request.seal, operation);
  const folder = mergeFolder(top);
  context.progress?.({ phase: 'merging', done: 0, total: 0 });
  try {
    const written = await runJob<'merge'>(
      {
        kind: 'merge',
        file: join(await beginFolder(layout, folder, removeUnmounted), MERGED_FILE),
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
    await cleanUpAfterFailure(context, () => discardFolder(layout, folder, removeUnmounted));
    throw error;
  }
}

export async function removeMergeFiles(layout: Layout, top: ChainId, context: EffectContext): Promise<void> {
  const folder = mergeFolder(top);
  if (await setAside(layout, folder)) await removeView(layout, { chainId: top, format: 'BlockCIM' });
  await discardFolder(layout, folder, removeUnmounted);
  await removeAside(layout, folder, context, removeUnmounted);
}
