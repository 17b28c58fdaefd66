/** The file tables of an image, and all that file entries point to. */

import { extendedAttributesFault, reparseDataFault, securityDescriptorFault } from './blobs.ts';
import type { FaultList } from './faults.ts';
import {
  defaultStream,
  FILE_RECORD_SIZE,
  FileField,
  type FileSlot,
  fileBlobs,
  isDirectory,
  KNOWN_FLAGS,
  MARK_FLAGS,
  markKind,
  streamTable,
} from './file-record.ts';
import {
  FILES_PER_TABLE,
  PAGE_SIZE,
  type RegionOffset,
  RegionType,
  readStreamRecord,
  SMALL_ALIGNMENT,
  type StreamRecord,
  StreamType,
} from './format.ts';
import type { LinkTable } from './link-table.ts';
import { nameFault } from './names.ts';
import { readPeImage } from './pe-image.ts';
import type { CimReader } from './reader.ts';
import type { RegionFiles } from './region-files.ts';
import type { FileId } from './types.ts';
import { upcaseName } from './upcase.ts';

const ALIGNMENTS = new Map<number, number>([
  [RegionType.data, PAGE_SIZE],
  [RegionType.smallData, SMALL_ALIGNMENT],
]);

export function verifyFiles(reader: CimReader, files: RegionFiles, faults: FaultList): void {
  new FileVerifier(reader, files, faults).run();
}

class FileVerifier {
  readonly #reader: CimReader;
  readonly #files: RegionFiles;
  readonly #faults: FaultList;
  /** Blobs and link tables that were checked, as `kind:region:offset`: many entries share them. */
  readonly #checked = new Set<string>();

  constructor(reader: CimReader, files: RegionFiles, faults: FaultList) {
    this.#reader = reader;
    this.#files = files;
    this.#faults = faults;
  }

  run(): void {
    for (const index of this.#tables()) {
      const first = index * FILES_PER_TABLE + 1;
      const count = this.#reader.tables[index]?.count ?? 0;
      for (let id = first; id < first + count; id++) this.#file(id);
    }
  }

