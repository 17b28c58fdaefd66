/**
 * What writing forked CIMs (writer.ts) and block CIMs (block-writer.ts) have in common: a tree of files that becomes an image of format
 * version 1.0. With a parent, its region sets are listed first; unchanged directories and file tables are shared, changed ones written anew.
 *
 * All calls are synchronous and must come one at a time; one stream is open at a time. The same calls on the same
 * parent give the same bytes. After an error only `close` is of use.
 */

import { CimletError } from '../errors.ts';
import { DataStream } from './data-stream.ts';
import { Directories } from './directories.ts';
import {
  defaultStream,
  describeFile,
  isDirectory,
  MarkFlag,
  markKind,
  setDefaultStream,
  setMarkFlag,
  setStreamTable,
  streamTable,
  writeFileRecord,
  writeMarkRecord,
} from './file-record.ts';
import { FileTables } from './file-tables.ts';
import {
  EMPTY_STREAM,
  encodeFilesystem,
  encodeImageHeader,
  MAX_PATH_UNITS,
  REGION_TYPES,
  type RegionOffset,
  STREAM_SIZE,
  type StreamRecord,
  StreamType,
  writeStreamRecord,
} from './format.ts';
import type { CimFile } from './image.ts';
import { encodeLinkTable } from './link-table.ts';
import { checkMetadata, checkSize, storeBlobs, storeCounted } from './metadata.ts';
import { checkName, splitPath } from './names.ts';
import type { ObjectStore } from './object-store.ts';
import type { CimReader } from './reader.ts';
import {
  type CimStream,
  type DirectoryEntry,
  FileAttribute,
  type FileId,
  type FileInfo,
  type FileMetadata,
} from './types.ts';
import { encodeUpcase, standardUpcase, upcaseName } from './upcase.ts';

export interface FinishedCim {
  /** The image's own files by their final names. */
  files: CimFile[];
  bytes: number;
  /** Files and directories that this image added; inherited ones don't count. */
  fileCount: number;
}

export interface ImageParts {
  name: string;
  regionGuid: string;
  /** What the image is forked from. */
  parent: CimReader | undefined;
  store: ObjectStore;
}

export class ImageWriter {
  readonly #name: string;
  readonly #regionGuid: string;
  readonly #parent: CimReader | undefined;
  readonly #store: ObjectStore;
  readonly #upcase: Uint16Array;
  readonly #files: FileTables;
  readonly #directories: Directories;
  /** Alternate streams of files that got new ones, by upcased name. */
  readonly #streams = new Map<FileId, Map<string, { name: string; stream: StreamRecord }>>();
  readonly #root: FileId;
  /** The directory files were last created in, since files come by directory. */
  #recent: { path: string; id: FileId } | undefined;
  #open: string | undefined;
  #added = 0;
  #state: 'writing' | 'finished' | 'closed' = 'writing';

  /** Takes over `parent` and `store`. */
  constructor({ name, regionGuid, parent, store }: ImageParts) {
    this.#name = name;
    this.#regionGuid = regionGuid;
    this.#parent = parent;
    this.#store = store;
    this.#upcase = parent?.upcase ?? standardUpcase();
    this.#files = new FileTables(parent);
    this.#directories = new Directories(parent, this.#upcase);
    this.#root = parent?.root ?? this.#addRoot();
  }

