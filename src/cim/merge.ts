/**
 * Merges the block CIMs of a chain into a metadata-only CIM: its streams, descriptors and attributes are where the sources have them, so it is
 * read together with them. The same sources give the same bytes. Time grows with their entries, memory with 100 bytes an entry.
 */

import { CimletError } from '../errors.ts';
import type { Container } from './container.ts';
import { type ContainerPlace, ContainerTarget } from './container-target.ts';
import { corrupt } from './faults.ts';
import {
  defaultStream,
  FILE_RECORD_SIZE,
  FileField,
  type FileSlot,
  MARK_FLAGS,
  setDefaultStream,
  setStreamTable,
} from './file-record.ts';
import { FileTables } from './file-tables.ts';
import {
  EMPTY_STREAM,
  encodeFilesystem,
  encodeImageHeader,
  FILES_PER_TABLE,
  isGuid,
  type RegionOffset,
  RegionType,
  readRegionOffset,
  SMALL_ALIGNMENT,
  STREAM_SIZE,
  type StreamRecord,
  StreamType,
  writeRegionOffset,
  writeStreamRecord,
} from './format.ts';
import { imageFileName } from './image.ts';
import type { FinishedCim } from './image-writer.ts';
import { encodeLinkTable } from './link-table.ts';
import { MergedTree, type Place } from './merge-tree.ts';
import { checkName } from './names.ts';
import { ObjectIndex } from './object-ids.ts';
import { openImage } from './open-image.ts';
import { CimReader } from './reader.ts';
import type { RegionWriter } from './region-writer.ts';
import { encodeSourceList, identifySource, type SourceIdentity } from './source-list.ts';
import type { FileId } from './types.ts';
import { upcaseName } from './upcase.ts';

export const MAX_MERGED_LAYERS = 128;

/** What all sources' caches may hold together, though each holds some. */
const CACHE_BYTES = 128 * 1024 * 1024;
const MIN_CACHE_BYTES = 1024 * 1024;

export type MergeOptions = ContainerPlace & {
  /** `x` for `x.cim` in the container. */
  name: string;
  /** Lower case with dashes; none of the sources'. */
  regionGuid: string;
  /** Block CIMs, topmost first; 2 to 128, all in files or all in devices, all sealed or none. */
  sources: readonly string[];
  /** That the sources' seals must have, in the same order; undefined for any. */
  rootHashes?: readonly (string | undefined)[] | undefined;
  /** Called now and then; throws to stop. */
  checkpoint?: (() => void) | undefined;
};

/**
 * Writes a merged CIM into a new container, which gets its final name from `publishContainer`. Errors: `failed-precondition` for sources that
 * can't be merged with each other, `corrupt` for one that is damaged or has a merge link without a target.
 */
export function mergeBlockCims(options: MergeOptions): FinishedCim {
  const { name, regionGuid, sources, rootHashes } = options;
  const operation = `merge into ${options.file ?? options.device}/${imageFileName(name)}`;
  checkName(operation, name);
  if (!isGuid(regionGuid))
    throw new CimletError('corrupt', `${operation}: "${regionGuid}" is no GUID in lower case with dashes`);
  if (sources.length < 2 || sources.length > MAX_MERGED_LAYERS)
    throw new CimletError(
      'failed-precondition',
      `${operation}: ${sources.length} sources given, 2 to ${MAX_MERGED_LAYERS} can be merged`,
    );
  const layers: Layer[] = [];
  try {
    for (const [index, source] of sources.entries())
      layers.push(openLayer(operation, source, rootHashes?.[index], sources.length));
    const { kind, sealed } = checkLayers(operation, regionGuid, layers);
    const target = new ContainerTarget(options, {
      name,
      append: false,
      inPlace: RegionType.metadata,
      sources: encodeSourceList({ kind, sealed, sources: layers.map(({ identity }) => identity) }),
    });
    try {
      return new Merger(options, layers, target).run();
    } catch (error) {
      target.discard();
      throw error;
    }
  } finally {
    for (const { reader } of layers) reader.close();
  }
}

interface Layer {
  path: string;
  reader: CimReader;
  container: Container;
  identity: SourceIdentity;
}