  /** The tables that can be read, each place on disk once. */
  #tables(): number[] {
    const { tables } = this.#reader;
    const readable = tables.flatMap(({ at, count, entrySize }, index) => {
      if (count === 0) return [];
      const slot = this.#faults.collect(() => this.#reader.slot(index * FILES_PER_TABLE + 1));
      return slot && at ? [{ index, at, end: at.offset + count * entrySize }] : [];
    });
    readable.sort((a, b) => a.at.region - b.at.region || a.at.offset - b.at.offset);
    let previous = { region: -1, end: 0 };
    return readable.flatMap(({ index, at, end }) => {
      if (at.region === previous.region && at.offset < previous.end) {
        this.#fault(at, `file table ${index} overlaps another`);
        return [];
      }
      previous = { region: at.region, end };
      return [index];
    });
  }

  #file(id: FileId): void {
    const slot = this.#reader.slot(id);
    const flags = slot.table.readUInt16LE(slot.position + FileField.flags);
    const known = this.#reader.kind === 'block' ? KNOWN_FLAGS | MARK_FLAGS : KNOWN_FLAGS;
    if ((flags & ~known) !== 0) this.#fileFault(id, `file ${id} has unknown flags 0x${flags.toString(16)}`);
    const mark = this.#reader.kind === 'block' ? markKind(slot) : undefined;
    if (mark === 'tombstone' || mark === 'merge-link') {
      this.#mark(id, slot, mark);
      return;
    }
    if (isDirectory(slot)) {
      const { at, size } = defaultStream(slot);
      if (size > 0 && at === undefined) this.#fileFault(id, `directory ${id} has entries nowhere`);
      else if (size > 0 && this.#first('directory', at)) {
        const table = this.#faults.collect(() => this.#reader.entryTable(id));
        if (table !== undefined) this.#links(table, `directory ${id}`);
      }
    } else this.#stream(id, defaultStream(slot), `data of file ${id}`);
    const { at, table } = this.#streamTable(id);
    if (table !== undefined && this.#first('streams', at)) {
      this.#links(table, `the streams of file ${id}`);
      for (let i = 0; i < table.count; i++)
        this.#stream(id, readStreamRecord(table.bytes, table.valuePosition(i)), `stream ${i} of file ${id}`);
    }
    this.#blobs(id);
  }

  /** A tombstone has nothing else, a merge link its target. */
  #mark(id: FileId, { table, position }: FileSlot, mark: 'tombstone' | 'merge-link'): void {
    const rest = Buffer.from(table.subarray(position, position + FILE_RECORD_SIZE));
    rest.writeUInt16LE(0, FileField.flags);
    if (mark === 'merge-link') rest.writeBigUInt64LE(0n, FileField.reparseData);
    if (rest.some((byte) => byte !== 0)) this.#fileFault(id, `the ${mark} ${id} has properties of a file`);
    if (mark === 'tombstone') return;
    const target = this.#faults.collect(() => this.#reader.stat(id))?.mark;
    if (target?.kind !== 'merge-link') return;
    const names = target.target.split('/');
    const fault = names.map(nameFault).find((found) => found !== undefined);
    if (fault !== undefined) this.#fileFault(id, `the target of the merge link ${id}: ${fault}`);
  }

  #streamTable(id: FileId): { at: RegionOffset | undefined; table: LinkTable | undefined } {
    const slot = this.#reader.slot(id);
    const at = streamTable(slot);
    return { at, table: this.#faults.collect(() => this.#reader.streamTable(id)) };
  }

  #links(table: LinkTable, what: string): void {
    let before = '';
    for (let i = 0; i < table.count; i++) {
      const name = this.#faults.collect(() => table.name(i));
      if (name === undefined) continue;
      const key = upcaseName(this.#reader.upcase, name);
      if (key === before)
        this.#faults.add(table.faultAt(i, `${what} has two entries ${JSON.stringify(name)}`));
      else if (key < before)
        this.#faults.add(table.faultAt(i, `${what} is not sorted at ${JSON.stringify(name)}`));
      before = key;
    }
  }

  #stream(id: FileId, stream: StreamRecord, what: string): void {
    if (stream.type !== StreamType.data && stream.type !== StreamType.peImage) {
      this.#fileFault(id, `${what} has the unknown type ${stream.type}`);
      return;
    }
    if (stream.sparse || stream.size === 0) return;
    const { at } = stream;
    if (at === undefined) this.#fileFault(id, `${what} is nowhere`);
    else if (stream.type === StreamType.peImage)
      this.#faults.collect(() => this.#peImage(at, stream.size, what));
    else this.#faults.collect(() => this.#data(at, stream.size, what));
  }

  #data(at: RegionOffset, size: number, what: string): void {
    const { type } = this.#files.locate(at, size, what);
    const alignment = ALIGNMENTS.get(type) ?? 1;
    if (at.offset % alignment !== 0)
      throw this.#files.corruptAt(at, `${what} does not begin on a multiple of ${alignment} bytes`);
  }

  #peImage(at: RegionOffset, size: number, what: string): void {
    const image = readPeImage(this.#files, at, what);
    const ends = [...image.mappings.map(({ fileOffset }) => fileOffset), image.dataLength];
    let start = 0;
    ends.forEach((next, i) => {
      const end = Math.min(next, size);
      const skip = start + (image.mappings[i - 1]?.delta ?? 0);
      if (end > start) {
        this.#files.locate({ ...image.data, offset: image.data.offset + skip }, end - start, what);
        start = end;
      }
    });
    if (start < size) this.#fault(at, `${what} is longer than its PE image`);
  }

  #blobs(id: FileId): void {
    const slot = this.#reader.slot(id);
    const blobs = fileBlobs(slot);
    const { securityDescriptor, extendedAttributes, eaLength, reparseData, reparseTag } = blobs;
    if (securityDescriptor && this.#first('descriptor', securityDescriptor))
      this.#blob(
        securityDescriptor,
        undefined,
        `the security descriptor of file ${id}`,
        securityDescriptorFault,
      );
    if (extendedAttributes && this.#first(`attributes:${eaLength}`, extendedAttributes))
      this.#blob(
        extendedAttributes,
        eaLength,
        `the extended attributes of file ${id}`,
        extendedAttributesFault,
      );
    if (reparseData)
      this.#blob(
        reparseData,
        undefined,
        `the reparse data of file ${id}`,
        (bytes) =>
          reparseDataFault(bytes) ??
          (bytes.readUInt32LE(0) === reparseTag ? undefined : "its tag is not the file entry's"),
      );
    else if (reparseTag !== 0) this.#fileFault(id, `file ${id} has a reparse tag without reparse data`);
    if (!extendedAttributes && eaLength !== 0)
      this.#fileFault(id, `file ${id} has a length of extended attributes without any`);
  }

  #blob(
    at: RegionOffset,
    length: number | undefined,
    what: string,
    check: (bytes: Buffer) => string | undefined,
  ): void {
    this.#faults.collect(() => {
      const count = length ?? this.#files.read(at, 2, what).readUInt16LE(0);
      const start = length === undefined ? { ...at, offset: at.offset + 2 } : at;
      const fault = check(this.#files.read(start, count, what));
      if (fault !== undefined) this.#fault(at, `${what}: ${fault}`);
    });
  }

  #first(kind: string, at: RegionOffset | undefined): boolean {
    const key = `${kind}:${at?.region}:${at?.offset}`;
    if (this.#checked.has(key)) return false;
    this.#checked.add(key);
    return true;
  }

  #fileFault(id: FileId, message: string): void {
    this.#faults.add(this.#reader.faultAt(id, message));
  }

  #fault(at: RegionOffset, message: string): void {
    this.#faults.add(this.#files.faultAt(at, message));
  }
}
