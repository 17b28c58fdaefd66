/**
 * Reads CIM images of format version 1, whoever wrote them. Nothing is read before it is asked for; file tables, link
 * tables and blobs are kept in bounded caches. All calls are synchronous. Every malformed structure is a `corrupt`
 * error that names the file, what, and the offset.
 */

import { CimletError } from '../errors.ts';
import { ByteCache } from './byte-cache.ts';
import { type CimFault, corrupt, corruptAt } from './faults.ts';
import {
  type BlobSource,
  defaultStream,
  describeFile,
  type FileSlot,
  isDirectory,
  streamTable,
} from './file-record.ts';
import {
  decodeFilesystem,
  FILESYSTEM_SIZE,
  type Filesystem,
  type ImageHeader,
  MAX_PATH_UNITS,
  type RegionOffset,
  readStreamRecord,
  readTableEntry,
  STREAM_SIZE,
  type StreamRecord,
  StreamType,
  TABLE_ENTRY_SIZE,
  type TableEntry,
  UPCASE_LENGTH,
} from './format.ts';
import { LINK_TABLE_HEADER_SIZE, LinkTable } from './link-table.ts';
import { type ImageKind, type OpenCimOptions, type OpenImage, openImage } from './open-image.ts';
import { locatePeBytes, type PeImage, readPeImage } from './pe-image.ts';
import { ReachedDirectories } from './reached-directories.ts';
import { digestStored, type Region, type RegionFiles } from './region-files.ts';
import { StoredTables } from './stored-tables.ts';
import type { DataExtent, DirectoryEntry, FileId, FileInfo, StreamInfo } from './types.ts';
import { decodeUpcase, upcaseUnits } from './upcase.ts';

const CACHE_BYTES = 96 * 1024 * 1024;
const BLOB_CACHE_BYTES = 4 * 1024 * 1024;
const MAX_CACHED_BLOB = 64 * 1024;
const DEFAULT_CHUNK = 1024 * 1024;
const FILE_ID_SIZE = 4;

/**
 * Opens an image of format version 1 with all its regions: a `.cim` file, `x.bcim/name.cim` or `/dev/loop0/name.cim` in a container, or the
 * container alone when it has one CIM only. Errors: `failed-precondition` for a merged CIM whose sources are not those it was merged from,
 * `corrupt` for another root hash than the one given.
 */
export function openCim(path: string, options: OpenCimOptions = {}): CimReader {
  const image = openImage(path, options);
  try {
    const reader = new CimReader(image);
    if (!reader.isDirectory(reader.root))
      throw corrupt(reader.faultAt(reader.root, 'the root is not a directory'));
    return reader;
  } catch (error) {
    image.files.close();
    throw error;
  }
}

