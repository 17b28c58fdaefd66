/** What shows a chain: its topmost forked image, a block image by itself, or a merged one over those it was merged from. */

import { CimletError } from '../../errors.ts';
import type { MountRequest } from '../host.ts';
import {
  layerImage,
  mergedImage,
  type Store,
  soundLayer,
  soundMerge,
  type WindowsLayerRecord,
} from './store.ts';
import type { ShownImage } from './volumes.ts';

/** Throws `failed-precondition` unless all of the chain is there and sound, `corrupt` for another root hash than expected. */
export async function requireChain(
  store: Store,
  { chain, format, expectedRootHash }: MountRequest,
  operation: string,
): Promise<ShownImage> {
  const refuse = (message: string) => new CimletError('failed-precondition', `${operation}: ${message}`);
  const layers: WindowsLayerRecord[] = [];
  for (const [index, chainId] of chain.entries()) {
    const record = await soundLayer(store, { chainId, format });
    if (record === undefined) throw refuse(`layer ${chainId} is not committed, or damaged`);
    if (record.layer.parent !== chain[index - 1])
      throw refuse(`layer ${chainId} was not built on what the chain has below it`);
    layers.push(record);
  }
  const top = layers.at(-1);
  if (top === undefined) throw new CimletError('invalid-manifest', `${operation}: the chain has no layers`);
  const shown = await shownImage(store, layers, top, refuse);
  checkRootHash(shown.rootHash, expectedRootHash, operation);
  return shown;
}

async function shownImage(
  store: Store,
  layers: readonly WindowsLayerRecord[],
  top: WindowsLayerRecord,
  refuse: (message: string) => CimletError,
): Promise<ShownImage> {
  const image = layerImage(store, top);
  if (top.layer.format === 'ForkedCIM') return { image, sources: [], kind: 'forked' };
  if (layers.length === 1) return { image, sources: [], kind: 'block', rootHash: top.layer.rootHash };
  const merge = await soundMerge(
    store,
    layers.map(({ layer }) => layer.chainId),
  );
  if (merge === undefined)
    throw refuse('the chain is not merged, or its merged CIM does not fit its layers any more');
  return {
    image: mergedImage(store, top.layer.chainId),
    sources: layers.map((layer) => layerImage(store, layer)).reverse(),
    kind: 'block',
    rootHash: merge.merge.rootHash,
  };
}

/** Throws `corrupt` naming both, when they differ and one is expected. */
function checkRootHash(actual: string | undefined, expected: string | undefined, operation: string): void {
  if (expected === undefined || expected === actual) return;
  const found = actual === undefined ? 'it is not sealed' : `its root hash is ${actual}`;
  throw new CimletError('corrupt', `${operation}: ${found}, and ${expected} was expected`, {
    hint: 'it is not the chain that was expected, or it was made from other input',
  });
}
