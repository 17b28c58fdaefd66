import type { CimStream, FileMetadata } from '../cim/types.ts';
import { type EntryPlace, entryError, forEntry, quoteName } from '../tar/tar-format.ts';
import type { LayerWriter } from './cim-writer.ts';
import { foldName } from './layer-tree.ts';
import { Spool, type SpooledFile } from './spool.ts';

/** A file that is added to the CIM at the end. */
export interface DeferredFile {
  path: string;
  place: EntryPlace;
  metadata: FileMetadata;
  /** Its bytes in the spool. */
  file: SpooledFile;
}

interface DeferredLink {
  path: string;
  place: EntryPlace;
  target: string;
}

/** The file a link ends at, and whether this layer adds it. */
export interface LinkWriter {
  isOwn(target: string): boolean;
  link(path: string, target: string, isOwn: boolean): boolean;
}

/** What is added to a CIM when all else is: certain files, whose bytes wait in a spool, and links. Each in the tar's order. */
export class DeferredEntries {
  readonly #spool: Spool;
  /** By folded path. */
  readonly #files = new Map<string, DeferredFile>();
  readonly #links = new Map<string, DeferredLink>();

  constructor(spoolDirectory: string) {
    this.#spool = new Spool(spoolDirectory);
  }

  close(): void {
    this.#spool.close();
  }

  addFile(path: string, metadata: FileMetadata, place: EntryPlace): CimStream {
    const { file, stream } = this.#spool.add(metadata.size);
    this.#files.set(foldName(path), { path, place: placeOf(place), metadata, file });
    return stream;
  }

  addLink(path: string, target: string, place: EntryPlace): void {
    this.#links.set(foldName(path), { path, target, place: placeOf(place) });
  }

  file(path: string): DeferredFile | undefined {
    return this.#files.get(foldName(path));
  }

  has(path: string): boolean {
    const folded = foldName(path);
    return this.#files.has(folded) || this.#links.has(folded);
  }

  /** Bytes of a file. */
  read({ file }: DeferredFile): Iterable<Buffer> {
    return this.#spool.read(file);
  }

  /** Forgets what waits at a path; false when nothing does. */
  drop(path: string): boolean {
    const folded = foldName(path);
    const hadFile = this.#files.delete(folded);
    return this.#links.delete(folded) || hadFile;
  }

  /** Forgets all that waits below a directory. */
  dropBelow(path: string): void {
    const prefix = `${foldName(path)}/`;
    for (const entries of [this.#files, this.#links]) {
      for (const folded of entries.keys()) if (folded.startsWith(prefix)) entries.delete(folded);
    }
  }

  writeFiles(writer: LayerWriter): void {
    for (const deferred of this.#files.values()) {
      forEntry(deferred.place, () => {
        const stream = writer.createFile(deferred.path, deferred.metadata);
        for (const chunk of this.read(deferred)) stream.write(chunk);
        stream.close();
      });
    }
  }

  writeLinks(writer: LinkWriter): void {
    for (const link of this.#links.values()) {
      const { path, place, target } = link;
      const file = this.#endOf(link);
      if (!forEntry(place, () => writer.link(path, file, writer.isOwn(file))))
        throw noSuchTarget(place, target);
    }
  }

  /** What a link leads to through other links that wait. */
  #endOf(link: DeferredLink): string {
    const passed = new Set([link]);
    let { target } = link;
    for (;;) {
      const next = this.#links.get(foldName(target));
      if (next === undefined) break;
      if (passed.has(next)) {
        throw entryError(link.place, `hard link to ${quoteName(link.target)}: the links lead in a circle`);
      }
      passed.add(next);
      target = next.target;
    }
    // So that a long row of links is walked once.
    for (const each of passed) each.target = target;
    return target;
  }
}

export function noSuchTarget(place: EntryPlace, target: string): Error {
  return entryError(place, `hard link to ${quoteName(target)}: there is no such file in this layer or below`);
}

function placeOf({ name, offset }: EntryPlace): EntryPlace {
  return { name, offset };
}
