import type { FileInfo } from '../cim/types.ts';
import { FileAttribute } from '../cim/types.ts';
import type { EntryPlace } from '../tar/tar-format.ts';
import type { LayerNode } from './layer-tree.ts';

export type LowerKind = 'absent' | LayerNode['kind'];

/**
 * What differs between writing a layer as a fork of its parent's CIM and as a CIM of its own. The processor knows
 * what this layer has added; the policy knows what lower layers hold and how it is taken away.
 */
export interface LayerPolicy {
  /** Hard links wait until everything else is added, so that they find a file that comes after them in the tar. */
  readonly linksLast: boolean;
  /** What lower layers hold at a path where this layer has added nothing. */
  lower(path: string): LowerKind;
  /** Takes away what lower layers hold at such a path, and all below it. `place` is where the tar says so. */
  removeLower(path: string, place: EntryPlace): void;
  /**
   * Takes away all that lower layers hold below the directory `path`, but nothing that this layer added; `added` is
   * what it added there, and gets `hasLower: false` with every directory below it.
   */
  emptyLower(path: string, added: LayerNode): void;
  /** Something comes below a directory that only lower layers have so far. */
  enterLower(path: string): void;
  /** Takes away what this layer added at `path`, a node of kind `from`, for something of kind `to`. */
  removeOwn(path: string, from: LayerNode['kind'], to: LayerNode['kind'], place: EntryPlace): void;
  /**
   * Makes `path` another name of the file `target`, which this layer added (`isOwn`) or a lower one has; `false` when
   * there is no such file.
   */
  link(path: string, target: string, isOwn: boolean): boolean;
  /** The tar has ended; `root` is all that this layer added. Files and links that wait for the end come next. */
  settle(root: LayerNode): void;
  /** Everything is added. */
  finish(): void;
}

export function kindOf(info: FileInfo | undefined): LowerKind {
  if (info === undefined) return 'absent';
  if (info.reparseTag !== 0 || (info.attributes & FileAttribute.reparsePoint) !== 0) return 'link';
  return info.isDirectory ? 'directory' : 'file';
}
