/**
 * Reads registry hives (regf, versions 1.2 to 1.6). The tree's data are views of the file's bytes, except data that
 * the file holds in segments. Every malformed structure is a `corrupt` error with its offset in the file.
 */

import { decodeBaseBlock, ROOT_CELL_FIELD } from './base-block.ts';
import { type Cell, HiveCells } from './cells.ts';
import {
  decodeLayer,
  FIRST_MINOR_WITH_SEGMENTS,
  INLINE_BIT,
  INLINE_SIZE,
  KEY_NODE_SIZE,
  KEY_SECURITY_SIZE,
  KEY_VALUE_SIZE,
  KeyField,
  LIST_HEADER_SIZE,
  NOWHERE,
  OFFSET_SIZE,
  SEGMENT_SIZE,
  SecurityField,
  STORAGE_FLAGS,
  StorageFlag,
  ValueField,
  ValueFlag,
} from './format.ts';
import {
  findDuplicate,
  type Hive,
  type HiveKey,
  type HiveValue,
  KeyFlag,
  MAX_DEPTH,
  MAX_KEY_NAME,
  MAX_VALUE_NAME,
  sortByName,
} from './model.ts';

/** Bytes per entry of the lists of subkeys, by signature. */
const LEAF_ENTRY_SIZES: Record<string, number | undefined> = { li: 4, lf: 8, lh: 8 };

const NO_DATA = Buffer.alloc(0);

/**
 * Reads the bytes of a hive's primary file; bytes after the last bin are ignored. `name` stands for the file in errors.
 * A hive with a write in progress is read as it is and says so with `dirty`: transaction logs are not applied.
 * The result refers to `bytes`, which must not change afterwards.
 */
export function readHive(bytes: Buffer, name: string): Hive {
  const { minorVersion, rootCell, binsSize, ...hive } = decodeBaseBlock(bytes, name);
  const cells = new HiveCells(bytes, name, binsSize);
  const root = new TreeReader(cells, minorVersion).readRoot(rootCell);
  return { root, ...hive };
}

class TreeReader {
  readonly #cells: HiveCells;
  readonly #bytes: Buffer;
  readonly #hasSegments: boolean;
  /** Security descriptors already read, by offset: the one kind of cell that keys share. */
  readonly #security = new Map<number, Buffer>();

  constructor(cells: HiveCells, minorVersion: number) {
    this.#cells = cells;
    this.#bytes = cells.bytes;
    this.#hasSegments = minorVersion >= FIRST_MINOR_WITH_SEGMENTS;
  }

  readRoot(offset: number): HiveKey {
    return this.#readKey(offset, ROOT_CELL_FIELD, undefined, 0);
  }

