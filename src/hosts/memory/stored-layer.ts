/** What the in-memory host keeps of a layer. */

import { createHash } from 'node:crypto';
import type { CommittedLayer, DiffId, EffectContext, LayerBlob, LayerFault, LayerRef } from '../host.ts';

/** What a layer shows with all below it: the content of each file by its path, `undefined` for directories. */
export type LayerTree = ReadonlyMap<string, Uint8Array | undefined>;

/** Reads a blob over the parent's tree, verifying what it can; throws `corrupt` for bad input. */
export type LayerReader = (
  request: { blob: LayerBlob; diffId: DiffId; parent: LayerTree | undefined },
  context: EffectContext,
) => Promise<LayerTree>;

export interface StoredLayer {
  layer: CommittedLayer;
  tree: LayerTree;
  faults: LayerFault[];
}

export function keyOf(ref: LayerRef): string {
  return `${ref.format}-${ref.chainId}`;
}

/** A root hash as a seal would have it: the same for the same content, other for other. */
export function rootHashOf(tree: LayerTree): string {
  const hash = createHash('sha256');
  for (const [path, content] of [...tree].sort(([a], [b]) => (a < b ? -1 : 1))) {
    hash.update(`${path}\0${content === undefined ? 'directory' : content.length}\0`);
    if (content !== undefined) hash.update(content);
  }
  return `sha256:${hash.digest('hex')}`;
}
