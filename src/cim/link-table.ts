/**
 * Link tables: a directory's entries (values are file IDs) and a file's alternate streams (values are streams).
 * Layout: total length u32; count u32; the values; the names' offsets u32 from the table's start; the names (u16 units,
 * UTF-16LE). Entries are in the order of their upcased names. Stream tables have the same layout: the public reader
 * expects one more length before them and steps wrongly through the values, so images are not known that do it so.
 */

import { CimletError } from '../errors.ts';
import { type CimFault, corruptAt } from './faults.ts';
import { nameFault } from './names.ts';

export const LINK_TABLE_HEADER_SIZE = 8;
const NAME_OFFSET_SIZE = 4;
const NAME_LENGTH_SIZE = 2;

/** A link table's bytes, checked as far as its length and count; names are checked when they are read. */
export class LinkTable {
  readonly count: number;
  readonly #bytes: Buffer;
  readonly #valueSize: number;
  readonly #file: string;
  readonly #offset: number;

  /** `file` and `offset` say where the bytes are from, for errors. */
  constructor(bytes: Buffer, valueSize: number, file: string, offset: number) {
    if (bytes.length < LINK_TABLE_HEADER_SIZE)
      throw corruptAt(file, offset, `a link table has ${bytes.length} bytes`);
    const length = bytes.readUInt32LE(0);
    this.count = bytes.readUInt32LE(4);
    if (length > bytes.length)
      throw corruptAt(file, offset, `a link table declares ${length} bytes and has ${bytes.length}`);
    if (LINK_TABLE_HEADER_SIZE + this.count * (valueSize + NAME_OFFSET_SIZE) > length)
      throw corruptAt(file, offset + 4, `a link table of ${length} bytes declares ${this.count} entries`);
    this.#bytes = bytes.subarray(0, length);
    this.#valueSize = valueSize;
    this.#file = file;
    this.#offset = offset;
  }

  /** Bytes held, for a cache's accounts. */
  get byteLength(): number {
    return this.#bytes.length;
  }

  get bytes(): Buffer {
    return this.#bytes;
  }

  /** Position of the i-th value in `bytes`. */
  valuePosition(index: number): number {
    return LINK_TABLE_HEADER_SIZE + index * this.#valueSize;
  }

  name(index: number): string {
    const { start, end } = this.#nameRange(index);
    const name = this.#bytes.toString('utf16le', start, end);
    const fault = nameFault(name);
    if (fault !== undefined) throw corruptAt(this.#file, this.#offset + start, fault);
    return name;
  }

  /** A fault of the i-th entry. */
  faultAt(index: number, message: string): CimFault {
    return { file: this.#file, offset: this.#offset + this.valuePosition(index), message };
  }

  /** Index of the entry whose name, upcased, is `units`; undefined when there is none. */
  find(units: Uint16Array, upcase: Uint16Array): number | undefined {
    let low = 0;
    let high = this.count;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const order = this.#compare(units, middle, upcase);
      if (order === 0) return middle;
      if (order < 0) high = middle;
      else low = middle + 1;
    }
    return undefined;
  }

  #compare(units: Uint16Array, index: number, upcase: Uint16Array): number {
    const { start, end } = this.#nameRange(index);
    const length = (end - start) / 2;
    const common = Math.min(length, units.length);
    for (let i = 0; i < common; i++) {
      const difference = (units[i] ?? 0) - (upcase[this.#bytes.readUInt16LE(start + i * 2)] ?? 0);
      if (difference !== 0) return difference;
    }
    return units.length - length;
  }

  #nameRange(index: number): { start: number; end: number } {
    const entry = this.valuePosition(this.count) + index * NAME_OFFSET_SIZE;
    const offset = this.#bytes.readUInt32LE(entry);
    const start = offset + NAME_LENGTH_SIZE;
    if (start > this.#bytes.length)
      throw corruptAt(this.#file, this.#offset + entry, `name offset ${offset} lies outside the link table`);
    const end = start + this.#bytes.readUInt16LE(offset) * 2;
    if (end > this.#bytes.length)
      throw corruptAt(this.#file, this.#offset + offset, 'a name reaches beyond the link table');
    return { start, end };
  }
}

/** An entry to encode; `key` is the upcased name. */
export interface Link<T> {
  key: string;
  name: string;
  value: T;
}

/** Sorts by key, in place, and encodes. `operation` is for the error of a table that grows too large. */
export function encodeLinkTable<T>(
  operation: string,
  links: Link<T>[],
  valueSize: number,
  writeValue: (bytes: Buffer, position: number, value: T) => void,
): Buffer {
  links.sort((a, b) => (a.key < b.key ? -1 : a.key > b.key ? 1 : 0));
  const offsets = LINK_TABLE_HEADER_SIZE + links.length * valueSize;
  let name = offsets + links.length * NAME_OFFSET_SIZE;
  const length = links.reduce((sum, link) => sum + NAME_LENGTH_SIZE + link.name.length * 2, name);
  if (length > 0xffffffff)
    throw new CimletError('corrupt', `${operation}: ${links.length} entries need more than 4 GiB`);
  const bytes = Buffer.alloc(length);
  bytes.writeUInt32LE(length, 0);
  bytes.writeUInt32LE(links.length, 4);
  links.forEach((link, i) => {
    writeValue(bytes, LINK_TABLE_HEADER_SIZE + i * valueSize, link.value);
    bytes.writeUInt32LE(name, offsets + i * NAME_OFFSET_SIZE);
    bytes.writeUInt16LE(link.name.length, name);
    bytes.write(link.name, name + NAME_LENGTH_SIZE, 'utf16le');
    name += NAME_LENGTH_SIZE + link.name.length * 2;
  });
  return bytes;
}
