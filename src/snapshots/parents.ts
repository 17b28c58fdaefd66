/** What a new snapshot is made on: the chain that its parent stands for, or nothing in a format that the host can do. */

import { CimletError } from '../errors.ts';
import type { Capabilities, ChainId, LayerFormat, ObservedLayer } from '../hosts/host.ts';
import type { NamedSnapshot } from '../state/named-snapshots.ts';

export interface ParentChain {
  /** Base first. */
  chain: ChainId[];
  format: LayerFormat;
}

/** The preferred one first. */
const FORMATS = ['BlockCIM', 'ForkedCIM', 'WCIFS', 'LCOW'] as const;

/** Throws `failed-precondition` for one that isn't committed. */
export function chainOfNamed(parent: NamedSnapshot, operation: string): ParentChain {
  if (parent.kind === 'committed' && parent.state === 'ready') return parent;
  throw new CimletError(
    'failed-precondition',
    `${operation}: ${JSON.stringify(parent.name)} is not committed`,
  );
}

/** Of a layer by its chain ID. Throws `not-found`. */
export function chainOfLayer(
  layers: readonly ObservedLayer[],
  parent: string,
  operation: string,
): ParentChain {
  const layer = layers.find(({ chainId }) => chainId === parent);
  if (layer === undefined)
    throw new CimletError(
      'not-found',
      `${operation}: there is no snapshot or layer ${JSON.stringify(parent)}`,
    );
  const chain: ChainId[] = [];
  for (let id: ChainId | undefined = layer.chainId; id !== undefined; ) {
    chain.unshift(id);
    id = layers.find((each) => each.chainId === chain[0] && each.format === layer.format)?.parent;
  }
  return { chain, format: layer.format };
}

/** Throws `unsupported-host` when the host writes layers of no format. */
export function preferredFormat(capabilities: Capabilities, operation: string): LayerFormat {
  const can = (format: LayerFormat) =>
    capabilities[`${format}.write`].available && capabilities[`${format}.mount`].available;
  const format = FORMATS.find(can);
  if (format === undefined)
    throw new CimletError('unsupported-host', `${operation}: this host writes layers of no format`);
  return format;
}
