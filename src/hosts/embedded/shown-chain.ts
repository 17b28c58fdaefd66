/** What shows a chain: a forked CIM, a block CIM by itself, or a merged one with the layers it was merged from. */

import { CimletError } from '../../errors.ts';
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
  request: MountRequest,
  operation: string,
): Promise<ShownChain> {
  const { chain, format, expectedRootHash } = request;
  const layers: LayerRecord[] = [];
  for (const chainId of chain) {
    const record = await soundLayer(layout, { chainId, format });
    if (record === undefined)
      throw new CimletError(
        'failed-precondition',
        `${operation}: layer ${chainId} is not committed, or damaged`,
      );
    layers.push(record);
  }
  const top = layers.at(-1);
  if (top === undefined) throw new CimletError('invalid-manifest', `${operation}: the chain has no layers`);
  const shown =
    format === 'BlockCIM' ? await showBlocks(layout, chain, layers, top, operation) : showForked(layout, top);
  checkRootHash(shown.rootHash, expectedRootHash, operation);
  return shown;
}

/** Throws `corrupt` naming both, when they differ and one is expected. */
function checkRootHash(actual: string | undefined, expected: string | undefined, operation: string): void {
  if (expected === undefined || expected === actual) return;
  const found = actual === undefined ? 'it is not sealed' : `its root hash is ${actual}`;
  throw new CimletError('corrupt', `${operation}: ${found}, and ${expected} was expected`, {
    hint: 'it is not the chain that was expected, or it was made from other input',
  });
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
  for (const [index, { layer }] of layers.entries())
    if (layer.parent !== chain[index - 1])
      throw refuse(`layer ${layer.chainId} was not built on what the chain has below it`);
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
