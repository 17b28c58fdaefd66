/** Extended attributes. Source: kernel documentation, "Extended Attributes" (Documentation/filesystems/ext4/attributes.rst). */

import { loadAcl, storeAcl } from './acl.ts';
import { BLOCK_SIZE, INODE_SIZE, INODE_XATTRS_AT } from './format.ts';

const MAGIC = 0xea020000;
const BLOCK_HEADER = 32;
const ENTRY = 16;
const IN_INODE = INODE_SIZE - INODE_XATTRS_AT;
/** The magic number, and four bytes of zeros that end the entries. */
const INODE_OVERHEAD = 8;
const BLOCK_OVERHEAD = BLOCK_HEADER + 4;

/** A name with its prefix, as `user.x`, as a byte string. */
export interface Xattr {
  name: string;
  value: Buffer;
}

/** What a name's prefix is stored as. The names of ACLs are prefixes with nothing behind. */
const PREFIXES: readonly [prefix: string, index: number][] = [
  ['system.posix_acl_access', 2],
  ['system.posix_acl_default', 3],
  ['user.', 1],
  ['trusted.', 4],
  ['security.', 6],
];
const SYSTEM = 7;
const ACLS = [2, 3];

interface Stored {
  index: number;
  name: string;
  value: Buffer;
}

/** Why an attribute can't be stored at all: `namespace` is one that Linux shows to nobody. */
export type XattrFault = 'namespace' | 'not an ACL' | 'name too long' | 'too large';

export interface EncodedXattrs {
  inode: Buffer | undefined;
  block: Buffer | undefined;
}

/** Room for inline data in an inode beside its first 60 bytes. */
export const MAX_INLINE_REST = IN_INODE - INODE_OVERHEAD - ENTRY - 4;

/** Says why an attribute by itself can't be stored; undefined when it can. */
export function xattrFault({ name, value }: Xattr): XattrFault | undefined {
  const stored = toStored({ name, value });
  if (typeof stored === 'string') return stored;
  if (stored.name.length > 255) return 'name too long';
  return sizeOf(stored) > BLOCK_SIZE - BLOCK_OVERHEAD ? 'too large' : undefined;
}

/**
 * Encodes attributes, each of which can be stored: into the inode what fits there, the rest into a block. `inlineData` is the part of a file's
 * data behind the first 60 bytes. Undefined when they are too many for one block.
 */
export function encodeXattrs(xattrs: readonly Xattr[], inlineData?: Buffer): EncodedXattrs | undefined {
  const inInode: Stored[] = [];
  const inBlock: Stored[] = [];
  let inodeLeft = IN_INODE - INODE_OVERHEAD;
  let blockLeft = BLOCK_SIZE - BLOCK_OVERHEAD;
  const all = xattrs.flatMap((xattr): Stored[] => {
    const stored = toStored(xattr);
    return typeof stored === 'string' ? [] : [stored];
  });
  all.sort(inOrder);
  if (inlineData !== undefined) all.unshift({ index: SYSTEM, name: 'data', value: inlineData });
  for (const stored of all) {
    const size = sizeOf(stored);
    if (size <= inodeLeft) {
      inInode.push(stored);
      inodeLeft -= size;
    } else if (size <= blockLeft) {
      inBlock.push(stored);
      blockLeft -= size;
    } else return undefined;
  }
  return {
    inode: inInode.length === 0 ? undefined : encodeInInode(inInode),
    block: inBlock.length === 0 ? undefined : encodeBlock(inBlock),
  };
}

/** The order that the kernel's look-up in a block relies on. */
function inOrder(a: Stored, b: Stored): number {
  return (
    a.index - b.index || a.name.length - b.name.length || (a.name < b.name ? -1 : a.name > b.name ? 1 : 0)
  );
}

function toStored({ name, value }: Xattr): Stored | XattrFault {
  const found = PREFIXES.find(([prefix]) =>
    prefix.endsWith('.') ? name.startsWith(prefix) && name.length > prefix.length : name === prefix,
  );
  if (found === undefined) return 'namespace';
  const [prefix, index] = found;
  const stored = ACLS.includes(index) ? storeAcl(value) : value;
  return stored === undefined ? 'not an ACL' : { index, name: name.slice(prefix.length), value: stored };
}

function encodeInInode(list: readonly Stored[]): Buffer {
  const bytes = Buffer.alloc(IN_INODE);
  bytes.writeUInt32LE(MAGIC, 0);
  // Offsets of values count from behind the magic number.
  putEntries(bytes.subarray(4), 0, list);
  return bytes;
}

