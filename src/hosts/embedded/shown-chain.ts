/** What shows a chain: a forked CIM, a block CIM by itself, or a merged one with the layers it was merged from. */

import { CimletError } from '../../errors.ts';
import { checkRootHash, requireLayers, requireStack } from '../chain-layers.ts';
import type { ChainId, MountRequest } from '../host.ts';
import { cimPath, containerPath, type Layout, mergedPath } from '../layout.ts';
import type { LayerRecord } from '../records.ts';
import type { ShownCim } from './jobs.ts';
import { soundLayer } from './layer-store.ts';
import { soundMerge } from './merge-store.ts';

export interface ShownChain {
  top: ChainId;
  cim: ShownCim;
  /** Of all that was written for it. */
  builder: string;
  /** When it is sealed. */
  rootHash: string | undefined;
}

/** Throws `failed-precondition` unless all of the chain is there and sound, `corrupt` for another root hash than expected. */
export async function requireChain(
  layout: Layout,
  request: Pick<MountRequest, 'chain' | 'format' | 'expectedRootHash'>,
  operation: string,
): Promise<ShownChain> {
  const { chain, format, expectedRootHash } = request;
  const layers = await requireLayers(request, operation, (ref) => soundLayer(layout, ref));
  const top = layers.at(-1);
  if (top === undefined) throw new CimletError('invalid-manifest', `${operation}: the chain has no layers`);
  const shown =
    format === 'BlockCIM' ? await showBlocks(layout, chain, layers, top, operation) : showForked(layout, top);
  checkRootHash(shown.rootHash, expectedRootHash, operation);
  return shown;
}

function showForked(layout: Layout, { layer }: LayerRecord): ShownChain {
  const cim = { path: cimPath(layout, layer.chainId), sources: [], seals: [] };
  return { top: layer.chainId, cim, builder: layer.builder, rootHash: undefined };
}

async function showBlocks(
  layout: Layout,
  chain: readonly ChainId[],
  layers: readonly LayerRecord[],
  top: LayerRecord,
  operation: string,
): Promise<ShownChain> {
  const refuse = (message: string) => new CimletError('failed-precondition', `${operation}: ${message}`);
  requireStack(layers, operation);
  const merge = chain.length === 1 ? undefined : await soundMerge(layout, chain);
  if (chain.length > 1 && merge === undefined)
    throw refuse('the chain is not merged, or its merged CIM does not fit its layers any more');
  const paths = chain.map((chainId) => containerPath(layout, chainId));
  const { layer } = top;
  const path = merge === undefined ? containerPath(layout, layer.chainId) : mergedPath(layout, layer.chainId);
  return {
    top: layer.chainId,
    cim: {
      path,
      sources: merge === undefined ? [] : paths.toReversed(),
      seals: [...sealsOf(path, merge?.merge), ...layers.flatMap((each, i) => sealsOf(paths[i], each.layer))],
    },
    builder: merge === undefined ? layer.builder : `${layer.builder}/${merge.merge.builder}`,
    rootHash: merge === undefined ? layer.rootHash : merge.merge.rootHash,
  };
}

function sealsOf(
  path: string | undefined,
  sealed: { rootHash?: string | undefined } | undefined,
): ShownCim['seals'] {
  const rootHash = sealed?.rootHash;
  return path === undefined || rootHash === undefined ? [] : [{ path, rootHash }];
}