function openLayer(operation: string, path: string, rootHash: string | undefined, count: number): Layer {
  const image = openImage(path, { rootHash });
  try {
    const { container, cim, kind, header } = image;
    if (container === undefined || cim === undefined || kind !== 'block')
      throw new CimletError('failed-precondition', `${operation}: ${path} is a ${kind} CIM`, {
        hint: 'only block CIMs can be merged',
      });
    const reader = new CimReader(image, { cacheBytes: Math.max(MIN_CACHE_BYTES, CACHE_BYTES / count) });
    return { path, reader, container, identity: identifySource(container, cim, header.own.guid) };
  } catch (error) {
    image.files.close();
    throw error;
  }
}

/** Refuses layers that don't go together; returns what they have in common. */
function checkLayers(operation: string, regionGuid: string, layers: readonly Layer[]) {
  const refuse = (message: string) => new CimletError('failed-precondition', `${operation}: ${message}`);
  const seen = new Map([[regionGuid, 'the merged CIM']]);
  const [first] = layers;
  if (first === undefined) throw refuse('no sources');
  for (const { path, reader, container, identity } of layers) {
    const { guid } = identity;
    const twin = seen.get(guid);
    if (twin !== undefined) throw refuse(`${path} and ${twin} have the same region GUID ${guid}`);
    seen.set(guid, path);
    if (container.kind !== first.container.kind)
      throw refuse(`${path} is in a ${container.kind}, ${first.path} in a ${first.container.kind}`);
    if ((container.seal === undefined) !== (first.container.seal === undefined))
      throw refuse(`one of ${path} and ${first.path} is sealed, the other is not`);
    if (Buffer.compare(asBytes(reader.upcase), asBytes(first.reader.upcase)) !== 0)
      throw refuse(`${path} and ${first.path} compare names differently`);
  }
  return { kind: first.container.kind, sealed: first.container.seal !== undefined };
}

function asBytes(table: Uint16Array): Uint8Array {
  return new Uint8Array(table.buffer, table.byteOffset, table.byteLength);
}

/** A directory whose entries are still to be written. */
interface PendingDirectory {
  id: FileId;
  places: readonly Place[];
  /** With a `/` at its end, for errors; empty for the root. */
  path: string;
}

class Merger {
  readonly #options: MergeOptions;
  readonly #layers: readonly Layer[];
  readonly #target: ContainerTarget;
  readonly #region: RegionWriter;
  readonly #files = new FileTables(undefined);
  /** By layer: number of its first region in the merged image. */
  readonly #regionBases: number[];
  readonly #ownRegion: number;
  /** By layer, and by thousands of file IDs: the merged file's ID, so that a file's names stay names of one file. */
  readonly #ids: Map<number, Uint32Array>[];
  #count = 0;

