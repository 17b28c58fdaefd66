/**
 * Writes registry hives: regf 1.5, or 1.6 when the tree has layered keys. The same tree gives the same bytes, laid out
 * in the order of the tree without gaps to reuse, as after a defragmentation by Windows.
 */

import { encodeBaseBlock } from './base-block.ts';
import { CellAllocator, type NewCell } from './cell-allocator.ts';
import {
  encodeLayer,
  INLINE_BIT,
  INLINE_SIZE,
  KEY_NODE_SIZE,
  KEY_SECURITY_SIZE,
  KEY_VALUE_SIZE,
  KeyField,
  LIST_HEADER_SIZE,
  MAX_LEAF_ENTRIES,
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
  MAX_DEPTH,
  MAX_KEY_NAME,
  MAX_VALUE_NAME,
  sortByName,
} from './model.ts';
import { encodeName, hashName } from './names.ts';

const BIG_DATA_SIZE = 8;

/**
 * The bytes of the hive's primary file, clean (`dirty` is not written). A key without a security descriptor is written
 * without one, which Windows doesn't accept. A tree that no hive can hold (bad or duplicate names, too deep) is a bug.
 */
export function writeHive(hive: Hive): Buffer {
  const cells = new CellAllocator(hive.timestamp);
  const writer = new TreeWriter(cells);
  const rootCell = writer.writeRoot(hive.root);
  cells.close();
  const { timestamp, fileName } = hive;
  const { hasLayers } = writer;
  const base = encodeBaseBlock({ timestamp, fileName, rootCell, binsSize: cells.size, hasLayers });
  return Buffer.concat([base, ...cells.bins]);
}

interface SecurityCell extends NewCell {
  keys: number;
}

class TreeWriter {
  hasLayers = false;
  readonly #cells: CellAllocator;
  /** Security descriptors by buffer, then by content. */
  readonly #securityByBuffer = new Map<Buffer, SecurityCell>();
  readonly #securityByContent = new Map<string, SecurityCell>();

  constructor(cells: CellAllocator) {
    this.#cells = cells;
  }

  writeRoot(root: HiveKey): number {
    const offset = this.#writeKey(root, undefined, 0);
    this.#linkSecurity();
    return offset;
  }

  #writeKey(key: HiveKey, parent: number | undefined, depth: number): number {
    const isRoot = parent === undefined;
    if (depth > MAX_DEPTH) throw new Error(`write hive: keys nest deeper than ${MAX_DEPTH} levels`);
    if (key.name.length > MAX_KEY_NAME || (!isRoot && (key.name === '' || key.name.includes('\\'))))
      throw new Error(`write hive: no key can have the name ${JSON.stringify(key.name)}`);
    const layer = encodeLayer(key.layer, key.inheritsClass);
    if (layer !== 0) this.hasLayers = true;
    const name = encodeName(key.name);
    const className = Buffer.from(key.className ?? '', 'utf16le');

    const { offset, bytes } = this.#cells.allocate(KEY_NODE_SIZE + name.bytes.length);
    const storage = (name.compressed ? StorageFlag.compressedName : 0) | (isRoot ? StorageFlag.root : 0);
    bytes.write('nk', 0, 'latin1');
    bytes.writeUInt16LE((key.flags & ~STORAGE_FLAGS) | storage, KeyField.flags);
    bytes.writeBigUInt64LE(key.timestamp, KeyField.timestamp);
    bytes.writeUInt8(layer, KeyField.layer);
    bytes.writeUInt32LE(parent ?? NOWHERE, KeyField.parent);
    bytes.writeUInt32LE(NOWHERE, KeyField.volatileSubkeyList);
    bytes.writeUInt32LE(this.#placeSecurity(key.security), KeyField.security);
    bytes.writeUInt32LE(className.length === 0 ? NOWHERE : this.#writeBytes(className), KeyField.className);
    bytes.writeUInt16LE(key.virtualization, KeyField.virtualization);
    bytes.writeUInt16LE(name.bytes.length, KeyField.nameLength);
    bytes.writeUInt16LE(className.length, KeyField.classLength);
    name.bytes.copy(bytes, KEY_NODE_SIZE);
    this.#writeValues(bytes, key);
    this.#writeSubkeys(bytes, key, offset, depth);
    return offset;
  }

  #writeValues(node: Buffer, { name, values, predefinedHandle }: HiveKey): void {
    const twice = findDuplicate(values);
    if (twice !== undefined) throw new Error(`write hive: key ${name} has two values ${twice}`);
    if (predefinedHandle !== undefined && values.length > 0)
      throw new Error(`write hive: key ${name} has values and a predefined handle`);
    node.writeUInt32LE(predefinedHandle ?? values.length, KeyField.valueCount);
    node.writeUInt32LE(NOWHERE, KeyField.valueList);
    node.writeUInt32LE(
      largest(values, (value) => value.name.length * 2),
      KeyField.largestValueName,
    );
    node.writeUInt32LE(
      largest(values, (value) => value.data.length),
      KeyField.largestValueData,
    );
    if (values.length === 0) return;
    const list = this.#writeOffsets(values.map((value) => this.#writeValue(value)));
    node.writeUInt32LE(list, KeyField.valueList);
  }