function encodeBlock(list: readonly Stored[]): Buffer {
  const bytes = Buffer.alloc(BLOCK_SIZE);
  bytes.writeUInt32LE(MAGIC, 0);
  bytes.writeUInt32LE(1, 4); // references
  bytes.writeUInt32LE(1, 8); // blocks
  putEntries(bytes, BLOCK_HEADER, list);
  return bytes;
}

/** Entries from `start` on, values from the end. */
function putEntries(bytes: Buffer, start: number, list: readonly Stored[]): void {
  let at = start;
  let valueAt = bytes.length;
  for (const { index, name, value } of list) {
    valueAt -= padded(value.length);
    bytes.writeUInt8(name.length, at);
    bytes.writeUInt8(index, at + 1);
    bytes.writeUInt16LE(value.length === 0 ? 0 : valueAt, at + 2);
    bytes.writeUInt32LE(value.length, at + 8);
    bytes.write(name, at + ENTRY, 'latin1');
    value.copy(bytes, valueAt);
    bytes.writeUInt32LE(hashOf(name, bytes.subarray(valueAt, valueAt + padded(value.length))), at + 12);
    at += ENTRY + padded(name.length);
  }
}

function padded(length: number): number {
  return (length + 3) & ~3;
}

function sizeOf({ name, value }: Stored): number {
  return ENTRY + padded(name.length) + padded(value.length);
}

/** `value` with its padding. */
function hashOf(name: string, value: Buffer): number {
  let hash = 0;
  for (let at = 0; at < name.length; at++) hash = (hash << 5) ^ (hash >>> 27) ^ name.charCodeAt(at);
  for (let at = 0; at < value.length; at += 4) hash = (hash << 16) ^ (hash >>> 16) ^ value.readUInt32LE(at);
  return hash >>> 0;
}

export interface DecodedXattrs {
  xattrs: Xattr[];
  /** The part of inline data that isn't in the inode's first 60 bytes. */
  inlineData: Buffer | undefined;
}

/** Reads attributes from the rest of an inode record and from a block. `fail` must throw; it is told which of both is malformed, and how. */
export function decodeXattrs(
  inode: Uint8Array | undefined,
  block: Buffer | undefined,
  fail: (place: 'inode' | 'block', message: string) => never,
): DecodedXattrs {
  const result: DecodedXattrs = { xattrs: [], inlineData: undefined };
  if (inode !== undefined && inode.length > 4) {
    const bytes = Buffer.from(inode.buffer, inode.byteOffset, inode.byteLength);
    if (bytes.readUInt32LE(0) === MAGIC)
      getEntries(bytes.subarray(4), 0, result, (message) => fail('inode', message));
  }
  if (block !== undefined) {
    if (block.readUInt32LE(0) !== MAGIC) fail('block', 'a block of extended attributes has no magic number');
    getEntries(block, BLOCK_HEADER, result, (message) => fail('block', message));
  }
  return result;
}

function getEntries(
  bytes: Buffer,
  start: number,
  result: DecodedXattrs,
  fail: (message: string) => never,
): void {
  let total = 0;
  for (let at = start; at + 4 <= bytes.length && bytes.readUInt32LE(at) !== 0; ) {
    const nameLength = bytes.readUInt8(at);
    const nameAt = at + ENTRY;
    if (nameAt + nameLength > bytes.length) fail('an extended attribute goes beyond its end');
    const offset = bytes.readUInt16LE(at + 2);
    const size = bytes.readUInt32LE(at + 8);
    if (bytes.readUInt32LE(at + 4) !== 0) fail('an extended attribute has its value in an inode of its own');
    total += size;
    if (total > bytes.length) fail('the values of extended attributes overlap');
    if (offset + size > bytes.length) fail(`an extended attribute's value of ${size} bytes doesn't fit`);
    const index = bytes.readUInt8(at + 1);
    const name = bytes.toString('latin1', nameAt, nameAt + nameLength);
    const value = Buffer.from(bytes.subarray(offset, offset + size));
    at = nameAt + padded(nameLength);
    if (index === SYSTEM && name === 'data') {
      result.inlineData = value;
      continue;
    }
    const prefix = PREFIXES.find(([, each]) => each === index)?.[0];
    if (prefix === undefined) continue;
    const plain = ACLS.includes(index) ? loadAcl(value) : value;
    if (plain === undefined) fail('a stored ACL is malformed');
    result.xattrs.push({ name: prefix + name, value: plain });
  }
}