  /**
   * Creates a file or, when `attributes` has `directory`, a directory. Close the returned stream before the next call, for directories too.
   * An existing file is replaced by a new one (its other hard links keep the old); an existing directory keeps its
   * entries and takes the new metadata, losing its alternate streams; the latest spelling of the name stays. The path
   * '' is the root. Errors: `not-found` without the parent directory, `already-exists` when one is a file and
   * the other a directory, `corrupt` for a bad name or metadata.
   */
  createFile(path: string, metadata: FileMetadata): CimStream {
    const operation = this.#begin('create', path);
    const directory = (metadata.attributes & FileAttribute.directory) !== 0;
    checkMetadata(operation, metadata);
    const place = this.#place(operation, path);
    const there = place === undefined ? this.#root : this.#directories.find(place.parent, place.name);
    const mark = there === undefined ? undefined : markKind(this.#files.slot(there));
    const existing = mark === 'tombstone' ? undefined : there;
    if (existing !== undefined && isDirectory(this.#files.slot(existing)) !== directory)
      throw new CimletError(
        'already-exists',
        `${operation}: it exists as a ${directory ? 'file' : 'directory'}, not a ${directory ? 'directory' : 'file'}`,
      );
    const blobs = storeBlobs(this.#store, metadata);
    const kept = directory ? existing : undefined;
    const id = kept ?? this.#files.add();
    const entries = kept === undefined ? undefined : defaultStream(this.#files.slot(kept));
    const slot = this.#files.edit(id);
    writeFileRecord(slot, metadata, blobs);
    this.#streams.delete(id);
    if (directory) setDefaultStream(slot, entries ?? { ...EMPTY_STREAM, type: StreamType.linkTable });
    else setDefaultStream(slot, { ...EMPTY_STREAM, size: metadata.size });
    // What hid lower content goes on hiding it below the directory; a file hides it anyway.
    if (directory && (mark === 'tombstone' || mark === 'opaque')) setMarkFlag(slot, MarkFlag.tombstone);
    if (directory && kept === undefined) this.#directories.addEmpty(id);
    if (place !== undefined) this.#directories.set(place.parent, place.name, id);
    if (kept === undefined) this.#added++;
    return this.#startStream(operation, path, directory ? 0 : metadata.size, (stream) => {
      if (!directory) setDefaultStream(this.#files.edit(id), stream);
    });
  }

  /** Adds an alternate data stream to a file or directory, or replaces the one of that name. */
  createAlternateStream(path: string, name: string, size: number): CimStream {
    const operation = this.#begin('create stream', `${path}:${name}`);
    checkName(operation, name);
    checkSize(operation, size);
    const id = this.#existing(operation, path);
    if (markKind(this.#files.slot(id)) === 'merge-link')
      throw new CimletError('failed-precondition', `${operation}: a merge link has no streams of its own`);
    const streams = this.#streams.get(id) ?? this.#inheritedStreams(id);
    return this.#startStream(operation, `${path}:${name}`, size, (stream) => {
      streams.set(upcaseName(this.#upcase, name), { name, stream });
      this.#streams.set(id, streams);
    });
  }

  /** Makes `path` another name of the file `existing`; replaces a file at `path`. Directories have one name only. */
  createHardLink(path: string, existing: string): void {
    const operation = this.#begin('link', path);
    const id = this.#existing(operation, existing);
    if (isDirectory(this.#files.slot(id)))
      throw new CimletError('corrupt', `${operation}: ${existing} is a directory`);
    const place = this.#place(operation, path);
    const replaced = place && this.#directories.find(place.parent, place.name);
    if (place === undefined || (replaced !== undefined && isDirectory(this.#files.slot(replaced))))
      throw new CimletError('already-exists', `${operation}: it exists as a directory`);
    this.#directories.set(place.parent, place.name, id);
  }

  /** Removes a file's name, or a directory with all below it; false when there is none. */
  protected removePath(path: string): boolean {
    const operation = this.#begin('delete', path);
    const names = splitPath(operation, path);
    const name = names.pop();
    if (name === undefined) throw new CimletError('corrupt', `${operation}: the root cannot be deleted`);
    const parent = this.#walk(names);
    if (parent === undefined || !isDirectory(this.#files.slot(parent))) return false;
    if (this.#directories.find(parent, name) === undefined) return false;
    this.#directories.remove(parent, name);
    this.#recent = undefined;
    return true;
  }

  /** Hides what lower layers hold at a path: with a tombstone, or below a directory that is there. A file does so anyway. */
  protected hideLower(path: string): void {
    const operation = this.#begin('tombstone', path);
    const place = this.#place(operation, path);
    if (place === undefined) throw new CimletError('corrupt', `${operation}: the root cannot be hidden`);
    const existing = this.#directories.find(place.parent, place.name);
    if (existing === undefined) {
      const id = this.#files.add();
      writeMarkRecord(this.#files.edit(id), undefined);
      this.#directories.set(place.parent, place.name, id);
    } else if (isDirectory(this.#files.slot(existing)))
      setMarkFlag(this.#files.edit(existing), MarkFlag.tombstone);
  }

  /** Makes `path` a name of the file that the layers below show at `target`; replaces a file at `path`. */
  protected linkLower(path: string, target: string): void {
    const operation = this.#begin('merge-link', path);
    if (splitPath(`${operation} to ${target}`, target).length === 0)
      throw new CimletError('corrupt', `${operation}: its target is the root`);
    const place = this.#place(operation, path);
    const replaced = place && this.#directories.find(place.parent, place.name);
    if (place === undefined || (replaced !== undefined && isDirectory(this.#files.slot(replaced))))
      throw new CimletError('already-exists', `${operation}: it exists as a directory`);
    const id = this.#files.add();
    writeMarkRecord(this.#files.edit(id), storeCounted(this.#store, Buffer.from(target, 'utf16le')));
    this.#directories.set(place.parent, place.name, id);
  }

  /** What is at a path now, inherited or written here; undefined when nothing is. */
  stat(path: string): FileInfo | undefined {
    const id = this.#walk(splitPath(this.#operation('stat', path), path));
    if (id === undefined) return undefined;
    return describeFile(id, this.#files.slot(id), {
      counted: (at, what) =>
        this.#read({ ...at, offset: at.offset + 2 }, this.#read(at, 2, what).readUInt16LE(0), what),
      sized: (at, length, what) => this.#read(at, length, what),
    });
  }

  /** A directory's entries now, in the order of their upcased names; none for a file. */
  entries(path: string): DirectoryEntry[] {
    const operation = this.#operation('list', path);
    const id = this.#existing(operation, path);
    return isDirectory(this.#files.slot(id)) ? this.#directories.list(id) : [];
  }

  /**
   * Writes directories and tables and makes everything durable, under temporary names. The image is readable only then. With `regionGuid` it is
   * as if it had been begun with that one, but for the names of its files: for who knows only now what it is (see `renameUnpublished`).
   */
  finish({ regionGuid = this.#regionGuid }: { regionGuid?: string | undefined } = {}): FinishedCim {
    const operation = this.#begin('finish', '/');
    for (const { id, links } of this.#directories.changed()) {
      const bytes = encodeLinkTable(operation, links, 4, (table, at, file) => table.writeUInt32LE(file, at));
      const at = links.length === 0 ? undefined : this.#store.putTable(bytes);
      const size = links.length === 0 ? 0 : bytes.length;
      setDefaultStream(this.#files.edit(id), { at, size, type: StreamType.linkTable, sparse: false });
    }
    for (const id of [...this.#streams.keys()].sort((a, b) => a - b)) {
      const links = Array.from(this.#streams.get(id) ?? [], ([key, { name, stream }]) => ({
        key,
        name,
        value: stream,
      }));
      const bytes = encodeLinkTable(operation, links, STREAM_SIZE, writeStreamRecord);
      setStreamTable(this.#files.edit(id), this.#store.putTable(bytes));
    }
    const upcase = this.#parent?.filesystem.upcase ?? this.#store.putTable(encodeUpcase(this.#upcase));
    const tables = this.#files.write((table) => this.#store.putTable(table));
    const filesystem = this.#store.putTable(encodeFilesystem({ upcase, ...tables, root: this.#root }));
    const parent = this.#parent?.header;
    const files = this.#store.finish(
      encodeImageHeader({
        own: { guid: regionGuid, count: REGION_TYPES.length },
        parents: parent === undefined ? [] : [...parent.parents, parent.own],
        filesystem,
      }),
    );
    this.#parent?.close();
    this.#state = 'finished';
    return { files, bytes: files.reduce((sum, file) => sum + file.size, 0), fileCount: this.#added };
  }

  /** Releases everything; what is not finished is removed. Any number of times. */
  close(): void {
    if (this.#state !== 'writing') return;
    this.#state = 'closed';
    this.#parent?.close();
    this.#store.discard();
  }

  #addRoot(): FileId {
    const none = { creationTime: 0n, lastWriteTime: 0n, changeTime: 0n, lastAccessTime: 0n };
    const metadata = { attributes: FileAttribute.directory, size: 0, ...none };
    const id = this.#files.add();
    const slot = this.#files.edit(id);
    writeFileRecord(slot, metadata, storeBlobs(this.#store, metadata));
    setDefaultStream(slot, { ...EMPTY_STREAM, type: StreamType.linkTable });
    this.#directories.addEmpty(id);
    return id;
  }

  #inheritedStreams(id: FileId): Map<string, { name: string; stream: StreamRecord }> {
    const streams = new Map<string, { name: string; stream: StreamRecord }>();
    // Only an entry of the parent's points to streams before `finish`; a directory created anew lost them.
    if (streamTable(this.#files.slot(id)) === undefined) return streams;
    for (const entry of this.#parent?.streamRecords(id) ?? [])
      streams.set(upcaseName(this.#upcase, entry.name), entry);
    return streams;
  }

  #startStream(
    operation: string,
    path: string,
    size: number,
    done: (stream: StreamRecord) => void,
  ): CimStream {
    this.#open = path;
    return new DataStream(this.#store, operation, size, (stream) => {
      this.#open = undefined;
      done(stream);
    });
  }

  /** The directory and name a path stands for; undefined for the root. */
  #place(operation: string, path: string): { parent: FileId; name: string } | undefined {
    if (path === '') return undefined;
    const slash = path.lastIndexOf('/');
    const directory = path.slice(0, Math.max(0, slash));
    const name = path.slice(slash + 1);
    if (this.#recent?.path === directory && slash !== 0 && path.length <= MAX_PATH_UNITS) {
      checkName(operation, name);
      return { parent: this.#recent.id, name };
    }
    splitPath(operation, path);
    const parent = this.#walkOn(directory);
    if (parent === undefined)
      throw new CimletError('not-found', `${operation}: the directory ${directory} does not exist`);
    if (!isDirectory(this.#files.slot(parent)))
      throw new CimletError('corrupt', `${operation}: ${directory} is not a directory`);
    this.#recent = { path: directory, id: parent };
    return { parent, name };
  }

  #existing(operation: string, path: string): FileId {
    const id = this.#walk(splitPath(operation, path));
    if (id === undefined || markKind(this.#files.slot(id)) === 'tombstone')
      throw new CimletError('not-found', `${operation}: ${path} does not exist`);
    return id;
  }

  /** Goes on from the recent directory when `directory` lies below it, so that a deep path isn't walked at each level. */
  #walkOn(directory: string): FileId | undefined {
    if (directory === '') return this.#root;
    const recent = this.#recent;
    if (recent === undefined || recent.path === '' || !directory.startsWith(`${recent.path}/`))
      return this.#walk(directory.split('/'));
    return this.#walk(directory.slice(recent.path.length + 1).split('/'), recent.id);
  }

  #walk(names: readonly string[], from: FileId = this.#root): FileId | undefined {
    let id: FileId | undefined = from;
    for (const name of names) {
      if (id === undefined || !isDirectory(this.#files.slot(id))) return undefined;
      id = this.#directories.find(id, name);
    }
    return id;
  }

  #read(at: RegionOffset, length: number, what: string): Buffer {
    const bytes = this.#store.read(at, length) ?? this.#parent?.read(at, length, what);
    if (bytes === undefined) throw new Error(`${what} is in no region`);
    return bytes;
  }

  /** Names an operation for its errors, and refuses it when the writer is done. */
  #operation(verb: string, path: string): string {
    const operation = `${verb} ${path} in CIM ${this.#name}`;
    if (this.#state !== 'writing')
      throw new CimletError('failed-precondition', `${operation}: the writer is ${this.#state}`);
    return operation;
  }

  /** The same for an operation that changes the image. */
  #begin(verb: string, path: string): string {
    const operation = this.#operation(verb, path);
    if (this.#open !== undefined)
      throw new CimletError('failed-precondition', `${operation}: the stream of ${this.#open} is still open`);
    return operation;
  }
}
