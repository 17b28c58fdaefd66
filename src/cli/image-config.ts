/** What an exported chain has from the images that it was made of: its configuration, and what that says of the layers' history. */

import type { ObservedLayer } from '../hosts/host.ts';
import type { Status } from '../reconciler/status.ts';
import type { State } from '../state/state.ts';

interface HistoryEntry {
  created_by?: string;
  comment?: string;
  empty_layer?: boolean;
}

/**
 * The configuration of the Image that gave the chain its topmost layers, with a history of all layers if it had one. Undefined when no layer is an
 * Image's, or that was applied by a cimlet that didn't keep it. `chain`: base first.
 */
export function configOfImage(
  chain: readonly ObservedLayer[],
  { resources }: Status,
  state: Pick<State, 'imageConfig'>,
): Record<string, unknown> | undefined {
  const [origin] = resources
    .flatMap(({ name, facts: { image } }) => {
      const end = image === undefined ? undefined : endIn(chain, image.layers);
      return image === undefined || end === undefined
        ? []
        : [{ name, end, first: end - image.layers.length }];
    })
    .sort((a, b) => b.end - a.end || a.first - b.first);
  const text = origin === undefined ? undefined : state.imageConfig(origin.name);
  if (origin === undefined || text === undefined) return undefined;
  const config: Record<string, unknown> = JSON.parse(text);
  return { ...config, history: extended(config.history, origin, chain.length) };
}

/** Behind which layer of the chain an image's layers end; undefined when they aren't in it, one upon the other. */
function endIn(
  chain: readonly ObservedLayer[],
  layers: readonly { diffId: ObservedLayer['diffId'] }[],
): number | undefined {
  for (let end = chain.length; end >= layers.length && layers.length > 0; end--) {
    const first = end - layers.length;
    if (layers.every(({ diffId }, index) => chain[first + index]?.diffId === diffId)) return end;
  }
  return undefined;
}

/** One entry for each layer, as checkers want it; the image's own are from `first` to `end`. */
function extended(
  history: unknown,
  { first, end }: { first: number; end: number },
  all: number,
): unknown[] | undefined {
  if (!Array.isArray(history)) return undefined;
  const layers = (history as HistoryEntry[]).filter((entry) => entry?.empty_layer !== true).length;
  if (layers !== end - first) return undefined;
  const ours = (count: number): HistoryEntry[] =>
    Array.from({ length: count }, () => ({ created_by: 'cimlet image export' }));
  return [...ours(first), ...history, ...ours(all - end)];
}