export class CimReader {
  readonly path: string;
  readonly kind: ImageKind;
  readonly header: ImageHeader;
  readonly filesystem: Filesystem;
  /** ID of the root directory. */
  readonly root: FileId;
  /** The image's own table; names compare through it. */
  readonly upcase: Uint16Array;
  readonly #files: RegionFiles;
  readonly #tables: StoredTables;
  readonly #linkCache: ByteCache<FileId, LinkTable>;
  readonly #blobCache = new ByteCache<string, Buffer>(BLOB_CACHE_BYTES, (blob) => blob.length + 64);
  readonly #peCache = new ByteCache<string, PeImage>(
    BLOB_CACHE_BYTES,
    (image) => 64 * (image.mappings.length + 1),
  );
  readonly #blobs: BlobSource;

  /** Use `openCim`. Takes over the image's files. `cacheBytes` bounds what is kept of file tables and directories. */
  constructor(
    { path, kind, header, files }: Pick<OpenImage, 'path' | 'kind' | 'header' | 'files'>,
    { cacheBytes = CACHE_BYTES } = {},
  ) {
    this.#linkCache = new ByteCache(cacheBytes / 2, (table) => table.byteLength);
    this.path = path;
    this.kind = kind;
    this.header = header;
    this.#files = files;
    const at = this.#required(header.filesystem, 'the filesystem object');
    this.filesystem = decodeFilesystem(files.read(at, FILESYSTEM_SIZE, 'the filesystem object'));
    const { upcase, tables, tableCount, root } = this.filesystem;
    this.upcase = decodeUpcase(
      files.read(this.#required(upcase, 'the upcase table'), UPCASE_LENGTH * 2, 'the upcase table'),
    );
    const directory = files.read(
      this.#required(tables, 'the file table directory'),
      tableCount * TABLE_ENTRY_SIZE,
      'the file table directory',
    );
    this.#tables = new StoredTables(
      path,
      files,
      Array.from({ length: tableCount }, (_, i) => readTableEntry(directory, i * TABLE_ENTRY_SIZE)),
      cacheBytes / 2,
    );
    this.root = root;
    this.#blobs = {
      counted: (blob, what) => this.#blob(blob, undefined, what),
      sized: (blob, length, what) => this.#blob(blob, length, what),
    };
  }

  close(): void {
    this.#files.close();
  }

  /** All region files, ancestors' first: index = region number. */
  get regions(): readonly Region[] {
    return this.#files.regions;
  }

  /** One entry per file table; an entry's count is at most 1,024. */
  get tables(): readonly TableEntry[] {
    return this.#tables.entries;
  }

  /** Number of file IDs in use, deleted files included. */
  get fileCount(): number {
    return this.tables.reduce((sum, table) => sum + table.count, 0);
  }

  /** The file at a `/`-separated path from the root (leading and doubled slashes are ignored); undefined when there is none. */
  lookup(path: string): FileId | undefined {
    let id: FileId | undefined = this.root;
    for (const name of path.split('/')) {
      if (name === '') continue;
      if (id === undefined || !this.isDirectory(id)) return undefined;
      id = this.find(id, name);
    }
    return id;
  }

  /** The entry of a directory with that name, whatever its case. */
  find(directory: FileId, name: string): FileId | undefined {
    return this.findUpcased(directory, upcaseUnits(this.upcase, name));
  }

  /** The same by the name's units, upcased. */
  findUpcased(directory: FileId, units: Uint16Array): FileId | undefined {
    const table = this.entryTable(directory);
    const index = table?.find(units, this.upcase);
    return index === undefined ? undefined : table?.bytes.readUInt32LE(table.valuePosition(index));
  }

  stat(id: FileId): FileInfo {
    return describeFile(id, this.slot(id), this.#blobs);
  }

  isDirectory(id: FileId): boolean {
    return isDirectory(this.slot(id));
  }

  /** A directory's entries in the order of their upcased names; none for a file. */
  *entries(id: FileId): Generator<DirectoryEntry> {
    const table = this.entryTable(id);
    for (let i = 0; i < (table?.count ?? 0); i++)
      if (table) yield { name: table.name(i), id: table.bytes.readUInt32LE(table.valuePosition(i)) };
  }

  /**
   * Every file and directory below one (the root unless told), a directory before its entries, with paths from it.
   * A directory that is reached twice (a cycle, or two parents) is a `corrupt` error, and so is a path too long for the format.
   */
  *walk(from: FileId = this.root): Generator<DirectoryEntry & { path: string }> {
    const reached = new ReachedDirectories(this);
    reached.add(from, '');
    const stack = [{ prefix: '', entries: this.entries(from) }];
    for (let top = stack.at(-1); top !== undefined; top = stack.at(-1)) {
      const next = top.entries.next();
      if (next.done) {
        stack.pop();
        continue;
      }
      const { name, id } = next.value;
      const path = top.prefix + name;
      if (path.length > MAX_PATH_UNITS)
        throw corrupt(this.faultAt(id, `its path has more than ${MAX_PATH_UNITS} UTF-16 units`));
      yield { path, name, id };
      if (!this.isDirectory(id)) continue;
      reached.add(id, path);
      stack.push({ prefix: `${path}/`, entries: this.entries(id) });
    }
  }

  /** The alternate data streams of a file or directory. */
  streams(id: FileId): StreamInfo[] {
    return Array.from(this.streamRecords(id), ({ name, stream }) => ({ name, size: stream.size }));
  }

  *streamRecords(id: FileId): Generator<{ name: string; stream: StreamRecord }> {
    const table = this.streamTable(id);
    for (let i = 0; i < (table?.count ?? 0); i++)
      if (table) yield { name: table.name(i), stream: readStreamRecord(table.bytes, table.valuePosition(i)) };
  }

  /** Size of a stream; the default one without a name. */
  streamSize(id: FileId, name?: string): number {
    return this.#stream(id, name).size;
  }

  /** True when a stream reads as zeros and has no data. */
  isSparse(id: FileId, name?: string): boolean {
    return this.#stream(id, name).sparse;
  }

  /**
   * Where a stream's bytes lie, when they are one run of a region file: undefined for sparse streams and PE images,
   * and for empty ones.
   */
  extent(id: FileId, name?: string): DataExtent | undefined {
    const stream = this.#stream(id, name);
    if (stream.sparse || stream.type !== StreamType.data || stream.size === 0) return undefined;
    const at = this.#required(stream.at, `data of file ${id}`);
    this.#files.locate(at, stream.size, `data of file ${id}`);
    return { region: at.region, offset: at.offset, length: stream.size };
  }

  /** Reads up to `buffer.length` bytes at `position`, fewer at the end only; returns how many. */
  readStream(id: FileId, name: string | undefined, buffer: Uint8Array, position: number): number {
    const stream = this.#stream(id, name);
    const length = Math.max(0, Math.min(buffer.length, stream.size - position));
    const target = buffer.subarray(0, length);
    if (length === 0) return 0;
    const what = name === undefined ? `data of file ${id}` : `stream ${name} of file ${id}`;
    if (stream.sparse) target.fill(0);
    else if (stream.type === StreamType.peImage) this.#readPe(stream, target, position, what);
    else this.#files.readInto(this.#required(stream.at, what), position, target, what);
    return length;
  }

  /** A stream's bytes in order; each chunk is a buffer of its own. */
  *streamChunks(id: FileId, name?: string, chunkSize = DEFAULT_CHUNK): Generator<Buffer> {
    const size = this.streamSize(id, name);
    for (let position = 0; position < size; ) {
      const chunk = Buffer.allocUnsafeSlow(Math.min(chunkSize, size - position));
      position += this.readStream(id, name, chunk, position);
      yield chunk;
    }
  }

  /** The file's entry in its table. For the writer and the verifier; shared, not to be changed. */
  slot(id: FileId): FileSlot {
    return this.#tables.slot(id);
  }

  /** A fault of a file's entry: names the region file and the offset where the entry is. */
  faultAt(id: FileId, message: string): CimFault {
    return this.#tables.faultAt(id, message);
  }

  /** The object ID digest of an object. For the writer. */
  digest(at: RegionOffset, length: number): Buffer {
    return digestStored(this.#files, at, length, 'an object');
  }

  /** Reads one object. For the writer. */
  read(at: RegionOffset, length: number, what: string): Buffer {
    return this.#files.read(at, length, what);
  }

  /** A directory's link table; undefined for an empty one and for a file. */
  entryTable(id: FileId): LinkTable | undefined {
    const slot = this.slot(id);
    if (!isDirectory(slot)) return undefined;
    const stream = defaultStream(slot);
    if (stream.size === 0) return undefined;
    return this.#linkCache.get(id, () => {
      const what = `entries of directory ${id}`;
      return this.#linkTable(this.#required(stream.at, what), stream.size, FILE_ID_SIZE, what);
    });
  }

  /** The link table of a file's alternate streams, if it has any. */
  streamTable(id: FileId): LinkTable | undefined {
    const at = streamTable(this.slot(id));
    if (at === undefined) return undefined;
    const what = `streams of file ${id}`;
    const length = this.#files.read(at, LINK_TABLE_HEADER_SIZE, what).readUInt32LE(0);
    return this.#linkTable(at, length, STREAM_SIZE, what);
  }

  #linkTable(at: RegionOffset, length: number, valueSize: number, what: string): LinkTable {
    const { file, offset } = this.#files.faultAt(at, what);
    return new LinkTable(this.#files.read(at, length, what), valueSize, file, offset);
  }

  #stream(id: FileId, name: string | undefined): StreamRecord {
    const slot = this.slot(id);
    if (name === undefined) {
      if (isDirectory(slot))
        throw new CimletError('failed-precondition', `read file ${id} of ${this.path}: it is a directory`);
      return this.#known(id, defaultStream(slot));
    }
    const table = this.streamTable(id);
    const index = table?.find(upcaseUnits(this.upcase, name), this.upcase);
    if (table === undefined || index === undefined)
      throw new CimletError('not-found', `read file ${id} of ${this.path}: it has no stream ${name}`);
    return this.#known(id, readStreamRecord(table.bytes, table.valuePosition(index)));
  }

  #known(id: FileId, stream: StreamRecord): StreamRecord {
    if (stream.type !== StreamType.data && stream.type !== StreamType.peImage)
      throw corrupt(this.faultAt(id, `stream type ${stream.type} of file ${id} is unknown`));
    return stream;
  }

  #readPe(stream: StreamRecord, target: Uint8Array, position: number, what: string): void {
    const at = this.#required(stream.at, what);
    const image = this.#peCache.get(`${at.region}:${at.offset}`, () => readPeImage(this.#files, at, what));
    for (let done = 0; done < target.length; ) {
      const run = locatePeBytes(image, position + done);
      const length = Math.min(target.length - done, run.length);
      if (length <= 0) throw this.#files.corruptAt(at, `${what} is longer than its PE image`);
      this.#files.readInto(image.data, run.skip, target.subarray(done, done + length), what);
      done += length;
    }
  }

  #blob(at: RegionOffset, length: number | undefined, what: string): Buffer {
    return this.#blobCache.get(`${at.region}:${at.offset}:${length ?? ''}`, () => {
      if (length !== undefined) return this.#files.read(at, Math.min(length, MAX_CACHED_BLOB), what);
      const count = this.#files.read(at, 2, what).readUInt16LE(0);
      return this.#files.read({ region: at.region, offset: at.offset + 2 }, count, what);
    });
  }

  #required(at: RegionOffset | undefined, what: string): RegionOffset {
    if (at === undefined) throw corruptAt(this.path, 0, `${what} is missing`);
    return at;
  }
}
