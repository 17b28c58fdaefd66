import type { LayerNode } from './layer-tree.ts';

export type LowerKind = 'absent' | LayerNode['kind'];

/**
 * What differs between writing a layer as a fork of its parent's CIM and as a CIM of its own. The processor knows
 * what this layer has added; the policy knows what lower layers hold and how it is taken away.
 */
export interface LayerPolicy {
  /** What lower layers hold at a path where this layer has added nothing. */
  lower(path: string): LowerKind;
  /** Takes away what lower layers hold at such a path, and all below it. Nothing there is fine. */
  removeLower(path: string): void;
  /**
   * Takes away all that lower layers hold below the directory `path`, but nothing that this layer added; `added` is
   * what it added there, and gets `hasLower: false` with every directory below it.
   */
  emptyLower(path: string, added: LayerNode): void;
  /** Makes `path` another name of the file `target`, a lower layer's perhaps; `false` when there is no such file. */
  link(path: string, target: string): boolean;
}
