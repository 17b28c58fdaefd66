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
import { indexLayers, snapshotId } from './situation.ts';

export const LAYER_FORMATS: readonly LayerFormat[] = ['ForkedCIM', 'BlockCIM', 'WCIFS', 'LCOW'];

export interface LayerImport {
  /** Absolute path of the tar: plain, gzip or zstd. */
  file: string;
  /** The layer it goes on; without one it is a base layer. */
  parent?: LayerRef | undefined;
  /** Default: the parent's, else what a chain of the host would have. */
  format?: LayerFormat | undefined;
  /** Seal it, which takes sealed layers below. Default: as they are. */
  seal?: boolean | undefined;
}

/**
 * Imports a layer and says what it is now. It is nobody's until a chain with the same layers uses it: no plan removes
 * it before. On sealed layers it is sealed as well. Importing it again changes nothing.
 */
export async function importLayer(
  host: Host,
  { file, parent, format: asked, seal: wanted }: LayerImport,
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
  const format =
    asked ?? parent?.format ?? (wanted === true ? 'BlockCIM' : defaultFormat(observed.capabilities));
  requireWritable(format, observed.capabilities, operation);
  const isBelowSealed = below.some(({ rootHash }) => rootHash !== undefined);
  if (wanted === true && below.length > 0 && !isBelowSealed)
    throw new CimletError('failed-precondition', `${operation}: the layers below are not sealed`, {
      hint: 'leave --seal out, or seal all of them: a chain with integrity: Verified does',
    });
  const { diffId, blob } = await resolveArchive(file, undefined, context.signal);
  const chain = chainIds([...below.map((layer) => layer.diffId), diffId]);
  const chainId = chain.at(-1);
  if (chainId === undefined) throw new Error(`${operation}: no chain ID`);
  const seal = wanted === true || isBelowSealed;
  const unsealed = (layer: ObservedLayer) =>
    layer.parent === chainId && layer.format === format && layer.rootHash === undefined;
  if (wanted === true && observed.layers.some(unsealed))
    throw new CimletError('failed-precondition', `${operation}: there are layers on it that are not sealed`, {
      hint: 'set integrity: Verified in a chain of all of them and apply',
    });
  const parents = below.map((layer) => layer.chainId);
  await host.unpackLayer({ chainId, diffId, parents, format, blob, seal }, context);
  return host.commitLayer({ chainId, format }, context);
}

/** The layer and all below it, base first. */
function findStack(top: LayerRef, observed: HostState, operation: string): ObservedLayer[] {
  const layers = indexLayers(observed.layers);
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

function requireWritable(format: LayerFormat, capabilities: Capabilities, operation: string): void {
  const can = (each: LayerFormat) => capabilities[`${each}.write`].available;
  if (can(format)) return;
  const reason = capabilities[`${format}.write`].reason ?? 'not available';
  throw new CimletError('unsupported-host', `${operation}: ${format}.write: ${reason}`, {
    hint: `this host writes ${LAYER_FORMATS.filter(can).join(' and ')}`,
  });
}

function defaultFormat(capabilities: Capabilities): LayerFormat {
  // A layer on its own needs no merging, but the chains it is for do.
  return WINDOWS_FORMATS.find((format) => isFitting(format, 2, capabilities)) ?? 'ForkedCIM';
}
