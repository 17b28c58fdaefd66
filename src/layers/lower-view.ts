import type { CimReader } from '../cim/reader.ts';
import type { DirectoryEntry, FileInfo, StreamInfo } from '../cim/types.ts';

/** The files that all layers below the one being written give together. Paths as in LayerWriter; symlinks aren't followed. */
export interface LowerView {
  stat(path: string): FileInfo | undefined;
  /** Children of a directory; none for anything else. */
  entries(path: string): Iterable<DirectoryEntry>;
  /** Alternate streams of a file or directory. */
  streams(path: string): readonly StreamInfo[];
  /** Bytes of a file, or of one of its alternate streams. */
  read(path: string, stream?: string): Iterable<Uint8Array>;
}

/** What a view needs of an open CIM: the parent's, or the one that its chain was merged into. */
export type LowerCim = Pick<CimReader, 'lookup' | 'stat' | 'entries' | 'streams' | 'streamChunks'>;

/** Sees an open CIM as the layers below. The reader stays the caller's, who closes it. */
export function lowerViewOf(cim: LowerCim): LowerView {
  const found = <T>(path: string, otherwise: T, use: (id: number) => T): T => {
    const id = cim.lookup(path);
    return id === undefined ? otherwise : use(id);
  };
  return {
    stat: (path) => found<FileInfo | undefined>(path, undefined, (id) => cim.stat(id)),
    entries: (path) => found<Iterable<DirectoryEntry>>(path, [], (id) => cim.entries(id)),
    streams: (path) => found<readonly StreamInfo[]>(path, [], (id) => cim.streams(id)),
    read: (path, stream) => found<Iterable<Uint8Array>>(path, [], (id) => cim.streamChunks(id, stream)),
  };
}
