/** What shows a chain: its topmost forked image, a block image by itself, or a merged one over those it was merged from. */

import { CimletError } from '../../errors.ts';
import { checkRootHash, requireLayers, requireStack } from '../chain-layers.ts';
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
  request: MountRequest,
  operation: string,
): Promise<ShownImage> {
  const layers = await requireLayers(request, operation, (ref) => soundLayer(store, ref));
  requireStack(layers, operation);
  const top = layers.at(-1);
  if (top === undefined) throw new CimletError('invalid-manifest', `${operation}: the chain has no layers`);
  const shown = await shownImage(store, layers, top, operation);
  checkRootHash(shown.rootHash, request.expectedRootHash, operation);
  return shown;
}

/** The same for WCIFS layers, which no image holds. */
export async function requireWcifsChain(
  store: Store,
  request: Pick<MountRequest, 'chain' | 'format' | 'expectedRootHash'>,
  operation: string,
): Promise<void> {
  requireStack(await requireLayers(request, operation, (ref) => soundLayer(store, ref)), operation);
  checkRootHash(undefined, request.expectedRootHash, operation);
}

async function shownImage(
  store: Store,
  layers: readonly WindowsLayerRecord[],
  top: WindowsLayerRecord,
  operation: string,
): Promise<ShownImage> {
  const image = layerImage(store, top);
  if (top.layer.format === 'ForkedCIM') return { image, sources: [], kind: 'forked' };
  if (layers.length === 1) return { image, sources: [], kind: 'block', rootHash: top.layer.rootHash };
  const merge = await soundMerge(
    store,
    layers.map(({ layer }) => layer.chainId),
  );
  if (merge === undefined)
    throw new CimletError(
      'failed-precondition',
      `${operation}: the chain is not merged, or its merged CIM does not fit its layers any more`,
    );
  return {
    image: mergedImage(store, top.layer.chainId),
    sources: layers.map((layer) => layerImage(store, layer)).reverse(),
    kind: 'block',
    rootHash: merge.merge.rootHash,
  };
}
