/** Blocks of directory entries. Source: kernel documentation, "Directory Entries" (Documentation/filesystems/ext4/directory.rst). */

import { BLOCK_SIZE, EntryType, MAX_NAME } from './format.ts';
import { encodeIndex, hashName } from './hash-tree.ts';

const HEADER = 8;
/** `.` and `..` */
const DOTS = 24;

/** What a directory holds beside `.` and `..`. Names are bytes. */
export interface DirectoryContent {
  inode: number;
  parent: number;
  count: number;
  nameLength(index: number): number;
  /** Puts a name at `at` of `target`. */
  copyName(index: number, target: Buffer, at: number): void;
  target(index: number): number;
  /** One of EntryType. */
  type(index: number): number;
}

/**
 * The blocks of a directory, in order: one block as it is, more than one as leaves below an index by hash. Each is good until the next, and
 * may be in `scratch`.
 */
export function* encodeDirectory(content: DirectoryContent, scratch: Buffer): Generator<Buffer> {
  let bytes = DOTS;
  for (let index = 0; index < content.count; index++) bytes += entrySize(content.nameLength(index));
  if (bytes <= BLOCK_SIZE) {
    const block = scratch.fill(0);
    const second = putDot(block, 0, content.inode, '.');
    let [last, at] = [second, putDot(block, second, content.parent, '..')];
    for (let index = 0; index < content.count; index++)
      [last, at] = [at, putEntry(block, at, content, index)];
    block.writeUInt16LE(BLOCK_SIZE - last, last + 4);
    yield block;
    return;
  }
  yield* encodeHashed(content, scratch);
}

export function isHashed(blocks: number): boolean {
  return blocks > 1;
}

function* encodeHashed(content: DirectoryContent, scratch: Buffer): Generator<Buffer> {
  const order = inHashOrder(content);
  const leaves = divideIntoLeaves(content, order);
  for (const block of encodeIndex(leaves)) {
    if (block.isRoot) {
      const second = putDot(block.bytes, 0, content.inode, '.');
      putDot(block.bytes, second, content.parent, '..');
      block.bytes.writeUInt16LE(BLOCK_SIZE - second, second + 4);
    } else block.bytes.writeUInt16LE(BLOCK_SIZE, 4);
    yield block.bytes;
  }
  for (const [number, { first }] of leaves.entries()) {
    const block = scratch.fill(0);
    const end = leaves[number + 1]?.first ?? order.length;
    let [last, at] = [0, 0];
    for (let place = first; place < end; place++)
      [last, at] = [at, putEntry(block, at, content, order.index(place))];
    block.writeUInt16LE(BLOCK_SIZE - last, last + 4);
    yield block;
  }
}

/** Entries sorted by hash, those of one hash by their number. */
interface HashOrder {
  length: number;
  hash(place: number): number;
  index(place: number): number;
}

function inHashOrder(content: DirectoryContent): HashOrder {
  // A hash's lowest bit is always 0, so that both fit into a number exactly.
  const keys = new Float64Array(content.count);
  const scale = 2 ** 22;
  if (content.count > scale) throw new RangeError(`a directory of ${content.count} entries`);
  const name = Buffer.alloc(MAX_NAME);
  for (let index = 0; index < content.count; index++) {
    content.copyName(index, name, 0);
    keys[index] = (hashName(name, 0, content.nameLength(index)) / 2) * scale + index;
  }
  keys.sort();
  return {
    length: keys.length,
    hash: (place) => Math.floor((keys[place] as number) / scale) * 2,
    index: (place) => (keys[place] as number) % scale,
  };
}

function divideIntoLeaves(content: DirectoryContent, order: HashOrder): { first: number; hash: number }[] {
  const leaves: { first: number; hash: number }[] = [];
  let left = 0;
  for (let place = 0; place < order.length; place++) {
    const size = entrySize(content.nameLength(order.index(place)));
    if (size > left) {
      const hash = order.hash(place);
      // The lowest bit says that the leaf before has entries of this hash, too.
      const continues = place > 0 && order.hash(place - 1) === hash;
      leaves.push({ first: place, hash: continues ? hash + 1 : hash });
      left = BLOCK_SIZE;
    }
    left -= size;
  }
  return leaves;
}

function entrySize(nameLength: number): number {
  return HEADER + ((nameLength + 3) & ~3);
}

function putDot(block: Buffer, at: number, inode: number, name: '.' | '..'): number {
  block.writeUInt32LE(inode, at);
  block.writeUInt16LE(12, at + 4);
  block.writeUInt8(name.length, at + 6);
  block.writeUInt8(EntryType.directory, at + 7);
  block.write(name, at + HEADER, 'latin1');
  return at + 12;
}

/** Returns where the next one goes. */
function putEntry(block: Buffer, at: number, content: DirectoryContent, index: number): number {
  const length = content.nameLength(index);
  const size = entrySize(length);
  block.writeUInt32LE(content.target(index), at);
  block.writeUInt16LE(size, at + 4);
  block.writeUInt8(length, at + 6);
  block.writeUInt8(content.type(index), at + 7);
  content.copyName(index, block, at + HEADER);
  return at + size;
}

export interface StoredEntry {
  /** A byte string. */
  name: string;
  inode: number;
  /** One of EntryType; 0 where the image doesn't say. */
  type: number;
}

/**
 * The entries of one block, `.` and `..` too. Blocks of a hash index look like blocks of unused entries, so that a directory can be read
 * without it. `fail` must throw; it is told the offset in the block.
 */
export function* decodeEntries(
  block: Buffer,
  fail: (offset: number, message: string) => never,
): Generator<StoredEntry> {
  for (let at = 0; at < block.length; ) {
    if (at + HEADER > block.length) fail(at, 'a directory entry goes beyond its block');
    const inode = block.readUInt32LE(at);
    let length = block.readUInt16LE(at + 4);
    if (length === 0 || length === 0xffff) length = 65_536;
    const nameLength = block.readUInt8(at + 6);
    if (length % 4 !== 0 || length < HEADER || at + length > block.length)
      fail(at, `a directory entry of ${length} bytes doesn't fit`);
    if (inode !== 0) {
      if (HEADER + nameLength > length) fail(at, 'the name in a directory entry is longer than the entry');
      yield {
        name: block.toString('latin1', at + HEADER, at + HEADER + nameLength),
        inode,
        type: block.readUInt8(at + 7),
      };
    }
    at += length;
  }
}