  /** `from` is where the offset stands in the file; `parent` the parent's offset, undefined for the root. */
  #readKey(offset: number, from: number, parent: number | undefined, depth: number): HiveKey {
    const cell = this.#cells.take(offset, KEY_NODE_SIZE, 'key', from);
    const { start } = cell;
    const bytes = this.#bytes;
    this.#cells.requireSignature(cell, 'nk', 'key');
    if (depth > MAX_DEPTH) throw this.#cells.fault(start, `keys nest deeper than ${MAX_DEPTH} levels`);
    if (parent !== undefined && bytes.readUInt32LE(start + KeyField.parent) !== parent)
      throw this.#cells.fault(start + KeyField.parent, 'the key names another parent');
    const flags = bytes.readUInt16LE(start + KeyField.flags);
    const isPredefined = (flags & KeyFlag.predefinedHandle) !== 0;
    const valueCount = bytes.readUInt32LE(start + KeyField.valueCount);
    return {
      name: this.#readKeyName(cell, (flags & StorageFlag.compressedName) !== 0, parent === undefined),
      className: this.#readClassName(start),
      timestamp: bytes.readBigUInt64LE(start + KeyField.timestamp),
      security: this.#readSecurity(start + KeyField.security),
      flags: flags & ~STORAGE_FLAGS,
      virtualization: bytes.readUInt16LE(start + KeyField.virtualization),
      predefinedHandle: isPredefined ? valueCount : undefined,
      ...decodeLayer(bytes.readUInt8(start + KeyField.layer)),
      values: isPredefined ? [] : this.#readValues(start + KeyField.valueList, valueCount),
      subkeys: this.#readSubkeys(start, offset, depth),
    };
  }

  #readKeyName(cell: Cell, compressed: boolean, isRoot: boolean): string {
    const { start } = cell;
    const length = this.#bytes.readUInt16LE(start + KeyField.nameLength);
    const name = this.#readName(cell, KEY_NODE_SIZE, length, compressed, MAX_KEY_NAME, 'key');
    if (!isRoot && (name === '' || name.includes('\\')))
      throw this.#cells.fault(start + KEY_NODE_SIZE, `no key can have the name ${JSON.stringify(name)}`);
    return name;
  }

  #readName(
    cell: Cell,
    at: number,
    length: number,
    compressed: boolean,
    limit: number,
    what: string,
  ): string {
    this.#cells.require(cell, at + length, `${what} with its name`);
    const position = cell.start + at;
    if (!compressed && length % 2 !== 0)
      throw this.#cells.fault(position, `the name of the ${what} has half a character`);
    const name = this.#bytes.toString(compressed ? 'latin1' : 'utf16le', position, position + length);
    if (name.length > limit)
      throw this.#cells.fault(position, `the name of the ${what} has ${name.length} characters`);
    return name;
  }

  #readClassName(start: number): string | undefined {
    const length = this.#bytes.readUInt16LE(start + KeyField.classLength);
    if (length === 0) return undefined;
    const from = start + KeyField.className;
    if (length % 2 !== 0) throw this.#cells.fault(from, 'the class name has half a character');
    const cell = this.#cells.take(this.#bytes.readUInt32LE(from), length, 'class name', from);
    return this.#bytes.toString('utf16le', cell.start, cell.start + length);
  }

  #readSecurity(from: number): Buffer | undefined {
    const offset = this.#bytes.readUInt32LE(from);
    if (offset === NOWHERE) return undefined;
    const known = this.#security.get(offset);
    if (known !== undefined) return known;
    const cell = this.#cells.take(offset, KEY_SECURITY_SIZE, 'security descriptor', from);
    this.#cells.requireSignature(cell, 'sk', 'security descriptor');
    const size = this.#bytes.readUInt32LE(cell.start + SecurityField.size);
    this.#cells.require(cell, KEY_SECURITY_SIZE + size, 'security descriptor');
    const position = cell.start + KEY_SECURITY_SIZE;
    const descriptor = this.#bytes.subarray(position, position + size);
    this.#security.set(offset, descriptor);
    return descriptor;
  }

  #readSubkeys(start: number, offset: number, depth: number): readonly HiveKey[] {
    const count = this.#bytes.readUInt32LE(start + KeyField.subkeyCount);
    if (count === 0) return [];
    const positions = this.#listSubkeys(start + KeyField.subkeyList);
    if (positions.length !== count)
      throw this.#cells.fault(
        start + KeyField.subkeyCount,
        `the key says ${count} subkeys, its list has ${positions.length}`,
      );
    const keys = sortByName(
      positions.map((from) => this.#readKey(this.#bytes.readUInt32LE(from), from, offset, depth + 1)),
    );
    const twice = findDuplicate(keys);
    if (twice !== undefined)
      throw this.#cells.fault(start, `the key has two subkeys ${JSON.stringify(twice)}`);
    return keys;
  }

  /** Where in the file the offsets of the subkeys stand, in the order of the list. */
  #listSubkeys(from: number): number[] {
    const cell = this.#cells.take(this.#bytes.readUInt32LE(from), LIST_HEADER_SIZE, 'list of subkeys', from);
    if (this.#cells.signature(cell) !== 'ri') return this.#listLeaf(cell);
    return this.#listEntries(cell, OFFSET_SIZE).flatMap((at) =>
      this.#listLeaf(
        this.#cells.take(this.#bytes.readUInt32LE(at), LIST_HEADER_SIZE, 'part of a list of subkeys', at),
      ),
    );
  }

  #listLeaf(cell: Cell): number[] {
    const entrySize = LEAF_ENTRY_SIZES[this.#cells.signature(cell)];
    if (entrySize === undefined) throw this.#cells.fault(cell.start, 'no list of subkeys here');
    return this.#listEntries(cell, entrySize);
  }

  #listEntries(cell: Cell, entrySize: number): number[] {
    const count = this.#bytes.readUInt16LE(cell.start + 2);
    this.#cells.require(cell, LIST_HEADER_SIZE + count * entrySize, 'list of subkeys');
    return Array.from({ length: count }, (_, i) => cell.start + LIST_HEADER_SIZE + i * entrySize);
  }

  #readValues(from: number, count: number): HiveValue[] {
    if (count === 0) return [];
    const list = this.#cells.take(
      this.#bytes.readUInt32LE(from),
      count * OFFSET_SIZE,
      'list of values',
      from,
    );
    const values = Array.from({ length: count }, (_, i) => this.#readValue(list.start + i * OFFSET_SIZE));
    const twice = findDuplicate(values);
    if (twice !== undefined)
      throw this.#cells.fault(list.start, `the key has two values ${JSON.stringify(twice)}`);
    return values;
  }

  #readValue(from: number): HiveValue {
    const cell = this.#cells.take(this.#bytes.readUInt32LE(from), KEY_VALUE_SIZE, 'value', from);
    this.#cells.requireSignature(cell, 'vk', 'value');
    const flags = this.#bytes.readUInt16LE(cell.start + ValueField.flags);
    const length = this.#bytes.readUInt16LE(cell.start + ValueField.nameLength);
    const compressed = (flags & ValueFlag.compressedName) !== 0;
    return {
      name: this.#readName(cell, KEY_VALUE_SIZE, length, compressed, MAX_VALUE_NAME, 'value'),
      type: this.#bytes.readUInt32LE(cell.start + ValueField.type),
      data: this.#readData(cell.start),
      tombstone: (flags & ValueFlag.tombstone) !== 0,
    };
  }

  #readData(start: number): Buffer {
    const field = this.#bytes.readUInt32LE(start + ValueField.dataSize);
    const from = start + ValueField.dataOffset;
    if (field >= INLINE_BIT) {
      const size = field - INLINE_BIT;
      if (size > INLINE_SIZE) throw this.#cells.fault(from, `${size} bytes of data cannot lie in the value`);
      return this.#bytes.subarray(from, from + size);
    }
    if (field === 0) return NO_DATA;
    const cell = this.#cells.take(this.#bytes.readUInt32LE(from), 1, 'data', from);
    // Some writers put long data into one cell even where Windows cuts it; only a cell too small for it is a `db`.
    if (field <= cell.length) return this.#bytes.subarray(cell.start, cell.start + field);
    if (!this.#hasSegments || field <= SEGMENT_SIZE)
      throw this.#cells.fault(cell.start, `the data needs ${field} bytes, but its cell has ${cell.length}`);
    return this.#readSegments(cell, field);
  }

  #readSegments(cell: Cell, size: number): Buffer {
    this.#cells.requireSignature(cell, 'db', 'list of data segments');
    this.#cells.require(cell, 8, 'list of data segments');
    const count = this.#bytes.readUInt16LE(cell.start + 2);
    if (count !== Math.ceil(size / SEGMENT_SIZE))
      throw this.#cells.fault(cell.start + 2, `${size} bytes of data cannot have ${count} segments`);
    const from = cell.start + 4;
    const list = this.#cells.take(
      this.#bytes.readUInt32LE(from),
      count * OFFSET_SIZE,
      'list of data segments',
      from,
    );
    const segments = Array.from({ length: count }, (_, i) => {
      const at = list.start + i * OFFSET_SIZE;
      const length = Math.min(SEGMENT_SIZE, size - i * SEGMENT_SIZE);
      const segment = this.#cells.take(this.#bytes.readUInt32LE(at), length, 'data segment', at);
      return this.#bytes.subarray(segment.start, segment.start + length);
    });
    return Buffer.concat(segments, size);
  }
}
