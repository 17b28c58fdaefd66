/**
 * The index of a large directory: which leaf has which hashes. Sources: kernel documentation, "Hash Tree Directories"
 * (Documentation/filesystems/ext4/directory.rst), and for the hash fs/ext4/hash.c: half of MD4, of unsigned characters, with its default seed.
 */

import { CimletError } from '../errors.ts';
import { BLOCK_SIZE } from './format.ts';

export const HALF_MD4 = 1;

const ROOT_HEADER = 32;
const NODE_HEADER = 8;
const ENTRY = 8;
const ROOT_ENTRIES = (BLOCK_SIZE - ROOT_HEADER) / ENTRY;
const NODE_ENTRIES = (BLOCK_SIZE - NODE_HEADER) / ENTRY;
/** The last hash is the one that ends a listing. */
const END = 0xfffffffe;

/**
 * Encodes the blocks of an index over leaves that follow it, the root first. What lies around them (the root's `.` and `..`, the entry that
 * hides a node) is the caller's to fill in.
 */
export function* encodeIndex(
  leaves: readonly { hash: number }[],
): Generator<{ bytes: Buffer; isRoot: boolean }> {
  const nodes = leaves.length > ROOT_ENTRIES ? Math.ceil(leaves.length / NODE_ENTRIES) : 0;
  if (nodes > ROOT_ENTRIES)
    throw new CimletError(
      'corrupt',
      `write ext4: a directory has more than ${ROOT_ENTRIES * NODE_ENTRIES} blocks`,
    );
  const firstLeaf = 1 + nodes;
  const hashOf = (leaf: number): number => leaves[leaf]?.hash ?? 0;
  const root = Buffer.alloc(BLOCK_SIZE);
  root.writeUInt8(HALF_MD4, 28);
  root.writeUInt8(8, 29); // length of these eight bytes
  root.writeUInt8(nodes > 0 ? 1 : 0, 30); // levels below
  if (nodes === 0)
    putEntries(root, ROOT_HEADER, ROOT_ENTRIES, leaves.length, (index) => [hashOf(index), firstLeaf + index]);
  else
    putEntries(root, ROOT_HEADER, ROOT_ENTRIES, nodes, (index) => [hashOf(index * NODE_ENTRIES), 1 + index]);
  yield { bytes: root, isRoot: true };
  for (let node = 0; node < nodes; node++) {
    const bytes = Buffer.alloc(BLOCK_SIZE);
    const first = node * NODE_ENTRIES;
    const count = Math.min(NODE_ENTRIES, leaves.length - first);
    putEntries(bytes, NODE_HEADER, NODE_ENTRIES, count, (index) => [
      hashOf(first + index),
      firstLeaf + first + index,
    ]);
    yield { bytes, isRoot: false };
  }
}

/** The first entry's hash is always 0; limit and count are in its place. */
function putEntries(
  bytes: Buffer,
  start: number,
  limit: number,
  count: number,
  entry: (index: number) => readonly [hash: number, block: number],
): void {
  for (let index = 0; index < count; index++) {
    const [hash, block] = entry(index);
    bytes.writeUInt32LE(hash, start + index * ENTRY);
    bytes.writeUInt32LE(block, start + index * ENTRY + 4);
  }
  bytes.writeUInt16LE(limit, start);
  bytes.writeUInt16LE(count, start + 2);
}

export interface IndexVisitor {
  /** A block of the directory, by its number in it. */
  read(block: number): Buffer;
  /** Says what is wrong; must throw. */
  fail(message: string): never;
}

/** The numbers of the leaves that may have a name of that hash; undefined for an index of another kind than `encodeIndex` makes. */
export function findLeaves(hash: number, visitor: IndexVisitor): Iterable<number> | undefined {
  const root = visitor.read(0);
  const levels = root.readUInt8(30);
  if (root.readUInt8(28) !== HALF_MD4 || root.readUInt8(29) !== 8 || levels > 1) return undefined;
  return leavesBelow(root, ROOT_HEADER, levels, hash, visitor);
}

function* leavesBelow(
  node: Buffer,
  start: number,
  levels: number,
  hash: number,
  visitor: IndexVisitor,
): Generator<number> {
  const count = node.readUInt16LE(start + 2);
  if (count === 0 || start + count * ENTRY > node.length)
    visitor.fail(`a block of its index has ${count} entries`);
  const hashAt = (index: number): number => node.readUInt32LE(start + index * ENTRY);
  let index = 0;
  while (index + 1 < count && hashAt(index + 1) <= hash) index++;
  // The lowest bit of a hash says that what is before has entries of it, too.
  do {
    const block = node.readUInt32LE(start + index * ENTRY + 4);
    if (levels === 0) yield block;
    else yield* leavesBelow(visitor.read(block), NODE_HEADER, levels - 1, hash, visitor);
    index++;
  } while (index < count && hashAt(index) === hash + 1);
}

/** The hash by which a name is found, which is at `from` to `to` of `bytes`; its lowest bit is 0. */
export function hashName(bytes: Uint8Array, from: number, to: number): number {
  STATE.set(INITIAL);
  for (let at = from; at < to; at += 32) {
    fillWords(bytes, at, to);
    transform();
  }
  const hash = ((STATE[1] as number) & ~1) >>> 0;
  return hash === END ? END - 2 : hash;
}

// Reused: there are millions of names.
const STATE = new Int32Array(4);
const WORDS = new Int32Array(8);
const INITIAL = Int32Array.of(0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476);

/** Eight words of a name from `from` on, filled up with the length of what is left of it. */
function fillWords(bytes: Uint8Array, from: number, to: number): void {
  const padding = Math.imul((to - from) & 0xff, 0x01010101);
  for (let word = 0; word < 8; word++) {
    let value = padding;
    const end = Math.min(from + word * 4 + 4, to);
    for (let at = from + word * 4; at < end; at++) value = (value << 8) + (bytes[at] as number);
    WORDS[word] = value;
  }
}

const SHIFTS = [3, 7, 11, 19, 3, 5, 9, 13, 3, 9, 11, 15] as const;
const ORDER = [0, 1, 2, 3, 4, 5, 6, 7, 1, 3, 5, 7, 0, 2, 4, 6, 3, 7, 2, 6, 1, 5, 0, 4] as const;

/** Three rounds of eight steps. */
function transform(): void {
  let [a = 0, b = 0, c = 0, d = 0] = [STATE[0], STATE[1], STATE[2], STATE[3]];
  for (let step = 0; step < 24; step++) {
    const round = step >> 3;
    const mixed =
      round === 0
        ? d ^ (b & (c ^ d))
        : round === 1
          ? (b & c) + ((b ^ c) & d) + 0x5a827999
          : (b ^ c ^ d) + 0x6ed9eba1;
    const sum = (a + mixed + (WORDS[ORDER[step] as number] as number)) | 0;
    const shift = SHIFTS[round * 4 + (step & 3)] as number;
    a = d;
    d = c;
    c = b;
    b = (sum << shift) | (sum >>> (32 - shift));
  }
  STATE[0] = (STATE[0] as number) + a;
  STATE[1] = (STATE[1] as number) + b;
  STATE[2] = (STATE[2] as number) + c;
  STATE[3] = (STATE[3] as number) + d;
}
