/**
 * Extents: which blocks of a file are where. Source: kernel documentation, "Extent Tree"
 * (Documentation/filesystems/ext4/ifork.rst).
 */

import { BLOCK_SIZE } from './format.ts';

const MAGIC = 0xf30a;
const HEADER = 12;
const ENTRY = 12;
const ROOT_ENTRIES = 4;
const NODE_ENTRIES = Math.floor((BLOCK_SIZE - HEADER) / ENTRY);
/** An extent of more blocks is one that reads as zeros. */
const MAX_EXTENT = 32_768;
const MAX_DEPTH = 5;

/** Blocks of a file that lie together; `logical` is the first one's number in the file. */
export interface Extent {
  logical: number;
  physical: number;
  count: number;
}

/** The extents of one file, in order, as triples of numbers. */
export class ExtentList {
  readonly #triples: number[] = [];

  get length(): number {
    return this.#triples.length / 3;
  }

  add(logical: number, physical: number, count: number): void {
    const last = this.#triples.length - 3;
    const [at = -1, place = -1, length = 0] = this.#triples.slice(last);
    if (last >= 0 && at + length === logical && place + length === physical)
      this.#triples[last + 2] = length + count;
    else this.#triples.push(logical, physical, count);
  }

  clear(): void {
    this.#triples.length = 0;
  }

  /** None with more blocks than an extent on disk may have. */
  *[Symbol.iterator](): Generator<Extent> {
    for (let at = 0; at < this.#triples.length; at += 3) {
      const [logical = 0, physical = 0, count = 0] = this.#triples.slice(at, at + 3);
      for (let done = 0; done < count; done += MAX_EXTENT)
        yield {
          logical: logical + done,
          physical: physical + done,
          count: Math.min(MAX_EXTENT, count - done),
        };
    }
  }
}

/**
 * Encodes extents: the root of their tree into `root`, an inode's 60 bytes; nodes that don't fit there go to `append`, which says where they are.
 * Returns how many.
 */
export function writeExtents(
  extents: Iterable<Extent>,
  root: Buffer,
  append: (node: Buffer) => number,
): number {
  let treeBlocks = 0;
  let depth = 0;
  let entries = extents;
  for (; !fitsRoot(entries); depth++) {
    const above: Extent[] = [];
    for (const children of inGroups(entries, NODE_ENTRIES)) {
      const physical = append(encodeNode(children, NODE_ENTRIES, depth, Buffer.alloc(BLOCK_SIZE)));
      treeBlocks++;
      above.push({ logical: children[0]?.logical ?? 0, physical, count: 0 });
    }
    entries = above;
  }
  encodeNode([...entries], ROOT_ENTRIES, depth, root.fill(0));
  return treeBlocks;
}

function fitsRoot(entries: Iterable<Extent>): boolean {
  let count = 0;
  for (const _entry of entries) if (++count > ROOT_ENTRIES) return false;
  return true;
}

function* inGroups(entries: Iterable<Extent>, size: number): Generator<Extent[]> {
  let group: Extent[] = [];
  for (const entry of entries) {
    group.push(entry);
    if (group.length < size) continue;
    yield group;
    group = [];
  }
  if (group.length > 0) yield group;
}

function encodeNode(entries: readonly Extent[], max: number, depth: number, node: Buffer): Buffer {
  node.writeUInt16LE(MAGIC, 0);
  node.writeUInt16LE(entries.length, 2);
  node.writeUInt16LE(max, 4);
  node.writeUInt16LE(depth, 6);
  for (const [index, { logical, physical, count }] of entries.entries()) {
    const at = HEADER + index * ENTRY;
    node.writeUInt32LE(logical, at);
    if (depth === 0) node.writeUInt16LE(count, at + 4);
    node.writeUInt32LE(physical, at + (depth === 0 ? 8 : 4));
  }
  return node;
}

export interface ExtentVisitor {
  /** A node of the tree. */
  read(block: number): Buffer;
  /** Says what is wrong; must throw. */
  fail(message: string): never;
  /** Told of each node below the root before it is read. */
  onNode?(block: number): void;
}

/** Reads the extents of a tree in order. Uninitialised ones, which read as zeros, are left out. */
export function* readExtents(root: Buffer, visitor: ExtentVisitor): Generator<Extent> {
  let position = 0;
  function* node(bytes: Buffer, depth: number | undefined): Generator<Extent> {
    const stored = bytes.readUInt16LE(6);
    const count = bytes.readUInt16LE(2);
    if (bytes.readUInt16LE(0) !== MAGIC) visitor.fail('a node of the extent tree has no magic number');
    if (stored > MAX_DEPTH || (depth !== undefined && stored !== depth))
      visitor.fail(`a node of the extent tree is of depth ${stored}`);
    if (HEADER + count * ENTRY > bytes.length)
      visitor.fail(`a node of the extent tree has ${count} entries, which don't fit`);
    if (count === 0 && depth !== undefined) visitor.fail('a node of the extent tree is empty');
    for (let at = HEADER; at < HEADER + count * ENTRY; at += ENTRY) {
      const logical = bytes.readUInt32LE(at);
      if (stored > 0) {
        const block = bytes.readUInt32LE(at + 4) + bytes.readUInt16LE(at + 8) * 2 ** 32;
        visitor.onNode?.(block);
        yield* node(visitor.read(block), stored - 1);
        continue;
      }
      const length = bytes.readUInt16LE(at + 4);
      const physical = bytes.readUInt32LE(at + 8) + bytes.readUInt16LE(at + 6) * 2 ** 32;
      if (length === 0) visitor.fail('an extent has no blocks');
      if (logical < position) visitor.fail('the extents are not in order');
      position = logical + (length > MAX_EXTENT ? length - MAX_EXTENT : length);
      if (length <= MAX_EXTENT) yield { logical, physical, count: length };
    }
  }
  yield* node(root, undefined);
}
