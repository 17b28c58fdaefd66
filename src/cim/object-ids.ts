/**
 * Object IDs: a digest and a length for every object of a region file, by which a writer finds an object that the
 * image or an ancestor already holds. Entry: length u64, digest 24 bytes, offset in the region file u64. Readers never
 * need them. The format's digest is unpublished; ours is the first 24 bytes of BLAKE2b-512. Ours are sorted by digest.
 */

import { createHash, type Hash, hash } from 'node:crypto';
import { corruptAt } from './faults.ts';
import {
  DIGEST_SIZE,
  decodeObjectIdHeader,
  encodeObjectIdHeader,
  OBJECT_ID_ENTRY_SIZE,
  OBJECT_ID_HEADER_SIZE,
  type RegionHeader,
} from './format.ts';

const ALGORITHM = 'blake2b512';
const LENGTH_FIELD = 0;
const DIGEST_FIELD = 8;
const OFFSET_FIELD = 32;

export function digestOf(data: Uint8Array): Buffer {
  // A string costs less than a buffer of its own outside the heap, and there is one digest per file.
  return Buffer.from(hash(ALGORITHM, data, 'binary').slice(0, DIGEST_SIZE), 'latin1');
}

/** A digest over data that comes in pieces. */
export class Digester {
  readonly #hash: Hash = createHash(ALGORITHM);

  update(data: Uint8Array): void {
    this.#hash.update(data);
  }

  finish(): Buffer {
    return this.#hash.digest().subarray(0, DIGEST_SIZE);
  }
}

function readNumber(entries: Buffer, position: number): number {
  return entries.readUInt32LE(position) + entries.readUInt32LE(position + 4) * 2 ** 32;
}

function writeNumber(entries: Buffer, position: number, value: number): void {
  entries.writeUInt32LE(value % 2 ** 32, position);
  entries.writeUInt32LE(Math.floor(value / 2 ** 32), position + 4);
}

/** The object IDs of one region file that is being written: an open-addressed hash table over packed entries. */
export class ObjectIndex {
  #entries = Buffer.alloc(256 * OBJECT_ID_ENTRY_SIZE);
  /** Entry number + 1, or 0; twice as many slots as there is room for entries. */
  #slots = new Uint32Array(512);
  #count = 0;

  /** Offset of the object in the region file; undefined when it isn't there. */
  find(digest: Buffer, length: number): number | undefined {
    const entry = this.#slots[this.#slotOf(digest, length)] ?? 0;
    return entry === 0
      ? undefined
      : readNumber(this.#entries, (entry - 1) * OBJECT_ID_ENTRY_SIZE + OFFSET_FIELD);
  }

  /** Adds an object that `find` did not find. */
  add(digest: Buffer, length: number, offset: number): void {
    if ((this.#count + 1) * OBJECT_ID_ENTRY_SIZE > this.#entries.length) this.#grow();
    const position = this.#count * OBJECT_ID_ENTRY_SIZE;
    writeNumber(this.#entries, position + LENGTH_FIELD, length);
    digest.copy(this.#entries, position + DIGEST_FIELD);
    writeNumber(this.#entries, position + OFFSET_FIELD, offset);
    this.#count++;
    this.#slots[this.#slotOf(digest, length)] = this.#count;
  }

  /** The object ID file. */
  encode(header: RegionHeader): Buffer {
    const order = Array.from({ length: this.#count }, (_, i) => i * OBJECT_ID_ENTRY_SIZE);
    const compare = (a: number, b: number) =>
      this.#entries.compare(
        this.#entries,
        b + DIGEST_FIELD,
        b + DIGEST_FIELD + DIGEST_SIZE,
        a + DIGEST_FIELD,
        a + DIGEST_FIELD + DIGEST_SIZE,
      ) || readNumber(this.#entries, a) - readNumber(this.#entries, b);
    order.sort(compare);
    return Buffer.concat([
      encodeObjectIdHeader({ ...header, tableOffset: OBJECT_ID_HEADER_SIZE, count: this.#count }),
      ...order.map((position) => this.#entries.subarray(position, position + OBJECT_ID_ENTRY_SIZE)),
    ]);
  }

  /** The slot where the object is, or where it belongs. */
  #slotOf(digest: Buffer, length: number): number {
    const mask = this.#slots.length - 1;
    let slot = digest.readUInt32LE(0) & mask;
    for (let entry = this.#slots[slot] ?? 0; entry !== 0; entry = this.#slots[slot] ?? 0) {
      const position = (entry - 1) * OBJECT_ID_ENTRY_SIZE;
      const start = position + DIGEST_FIELD;
      if (
        digest.compare(this.#entries, start, start + DIGEST_SIZE) === 0 &&
        readNumber(this.#entries, position + LENGTH_FIELD) === length
      )
        break;
      slot = (slot + 1) & mask;
    }
    return slot;
  }

  #grow(): void {
    this.#entries = Buffer.concat([this.#entries, Buffer.alloc(this.#entries.length)]);
    this.#slots = new Uint32Array(this.#slots.length * 2);
    const mask = this.#slots.length - 1;
    for (let i = 0; i < this.#count; i++) {
      let slot = this.#entries.readUInt32LE(i * OBJECT_ID_ENTRY_SIZE + DIGEST_FIELD) & mask;
      while (this.#slots[slot] !== 0) slot = (slot + 1) & mask;
      this.#slots[slot] = i + 1;
    }
  }
}

export interface ObjectIdEntry {
  length: number;
  digest: Buffer;
  offset: number;
  /** Where the entry is in the object ID file. */
  position: number;
}

/** A finished object ID file. */
export class ObjectIdFile {
  readonly path: string;
  readonly header: RegionHeader;
  readonly count: number;
  readonly #start: number;
  readonly #entries: Buffer;

  constructor(path: string, bytes: Buffer) {
    const header = decodeObjectIdHeader(bytes, path);
    this.path = path;
    this.header = { index: header.index, type: header.type };
    this.count = header.count;
    this.#start = header.tableOffset;
    this.#entries = bytes.subarray(this.#start, this.#start + header.count * OBJECT_ID_ENTRY_SIZE);
    if (this.#start < OBJECT_ID_HEADER_SIZE) throw corruptAt(path, 40, 'the table lies within the header');
  }

  entry(index: number): ObjectIdEntry {
    const position = index * OBJECT_ID_ENTRY_SIZE;
    const start = position + DIGEST_FIELD;
    return {
      length: readNumber(this.#entries, position + LENGTH_FIELD),
      digest: this.#entries.subarray(start, start + DIGEST_SIZE),
      offset: readNumber(this.#entries, position + OFFSET_FIELD),
      position: this.#start + position,
    };
  }

  /** Offset of the object in the region file, by binary search; undefined when it isn't there. */
  find(digest: Buffer, length: number): number | undefined {
    const prefix = digest.readUInt32BE(0);
    let low = 0;
    let high = this.count;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const position = middle * OBJECT_ID_ENTRY_SIZE;
      const start = position + DIGEST_FIELD;
      const order =
        prefix - this.#entries.readUInt32BE(start) ||
        digest.compare(this.#entries, start, start + DIGEST_SIZE) ||
        length - readNumber(this.#entries, position + LENGTH_FIELD);
      if (order === 0) return readNumber(this.#entries, position + OFFSET_FIELD);
      if (order < 0) high = middle;
      else low = middle + 1;
    }
    return undefined;
  }
}
