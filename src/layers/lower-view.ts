import { markKind } from '../cim/file-record.ts';
import type { CimReader } from '../cim/reader.ts';
import type { FileId, FileInfo, StreamInfo } from '../cim/types.ts';
import { foldName } from './layer-tree.ts';

/** The files that all layers below the one being written give together. Paths as in LayerWriter; symlinks aren't followed. */
export interface LowerView {
  stat(path: string): FileInfo | undefined;
  /** Children of a directory; none for anything else. */
  entries(path: string): Iterable<{ name: string }>;
  /** Alternate streams of a file or directory. */
  streams(path: string): readonly StreamInfo[];
  /** Bytes of a file, or of one of its alternate streams. */
  read(path: string, stream?: string): Iterable<Uint8Array>;
}

/** What a view needs of an open CIM. */
export type LowerCim = Pick<
  CimReader,
  'root' | 'find' | 'isDirectory' | 'slot' | 'stat' | 'entries' | 'streams' | 'streamChunks'
>;

/**
 * Sees open CIMs, topmost first, as the layers below: a forked or a merged CIM alone, or the block CIMs of a chain,
 * whose tombstones and merge links are followed. The readers stay the caller's, who closes them.
 */
export function lowerViewOf(...cims: LowerCim[]): LowerView {
  return new StackedView(cims);
}

/** Something in one of the CIMs. */
interface Place {
  layer: number;
  cim: LowerCim;
  id: FileId;
}

class StackedView implements LowerView {
  readonly #roots: readonly Place[];
  /** By the layer that looking begins at, the directory looked into last: paths come by directory, and so do links' targets. */
  readonly #recent: ({ path: string; places: readonly Place[] } | undefined)[] = [];

  constructor(cims: readonly LowerCim[]) {
    this.#roots = cims.map((cim, layer) => ({ layer, cim, id: cim.root }));
  }

  stat(path: string): FileInfo | undefined {
    const [place] = this.#find(path);
    return place && { ...place.cim.stat(place.id), mark: undefined };
  }

  *entries(path: string): Generator<{ name: string }> {
    const places = this.#find(path);
    const seen = new Set<string>();
    for (const { cim, id } of places) {
      for (const { name, id: child } of cim.entries(id)) {
        const folded = foldName(name);
        if (seen.has(folded)) continue;
        if (places.length > 1) seen.add(folded);
        if (markKind(cim.slot(child)) !== 'tombstone') yield { name };
      }
    }
  }

  streams(path: string): readonly StreamInfo[] {
    const [place] = this.#find(path);
    return place?.cim.streams(place.id) ?? [];
  }

  read(path: string, stream?: string): Iterable<Uint8Array> {
    const [place] = this.#find(path);
    return place?.cim.streamChunks(place.id, stream) ?? [];
  }

  /** A file, or the directories that are merged at a path from a layer down, topmost first; nothing when there is nothing. */
  #find(path: string, layer = 0): readonly Place[] {
    const slash = path.lastIndexOf('/');
    if (slash < 0) return this.#walk(path, layer);
    const parent = path.slice(0, slash);
    let recent = this.#recent[layer];
    if (recent?.path !== parent) {
      recent = { path: parent, places: this.#walk(parent, layer) };
      this.#recent[layer] = recent;
    }
    return this.#childOf(recent.places, path.slice(slash + 1));
  }

  #walk(path: string, layer: number): readonly Place[] {
    let places: readonly Place[] = this.#roots.slice(layer);
    for (const name of path === '' ? [] : path.split('/')) places = this.#childOf(places, name);
    return places;
  }

  #childOf(directories: readonly Place[], name: string): readonly Place[] {
    const found: Place[] = [];
    for (const { layer, cim, id: directory } of directories) {
      const id = cim.find(directory, name);
      if (id === undefined) continue;
      const mark = markKind(cim.slot(id));
      if (mark === 'tombstone') break;
      const merges = mark !== 'merge-link' && isPlainDirectory(cim, id);
      if (!merges && found.length > 0) break;
      if (mark === 'merge-link') return this.#linked(cim, id, layer);
      found.push({ layer, cim, id });
      if (!merges || mark === 'opaque') break;
    }
    return found;
  }

  /** The file that the layers below one show where its merge link points. */
  #linked(cim: LowerCim, id: FileId, layer: number): readonly Place[] {
    const { mark } = cim.stat(id);
    if (mark?.kind !== 'merge-link') return [];
    const [place] = this.#find(mark.target, layer + 1);
    return place === undefined || place.cim.isDirectory(place.id) ? [] : [place];
  }
}

/** True for what other layers' directories can be merged with: no symlink or mount point. */
function isPlainDirectory(cim: LowerCim, id: FileId): boolean {
  return cim.isDirectory(id) && cim.stat(id).reparseTag === 0;
}