  constructor(options: MergeOptions, layers: readonly Layer[], target: ContainerTarget) {
    this.#options = options;
    this.#layers = layers;
    this.#target = target;
    let regions = 0;
    this.#regionBases = layers.map(({ reader }) => {
      regions += reader.regions.length;
      return regions - reader.regions.length;
    });
    this.#ownRegion = regions;
    this.#ids = layers.map(() => new Map());
    this.#region = target.openRegion(RegionType.metadata);
  }

  run(): FinishedCim {
    const [top] = this.#layers;
    if (top === undefined) throw new Error('nothing to merge');
    const tree = new MergedTree(
      this.#layers.map(({ reader }) => reader),
      top.reader.upcase,
    );
    const places = tree.roots();
    const root = this.#addDirectory(places, '');
    const pending: PendingDirectory[] = [{ id: root, places, path: '' }];
    for (let next = pending.pop(); next !== undefined; next = pending.pop())
      this.#mergeDirectory(tree, next, pending);
    const filesystem = this.#put(
      encodeFilesystem({
        // The topmost source's, whose regions have the same numbers here.
        upcase: top.reader.filesystem.upcase,
        ...this.#files.write((table) => this.#put(table)),
        root,
      }),
    );
    const image = encodeImageHeader({
      own: { guid: this.#options.regionGuid, count: 1 },
      parents: this.#layers.map(({ reader }) => reader.header.own),
      filesystem,
    });
    const files = this.#target.finish(new Map([[RegionType.metadata, new ObjectIndex()]]), image);
    return { files, bytes: files.reduce((sum, file) => sum + file.size, 0), fileCount: this.#count - 1 };
  }

  #mergeDirectory(
    tree: MergedTree,
    { id, places, path }: PendingDirectory,
    pending: PendingDirectory[],
  ): void {
    this.#options.checkpoint?.();
    const links = [];
    for (const entry of tree.entries(places, path)) {
      const { key, name } = entry;
      if (!entry.isDirectory) {
        links.push({ key, name, value: this.#addFile(entry.places[0]) });
        continue;
      }
      const child = { path: `${path}${name}/`, places: entry.places, id: 0 };
      child.id = this.#addDirectory(entry.places, child.path);
      links.push({ key, name, value: child.id });
      pending.push(child);
    }
    if (links.length === 0) return;
    const bytes = encodeLinkTable(`merge directory ${path}`, links, 4, (table, at, file) =>
      table.writeUInt32LE(file, at),
    );
    const stream = { at: this.#put(bytes), size: bytes.length, type: StreamType.linkTable, sparse: false };
    setDefaultStream(this.#files.edit(id), stream);
  }

  /** The merged ID of a file, which gets its entry the first time it is met. */
  #addFile(place: Place): FileId {
    return this.#idOf(place) || this.#copyEntry(place);
  }

  #addDirectory(places: readonly Place[], path: string): FileId {
    const [first] = places;
    if (first === undefined) throw new Error('a directory of no layer');
    for (const place of places)
      if (this.#idOf(place) !== 0) {
        const { reader } = this.#layer(place);
        throw corrupt(reader.faultAt(place.id, `directory ${path} is reached twice`));
      }
    const id = this.#copyEntry(first);
    for (const { layer, id: source } of places) this.#mark(layer, source, id);
    setDefaultStream(this.#files.edit(id), { ...EMPTY_STREAM, type: StreamType.linkTable });
    return id;
  }

  /** A new file entry that points to where the source's points. */
  #copyEntry(place: Place): FileId {
    const { reader } = this.#layer(place);
    const source = reader.slot(place.id);
    const id = this.#files.add();
    const slot = this.#files.edit(id);
    const { table, position } = slot;
    source.table.copy(table, position, source.position, source.position + FILE_RECORD_SIZE);
    table.writeUInt16LE(
      table.readUInt16LE(position + FileField.flags) & ~MARK_FLAGS,
      position + FileField.flags,
    );
    const base = this.#regionBases[place.layer] ?? 0;
    if (base > 0) this.#rebase(slot, base, place);
    this.#mark(place.layer, place.id, id);
    this.#count++;
    return id;
  }

  #rebase(slot: FileSlot, base: number, place: Place): void {
    const { reader } = this.#layer(place);
    setDefaultStream(slot, this.#rebaseStream(defaultStream(slot), base, place));
    for (const field of [FileField.securityDescriptor, FileField.extendedAttributes, FileField.reparseData]) {
      const at = readRegionOffset(slot.table, slot.position + field);
      writeRegionOffset(slot.table, slot.position + field, at && { ...at, region: at.region + base });
    }
    const links = Array.from(reader.streamRecords(place.id), ({ name, stream }) => ({
      key: upcaseName(reader.upcase, name),
      name,
      value: this.#rebaseStream(stream, base, place),
    }));
    const bytes = encodeLinkTable(`merge streams of file ${place.id}`, links, STREAM_SIZE, writeStreamRecord);
    setStreamTable(slot, links.length === 0 ? undefined : this.#put(bytes));
  }

  #rebaseStream(stream: StreamRecord, base: number, place: Place): StreamRecord {
    if (stream.type === StreamType.peImage) {
      const { reader } = this.#layer(place);
      throw corrupt(reader.faultAt(place.id, `file ${place.id} is a PE image, which no block CIM has`));
    }
    return { ...stream, at: stream.at && { ...stream.at, region: stream.at.region + base } };
  }

  #put(bytes: Uint8Array): RegionOffset {
    const offset = this.#region.align(SMALL_ALIGNMENT);
    this.#region.append(bytes);
    return { region: this.#ownRegion, offset };
  }

  #idOf({ layer, id }: Place): number {
    return this.#ids[layer]?.get(Math.floor(id / FILES_PER_TABLE))?.[id % FILES_PER_TABLE] ?? 0;
  }

  #mark(layer: number, source: FileId, id: FileId): void {
    const number = Math.floor(source / FILES_PER_TABLE);
    const ids = this.#ids[layer]?.get(number) ?? new Uint32Array(FILES_PER_TABLE);
    ids[source % FILES_PER_TABLE] = id;
    this.#ids[layer]?.set(number, ids);
  }

  #layer({ layer }: Place): Layer {
    const found = this.#layers[layer];
    if (found === undefined) throw new Error(`layer ${layer} is not open`);
    return found;
  }
}
