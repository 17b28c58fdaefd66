/** A layer from a tar of its own, committed on top of another: what `layer import` does, outside of any plan. */

import { CimletError } from '../errors.ts';
import type {
  Capabilities,
  CommittedLayer,
  EffectContext,
  Host,
  HostState,
  LayerFormat,
  LayerRef,
  ObservedLayer,
} from '../hosts/host.ts';
import { chainIds } from '../hosts/identity.ts';
import { resolveArchive } from '../images/archive.ts';
import { isFitting, WINDOWS_FORMATS } from './derive-chain.ts';
import { snapshotId } from './situation.ts';

export interface LayerImport {
  /** Absolute path of the tar: plain, gzip or zstd. */
  file: string;
  /** The layer it goes on; without one it is a base layer. */
  parent?: LayerRef | undefined;
  /** Default: the parent's, else what a chain of the host would have. */
  format?: LayerFormat | undefined;
}

/**
 * Imports a layer and says what it is now. It is nobody's until a chain with the same layers uses it: no plan removes
 * it before. On sealed layers it is sealed as well. Importing it again changes nothing.
 */
export async function importLayer(
  host: Host,
  { file, parent, format: asked }: LayerImport,
  context: EffectContext,
): Promise<CommittedLayer> {
  const operation = `import layer ${file}`;
  if (parent !== undefined && asked !== undefined && asked !== parent.format) {
    throw new CimletError('failed-precondition', `${operation}: its parent is a ${parent.format} layer`, {
      hint: `leave --format out, or import on a ${asked} layer`,
    });
  }
  const observed = await host.observe({ signal: context.signal });
  const below = parent === undefined ? [] : findStack(parent, observed, operation);
  const { diffId, blob } = await resolveArchive(file, undefined, context.signal);
  const chain = chainIds([...below.map((layer) => layer.diffId), diffId]);
  const chainId = chain.at(-1);
  if (chainId === undefined) throw new Error(`${operation}: no chain ID`);
  const format = asked ?? parent?.format ?? defaultFormat(observed.capabilities);
  const seal = below.some(({ rootHash }) => rootHash !== undefined);
  const parents = below.map((layer) => layer.chainId);
  await host.unpackLayer({ chainId, diffId, parents, format, blob, seal }, context);
  return host.commitLayer({ chainId, format }, context);
}

/** The layer and all below it, base first. */
function findStack(top: LayerRef, observed: HostState, operation: string): ObservedLayer[] {
  const layers = new Map(observed.layers.map((layer) => [snapshotId(layer), layer]));
  const stack: ObservedLayer[] = [];
  for (let ref: LayerRef | undefined = top; ref !== undefined; ) {
    const layer: ObservedLayer | undefined = layers.get(snapshotId(ref));
    if (layer === undefined) {
      throw new CimletError('failed-precondition', `${operation}: layer ${ref.chainId} is not there`, {
        hint: 'apply the chain that it belongs to first',
      });
    }
    stack.unshift(layer);
    ref = layer.parent === undefined ? undefined : { chainId: layer.parent, format: layer.format };
  }
  return stack;
}

function defaultFormat(capabilities: Capabilities): LayerFormat {
  // A layer on its own needs no merging, but the chains it is for do.
  return WINDOWS_FORMATS.find((format) => isFitting(format, 2, capabilities)) ?? 'ForkedCIM';
}