  #writeSubkeys(node: Buffer, key: HiveKey, offset: number, depth: number): void {
    const twice = findDuplicate(key.subkeys);
    if (twice !== undefined) throw new Error(`write hive: key ${key.name} has two subkeys ${twice}`);
    const subkeys = sortByName(key.subkeys);
    node.writeUInt32LE(subkeys.length, KeyField.subkeyCount);
    node.writeUInt32LE(NOWHERE, KeyField.subkeyList);
    node.writeUInt16LE(
      largest(subkeys, (subkey) => subkey.name.length * 2),
      KeyField.largestSubkeyName,
    );
    node.writeUInt32LE(
      largest(subkeys, (subkey) => (subkey.className?.length ?? 0) * 2),
      KeyField.largestSubkeyClass,
    );
    if (subkeys.length === 0) return;
    const entries = subkeys.map((subkey) => ({
      offset: this.#writeKey(subkey, offset, depth + 1),
      hash: hashName(subkey.name),
    }));
    node.writeUInt32LE(this.#writeSubkeyList(entries), KeyField.subkeyList);
  }

  #writeSubkeyList(entries: { offset: number; hash: number }[]): number {
    const leaves: number[] = [];
    for (let first = 0; first < entries.length; first += MAX_LEAF_ENTRIES) {
      const part = entries.slice(first, first + MAX_LEAF_ENTRIES);
      const { offset, bytes } = this.#allocateList('lh', part.length, 8);
      part.forEach((entry, i) => {
        bytes.writeUInt32LE(entry.offset, LIST_HEADER_SIZE + i * 8);
        bytes.writeUInt32LE(entry.hash, LIST_HEADER_SIZE + i * 8 + 4);
      });
      leaves.push(offset);
    }
    if (leaves.length === 1) return leaves[0] ?? NOWHERE;
    const { offset, bytes } = this.#allocateList('ri', leaves.length, OFFSET_SIZE);
    leaves.forEach((leaf, i) => {
      bytes.writeUInt32LE(leaf, LIST_HEADER_SIZE + i * OFFSET_SIZE);
    });
    return offset;
  }

  #allocateList(signature: string, count: number, entrySize: number): NewCell {
    const cell = this.#cells.allocate(LIST_HEADER_SIZE + count * entrySize);
    cell.bytes.write(signature, 0, 'latin1');
    cell.bytes.writeUInt16LE(count, 2);
    return cell;
  }

  #writeValue(value: HiveValue): number {
    if (value.name.length > MAX_VALUE_NAME)
      throw new Error(`write hive: a value's name cannot have ${value.name.length} characters`);
    const name = encodeName(value.name);
    const { offset, bytes } = this.#cells.allocate(KEY_VALUE_SIZE + name.bytes.length);
    const flags =
      (name.compressed ? ValueFlag.compressedName : 0) | (value.tombstone ? ValueFlag.tombstone : 0);
    if (value.tombstone) this.hasLayers = true;
    bytes.write('vk', 0, 'latin1');
    bytes.writeUInt16LE(name.bytes.length, ValueField.nameLength);
    bytes.writeUInt32LE(value.type, ValueField.type);
    bytes.writeUInt16LE(flags, ValueField.flags);
    name.bytes.copy(bytes, KEY_VALUE_SIZE);
    this.#writeData(bytes, value);
    return offset;
  }

  #writeData(record: Buffer, { data, tombstone }: HiveValue): void {
    if (data.length === 0 && tombstone) {
      record.writeUInt32LE(NOWHERE, ValueField.dataOffset);
    } else if (data.length <= INLINE_SIZE) {
      record.writeUInt32LE(INLINE_BIT + data.length, ValueField.dataSize);
      data.copy(record, ValueField.dataOffset);
    } else {
      record.writeUInt32LE(data.length, ValueField.dataSize);
      const offset = data.length <= SEGMENT_SIZE ? this.#writeBytes(data) : this.#writeSegments(data);
      record.writeUInt32LE(offset, ValueField.dataOffset);
    }
  }

  #writeSegments(data: Buffer): number {
    const { offset, bytes } = this.#cells.allocate(BIG_DATA_SIZE);
    const segments: number[] = [];
    for (let at = 0; at < data.length; at += SEGMENT_SIZE) {
      // The last segment gets a whole cell too: Windows does so, and readers depend on it.
      const segment = this.#cells.allocate(SEGMENT_SIZE);
      data.copy(segment.bytes, 0, at);
      segments.push(segment.offset);
    }
    if (segments.length > 0xffff) throw new Error(`write hive: a value cannot have ${data.length} bytes`);
    bytes.write('db', 0, 'latin1');
    bytes.writeUInt16LE(segments.length, 2);
    bytes.writeUInt32LE(this.#writeOffsets(segments), 4);
    return offset;
  }

  #writeOffsets(offsets: number[]): number {
    const { offset, bytes } = this.#cells.allocate(offsets.length * OFFSET_SIZE);
    offsets.forEach((entry, i) => {
      bytes.writeUInt32LE(entry, i * OFFSET_SIZE);
    });
    return offset;
  }

  #writeBytes(contents: Buffer): number {
    const { offset, bytes } = this.#cells.allocate(contents.length);
    contents.copy(bytes);
    return offset;
  }

  /** The offset of the descriptor's cell, which all keys with the same descriptor share. */
  #placeSecurity(descriptor: Buffer | undefined): number {
    if (descriptor === undefined) return NOWHERE;
    let cell = this.#securityByBuffer.get(descriptor);
    if (cell === undefined) {
      const content = descriptor.toString('latin1');
      cell = this.#securityByContent.get(content) ?? this.#writeSecurity(descriptor);
      this.#securityByContent.set(content, cell);
      this.#securityByBuffer.set(descriptor, cell);
    }
    cell.keys++;
    return cell.offset;
  }

  #writeSecurity(descriptor: Buffer): SecurityCell {
    const cell = this.#cells.allocate(KEY_SECURITY_SIZE + descriptor.length);
    cell.bytes.write('sk', 0, 'latin1');
    cell.bytes.writeUInt32LE(descriptor.length, SecurityField.size);
    descriptor.copy(cell.bytes, KEY_SECURITY_SIZE);
    return { ...cell, keys: 0 };
  }

  /** Closes the ring of descriptors and writes how many keys use each. */
  #linkSecurity(): void {
    const ring = [...this.#securityByContent.values()];
    ring.forEach((cell, i) => {
      const next = ring[(i + 1) % ring.length] ?? cell;
      const previous = ring[(i + ring.length - 1) % ring.length] ?? cell;
      cell.bytes.writeUInt32LE(next.offset, SecurityField.next);
      cell.bytes.writeUInt32LE(previous.offset, SecurityField.previous);
      cell.bytes.writeUInt32LE(cell.keys, SecurityField.referenceCount);
    });
  }
}

function largest<T>(items: readonly T[], measure: (item: T) => number): number {
  return items.reduce((most, item) => Math.max(most, measure(item)), 0);
}
