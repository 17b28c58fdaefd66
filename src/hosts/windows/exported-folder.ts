/**
 * What ExportLayer made of a WCIFS layer over others, or a base layer itself, as the tar of a layer. Source: hcsshim's legacy
 * and base layer readers. Blocks; for the job's thread.
 */

import { closeSync, existsSync, openSync, readFileSync, readSync } from 'node:fs';
import { win32 } from 'node:path';
import type { FileInfo, StreamInfo } from '../../cim/types.ts';
import { CimletError, classify } from '../../errors.ts';
import { BackupStreamId, BackupStreamReader, SPARSE_STREAM } from '../../layers/backup-stream.ts';
import { LayerTarWriter } from '../../layers/layer-tar.ts';
import { foldName } from '../../layers/layer-tree.ts';
import { type EntrySource, writeEntry } from '../../layers/write-entry.ts';
import type { FileFacts } from '../../native/windows/file-info.ts';
import { DIRECTORY_SUFFIX } from './delta-writer.ts';
import { MountedLayers } from './mounted-layers.ts';

const TOMBSTONES = 'tombstones.txt';
const TOMBSTONES_BEGIN = '\ufeffVersion 1.0';
const RECYCLE_BIN = foldName('Files/$Recycle.Bin');
/** The import gives directories times of its own; those of this file are the layer's. */
const STEADY_TIMES = 'Hives/System_Delta';
const CHUNK = 1 << 20;

/** A run of bytes in the file of an export, and where in the file that it describes it belongs. */
interface Piece {
  at: number;
  position: number;
  size: number;
}

/** What a file of an export says. */
interface Described {
  info: FileInfo;
  streams: (StreamInfo & Piece)[];
  data: Piece[];
}

/** Yields the tar. Directories come before what is in them, sorted; tombstones after their directory. */
export function* exportFolder(folder: string, facts: FileFacts): Generator<Uint8Array> {
  const chunks: Uint8Array[] = [];
  const tar = new LayerTarWriter((bytes) => chunks.push(bytes));
  for (const _ of new FolderExport(folder, facts, tar).write()) yield* chunks.splice(0);
  tar.finish();
  yield* chunks.splice(0);
}

class FolderExport {
  readonly #folder: string;
  readonly #facts: FileFacts;
  readonly #tar: LayerTarWriter;
  readonly #tree: MountedLayers;
  /** By folded directory, what the layer takes away in it. */
  readonly #tombstones: ReadonlyMap<string, readonly string[]>;
  /** By identity, the path in the tar of files that have several names. */
  readonly #written = new Map<string, string>();

  constructor(folder: string, facts: FileFacts, tar: LayerTarWriter) {
    this.#folder = folder;
    this.#facts = facts;
    this.#tar = tar;
    this.#tree = new MountedLayers(`${folder}\\`, facts);
    this.#tombstones = readTombstones(win32.join(folder, TOMBSTONES));
  }

