/** What every host asks of a chain's layers before it merges or shows them. */

import { CimletError } from '../errors.ts';
import type { ChainId, CommittedLayer, LayerFormat, LayerRef } from './host.ts';

/** A layer's record as a host keeps it. */
interface Recorded {
  layer: CommittedLayer;
}

/** Every layer of a chain, base first. Throws `failed-precondition` unless `find` knows them all to be sound. */
export async function requireLayers<R extends Recorded>(
  { chain, format }: { chain: readonly ChainId[]; format: LayerFormat },
  operation: string,
  find: (ref: LayerRef) => Promise<R | undefined>,
): Promise<R[]> {
  const layers: R[] = [];
  for (const chainId of chain) {
    const record = await find({ chainId, format });
    if (record === undefined)
      throw new CimletError(
        'failed-precondition',
        `${operation}: layer ${chainId} is not committed as ${format}, or is damaged`,
      );
    layers.push(record);
  }
  return layers;
}

/** Throws `failed-precondition` unless each layer was built on the one below it, from a layer without parents up. */
export function requireStack(layers: readonly Recorded[], operation: string): void {
  for (const [index, { layer }] of layers.entries())
    if (layer.parent !== layers[index - 1]?.layer.chainId)
      throw new CimletError(
        'failed-precondition',
        `${operation}: layer ${layer.chainId} was not built on what the chain has below it`,
      );
}

/** Throws `failed-precondition` unless all layers are sealed, or none is and none has to be. */
export function requireSameSeal(
  layers: readonly Recorded[],
  seal: boolean | undefined,
  operation: string,
): void {
  const sealed = layers.filter(({ layer }) => layer.rootHash !== undefined).length;
  if (sealed === layers.length || (sealed === 0 && seal !== true)) return;
  throw new CimletError(
    'failed-precondition',
    `${operation}: ${sealed} of its ${layers.length} layers are sealed`,
    { hint: 'seal all of them, or none' },
  );
}

/** Throws `corrupt` naming both, when they differ and one is expected. */
export function checkRootHash(
  actual: string | undefined,
  expected: string | undefined,
  operation: string,
): void {
  if (expected === undefined || expected === actual) return;
  const found = actual === undefined ? 'it is not sealed' : `its root hash is ${actual}`;
  throw new CimletError('corrupt', `${operation}: ${found}, and ${expected} was expected`, {
    hint: 'it is not the chain that was expected, or it was made from other input',
  });
}
