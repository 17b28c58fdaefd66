import { defaultStream, FILE_RECORD_SIZE, FileField, type FileSlot, fileBlobs } from '../cim/file-record.ts';
import { FILES_PER_TABLE, REGION_TYPES, type RegionOffset } from '../cim/format.ts';
import type { CimReader } from '../cim/reader.ts';
import type { FileId } from '../cim/types.ts';
import type { LayerChange } from './layer-changes.ts';

interface Candidate {
  path: string;
  id: FileId;
  /** Its metadata isn't the parent's. */
  differs: boolean;
}

/**
 * Finds which inherited directories a fork's layer had entries for. Such an entry makes the writer store the listing of
 * the directory it is in and the file table it is in anew, even when it changes nothing; so where that happened for no
 * other reason, every directory that could be the reason is restated: more than the layer had, but to the same bytes.
 */
export class RestatedDirectories {
  readonly #cim: CimReader;
  readonly #parent: CimReader | undefined;
  readonly #candidates: Candidate[] = [];
  #unexplained = false;

  constructor(cim: CimReader, parent: CimReader | undefined) {
    this.#cim = cim;
    this.#parent = parent;
    if (parent !== undefined) this.#unexplained = this.#hasUnexplainedTable(parent);
  }

  /** Looks at an inherited directory in the inherited directory `within`; true when the layer has an entry for it. */
  consider(path: string, id: FileId, within: FileId, isRespelled: boolean): boolean {
    const [own, lower] = [record(this.#cim.slot(id)), this.#parent && record(this.#parent.slot(id))];
    if (lower === undefined) return false;
    const differs = isRespelled || !withoutListing(own).equals(withoutListing(lower));
    const hasLowerStreams = own.readBigUInt64LE(FileField.streamTable) !== 0n && !differs;
    if (differs || (this.#isRewritten(within) && this.#isTableRewritten(id) && !hasLowerStreams)) {
      this.#candidates.push({ path, id, differs });
    }
    return differs;
  }

  /** Says whether something else changed the listing of an inherited directory. */
  explain(id: FileId, explained: boolean): void {
    if (!explained && this.#isRewritten(id)) this.#unexplained = true;
  }

  /** Puts the directories' entries where what they brought lies between what new files brought. */
  insertInto(changes: readonly LayerChange[]): LayerChange[] {
    const restated = this.#candidates.filter(({ differs }) => differs || this.#unexplained);
    if (restated.length === 0) return [...changes];
    const reached = REGION_TYPES.map(() => new Float64Array(changes.length));
    const ends = REGION_TYPES.map(() => 0);
    for (const [index, change] of changes.entries()) {
      const offsets = change.kind === 'entry' ? this.#lastOffsets(change.id) : [];
      for (const [region, marks] of reached.entries()) {
        ends[region] = Math.max(ends[region] ?? 0, offsets[region] ?? 0);
        marks[index] = ends[region];
      }
    }
    const placed = restated.map(({ path, id }) => {
      const offsets = this.#lastOffsets(id);
      const indexes = reached.map((marks, region) => {
        const offset = offsets[region] ?? 0;
        return offset === 0 ? undefined : firstAbove(marks, offset);
      });
      const index = Math.min(...indexes.filter((found) => found !== undefined));
      return {
        index: Number.isFinite(index) ? index : 0,
        offsets,
        change: { kind: 'entry' as const, path, id },
      };
    });
    placed.sort((a, b) => a.index - b.index || compareEach(a.offsets, b.offsets));
    const result: LayerChange[] = [];
    let next = 0;
    for (let index = 0; index <= changes.length; index++) {
      for (let entry = placed[next]; entry?.index === index; entry = placed[++next])
        result.push(entry.change);
      const change = changes[index];
      if (change !== undefined) result.push(change);
    }
    return result;
  }

  /** By kind of the image's own regions, how far into it a file's blobs and data reach; 0 where it has nothing. */
  #lastOffsets(id: FileId): number[] {
    const slot = this.#cim.slot(id);
    const { securityDescriptor, extendedAttributes, reparseData } = fileBlobs(slot);
    const places = [securityDescriptor, extendedAttributes, reparseData];
    if (!this.#cim.isDirectory(id)) places.push(defaultStream(slot).at);
    for (const { stream } of this.#cim.streamRecords(id)) places.push(stream.at);
    const base = this.#parent?.regions.length ?? 0;
    return REGION_TYPES.map((type) =>
      Math.max(0, ...places.map((at) => (at?.region === base + type ? at.offset : 0))),
    );
  }

  #isRewritten(directory: FileId): boolean {
    if (this.#parent === undefined) return false;
    const lower = defaultStream(this.#parent.slot(directory)).at;
    return !isSamePlace(defaultStream(this.#cim.slot(directory)).at, lower);
  }

  #isTableRewritten(id: FileId): boolean {
    const table = Math.floor((id - 1) / FILES_PER_TABLE);
    return !isSamePlace(this.#cim.tables[table]?.at, this.#parent?.tables[table]?.at);
  }

  /** True when a file table was stored anew though nothing in it changed. */
  #hasUnexplainedTable(parent: CimReader): boolean {
    return parent.tables.some(({ at, count }, table) => {
      const own = this.#cim.tables[table];
      if (own === undefined || isSamePlace(own.at, at) || own.count !== count) return false;
      for (let id = table * FILES_PER_TABLE + 1; id <= table * FILES_PER_TABLE + count; id++) {
        if (!record(this.#cim.slot(id)).equals(record(parent.slot(id)))) return false;
      }
      return true;
    });
  }
}

function record({ table, position }: FileSlot): Buffer {
  return table.subarray(position, position + FILE_RECORD_SIZE);
}

/** An entry without its default stream, a directory's listing. */
function withoutListing(entry: Buffer): Buffer {
  const { defaultStream: start, securityDescriptor: end } = FileField;
  return Buffer.concat([entry.subarray(0, start), entry.subarray(end)]);
}

function isSamePlace(a: RegionOffset | undefined, b: RegionOffset | undefined): boolean {
  return a?.region === b?.region && a?.offset === b?.offset;
}

/** Index of the first mark above `offset`; the marks never fall. */
function firstAbove(marks: Float64Array, offset: number): number {
  let low = 0;
  for (let high = marks.length; low < high; ) {
    const middle = (low + high) >>> 1;
    if ((marks[middle] ?? 0) > offset) high = middle;
    else low = middle + 1;
  }
  return low;
}

function compareEach(a: readonly number[], b: readonly number[]): number {
  for (const [index, value] of a.entries()) {
    const difference = value - (b[index] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}