  *write(): Generator<void> {
    for (const root of ['Files', 'Hives', 'UtilityVM'])
      if (this.#tree.stat(root)?.isDirectory === true && this.#isOfLayer(root)) yield* this.#writePath(root);
  }

  /** What Windows made of a base layer beside its files, it makes again. */
  #isOfLayer(path: string): boolean {
    const isBase = !existsSync(win32.join(this.#folder, TOMBSTONES));
    const [root, second] = path.split('/');
    if (root === 'Hives') return !isBase;
    if (root === 'UtilityVM') return second === undefined ? this.#hasUtilityVm() : second === 'Files';
    return foldName(path) !== RECYCLE_BIN;
  }

  #hasUtilityVm(): boolean {
    return this.#tree.stat('UtilityVM/Files')?.isDirectory === true;
  }

  *#writePath(path: string): Generator<void> {
    const source = this.#sourceOf(path);
    const { info } = source;
    const identity = info.isDirectory ? undefined : this.#tree.identity(path);
    const target = identity === undefined ? undefined : this.#written.get(identity);
    if (target !== undefined) {
      this.#tar.hardLink(path, target);
      yield;
      return;
    }
    yield* writeEntry(this.#tar, path, source);
    if (identity !== undefined) this.#written.set(identity, path);
    if (!info.isDirectory || info.reparseTag !== 0) return;
    for (const gone of this.#tombstones.get(foldName(path)) ?? []) this.#tar.whiteout(gone);
    yield;
    const names = Array.from(this.#tree.entries(path), ({ name }) => name).sort();
    for (const name of names) {
      const child = `${path}/${name}`;
      if (!name.endsWith(DIRECTORY_SUFFIX) && this.#isOfLayer(child)) yield* this.#writePath(child);
    }
  }

  #sourceOf(path: string): EntrySource {
    const tree = this.#tree;
    const info = tree.stat(path);
    if (info === undefined)
      throw new CimletError('failed-precondition', `export ${path} from ${this.#folder}: it is gone`);
    const file = win32.join(this.#folder, info.isDirectory ? path + DIRECTORY_SUFFIX : path);
    const isDescribed =
      existsSync(win32.join(this.#folder, TOMBSTONES)) && /^Files(?:\/|$)/i.test(path) && existsSync(file);
    if (!isDescribed)
      return {
        from: this.#folder,
        info: this.#withSteadyTimes(path, info),
        streams: tree.streams(path),
        read: (stream) => tree.read(path, stream),
      };
    const described = describe(file, { ...(this.#facts.info(file) ?? info), isDirectory: info.isDirectory });
    return {
      from: this.#folder,
      info: described.info,
      streams: described.streams,
      read: (stream) => {
        const found = described.streams.find(({ name }) => name === stream);
        return readPieces(file, stream === undefined ? described.data : found === undefined ? [] : [found]);
      },
    };
  }

  #withSteadyTimes(path: string, info: FileInfo): FileInfo {
    const steady =
      path === 'Hives' || path === 'Files' ? this.#facts.info(this.#full(STEADY_TIMES)) : undefined;
    if (steady === undefined) return info;
    const { lastWriteTime, changeTime } = steady;
    return { ...info, lastWriteTime, changeTime, creationTime: lastWriteTime, lastAccessTime: lastWriteTime };
  }

  #full(path: string): string {
    return win32.join(this.#folder, path);
  }
}

/** Of nothing, none: a base layer takes nothing away. */
function readTombstones(file: string): Map<string, string[]> {
  const byDirectory = new Map<string, string[]>();
  if (!existsSync(file)) return byDirectory;
  const [begin, ...lines] = readFileSync(file, 'utf8').split(/\r?\n/);
  if (begin !== TOMBSTONES_BEGIN)
    throw new CimletError('corrupt', `read ${file}: it doesn't begin as a list of tombstones`);
  for (const line of lines) {
    if (line === '') continue;
    const path = `Files/${line.replace(/^\\/, '').replaceAll('\\', '/')}`;
    const directory = foldName(path.slice(0, path.lastIndexOf('/')));
    byDirectory.set(directory, [...(byDirectory.get(directory) ?? []), path]);
  }
  return byDirectory;
}

/** Attributes and backup streams; times are those of the file that says so. */
function describe(
  file: string,
  { creationTime, lastWriteTime, changeTime, lastAccessTime, isDirectory }: Omit<FileInfo, 'id'>,
): Described {
  const descriptor = openSync(file, 'r');
  try {
    let at = 0;
    const fill = (buffer: Buffer): number => {
      const count = readSync(descriptor, buffer, 0, buffer.length, at);
      at += count;
      return count;
    };
    const attributes = Buffer.alloc(4);
    if (fill(attributes) < 4) throw new CimletError('corrupt', `read ${file}: it has no attributes`);
    const streams = readStreams(new BackupStreamReader(fill, file), () => at);
    const { reparseData, data } = streams;
    const size = data.reduce((most, piece) => Math.max(most, piece.at + piece.size), 0);
    const times = { creationTime, lastWriteTime, changeTime, lastAccessTime };
    const reparseTag = reparseData === undefined ? 0 : reparseData.readUInt32LE(0);
    const { streams: alternates, securityDescriptor, extendedAttributes } = streams;
    const metadata = { securityDescriptor, extendedAttributes, reparseData, reparseTag };
    const info = { ...times, ...metadata, attributes: attributes.readUInt32LE(0), isDirectory, size, id: 0 };
    return { info, streams: alternates, data };
  } catch (error) {
    throw classify(error, `read ${file}`);
  } finally {
    closeSync(descriptor);
  }
}

interface Streams {
  securityDescriptor?: Buffer | undefined;
  extendedAttributes?: Buffer | undefined;
  reparseData?: Buffer | undefined;
  data: Piece[];
  streams: (StreamInfo & Piece)[];
}

/** `position` says where in the file the reader is. */
function readStreams(reader: BackupStreamReader, position: () => number): Streams {
  const found: Streams = { data: [], streams: [] };
  for (let header = reader.next(); header !== undefined; header = reader.next()) {
    const { id, size, name, attributes } = header;
    if (id === BackupStreamId.security) found.securityDescriptor = reader.take(size);
    else if (id === BackupStreamId.extendedAttributes) found.extendedAttributes = reader.take(size);
    else if (id === BackupStreamId.reparseData) found.reparseData = reader.take(size);
    else if (id === BackupStreamId.data && (attributes & SPARSE_STREAM) === 0)
      found.data.push({ at: 0, position: position(), size });
    else if (id === BackupStreamId.sparseBlock) {
      const offset = Number(reader.take(8).readBigInt64LE());
      found.data.push({ at: offset, position: position(), size: reader.left });
    } else if (id === BackupStreamId.alternateData)
      found.streams.push({ name: name.replace(/^:|:\$DATA$/g, ''), at: 0, position: position(), size });
  }
  return found;
}

/** The bytes in their order, with zeros where a sparse file has none. */
function* readPieces(file: string, pieces: readonly Piece[]): Generator<Uint8Array> {
  const descriptor = openSync(file, 'r');
  try {
    let done = 0;
    for (const { at, position, size } of pieces) {
      for (; done < at; done += Math.min(CHUNK, at - done)) yield Buffer.alloc(Math.min(CHUNK, at - done));
      for (const end = at + size; done < end; ) {
        const chunk = Buffer.allocUnsafeSlow(Math.min(CHUNK, end - done));
        const count = readSync(descriptor, chunk, 0, chunk.length, position + done - at);
        if (count === 0) throw new CimletError('corrupt', `read ${file}: it is cut short`);
        done += count;
        yield chunk.subarray(0, count);
      }
    }
  } finally {
    closeSync(descriptor);
  }
}
