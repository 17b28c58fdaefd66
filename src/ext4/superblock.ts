/** The superblock. Source: kernel documentation, "Super Block" (Documentation/filesystems/ext4/super.rst). */

import {
  BLOCKS_PER_GROUP,
  Compat,
  DESCRIPTOR_SIZE,
  EXTRA_ISIZE,
  FIRST_INODE,
  INODE_SIZE,
  Incompat,
  LOST_AND_FOUND,
  ReadOnlyCompat,
} from './format.ts';
import { HALF_MD4 } from './hash-tree.ts';

export const SUPERBLOCK_AT = 1024;
export const SUPERBLOCK_SIZE = 1024;
export const MAGIC = 0xef53;

const CLEAN = 1;
const CONTINUE_AFTER_ERRORS = 1;
const DYNAMIC_REVISION = 1;
/** Blocks of 4 KiB: 2 to the power of 10 + 2. */
const LOG_BLOCK_SIZE = 2;
const UNSIGNED_HASH = 2;
const LOG_GROUPS_PER_FLEX = 4;

/** What differs between the images written here. */
export interface Superblock {
  inodes: number;
  blocks: number;
  freeBlocks: number;
  freeInodes: number;
  inodesPerGroup: number;
  uuid: Buffer;
  inlineData: boolean;
  /** Of a file system that is written to; without it, it says that it is only ever read. */
  journal?: { inode: number; extents: Uint8Array; size: number } | undefined;
}

export function encodeSuperblock(superblock: Superblock): Buffer {
  const bytes = Buffer.alloc(SUPERBLOCK_SIZE);
  const u32 = (at: number, value: number) => bytes.writeUInt32LE(value, at);
  const u16 = (at: number, value: number) => bytes.writeUInt16LE(value, at);
  u32(0x00, superblock.inodes);
  u32(0x04, superblock.blocks);
  u32(0x0c, superblock.freeBlocks);
  u32(0x10, superblock.freeInodes);
  u32(0x18, LOG_BLOCK_SIZE);
  u32(0x1c, LOG_BLOCK_SIZE); // of clusters
  u32(0x20, BLOCKS_PER_GROUP);
  u32(0x24, BLOCKS_PER_GROUP); // in clusters
  u32(0x28, superblock.inodesPerGroup);
  u16(0x36, 0xffff); // mounts between checks: any number
  u16(0x38, MAGIC);
  u16(0x3a, CLEAN);
  u16(0x3c, CONTINUE_AFTER_ERRORS);
  u32(0x4c, DYNAMIC_REVISION);
  u32(0x54, FIRST_INODE);
  u16(0x58, INODE_SIZE);
  const { journal } = superblock;
  u32(
    0x5c,
    Compat.extendedAttributes |
      Compat.directoryIndex |
      Compat.sparseSuper2 |
      (journal === undefined ? 0 : Compat.journal),
  );
  u32(
    0x60,
    Incompat.fileType |
      Incompat.extents |
      Incompat.flexGroups |
      (superblock.inlineData ? Incompat.inlineData : 0) |
      (journal === undefined ? 0 : Incompat.xattrInodes),
  );
  u32(
    0x64,
    ReadOnlyCompat.largeFile |
      ReadOnlyCompat.directoryLinks |
      ReadOnlyCompat.extraInodeSize |
      (journal === undefined ? ReadOnlyCompat.readOnly : 0),
  );
  superblock.uuid.copy(bytes, 0x68);
  bytes.writeUInt8(HALF_MD4, 0xfc);
  u16(0x15c, EXTRA_ISIZE);
  u16(0x15e, EXTRA_ISIZE);
  u32(0x160, UNSIGNED_HASH);
  bytes.writeUInt8(LOG_GROUPS_PER_FLEX, 0x174);
  u32(0x268, LOST_AND_FOUND);
  if (journal !== undefined) {
    u32(0xe0, journal.inode);
    // A copy of the journal's inode, for repairs.
    bytes.writeUInt8(1, 0xfd);
    bytes.set(journal.extents, 0x10c);
    u32(0x148, Math.floor(journal.size / 2 ** 32));
    u32(0x14c, journal.size % 2 ** 32);
  }
  return bytes;
}

/** What a reader needs to know of a file system that anybody may have made. */
export interface FoundSuperblock {
  blockSize: number;
  blocks: number;
  inodes: number;
  firstDataBlock: number;
  blocksPerGroup: number;
  inodesPerGroup: number;
  inodeSize: number;
  descriptorSize: number;
  /** Lower case with dashes. */
  uuid: string;
  label: string;
  /** Names are hashed as `hashName` does, if by half of MD4. */
  hashesAsHere: boolean;
}

const READABLE =
  Incompat.fileType |
  Incompat.extents |
  Incompat.large |
  Incompat.flexGroups |
  Incompat.checksumSeed |
  Incompat.largeDirectories |
  Incompat.inlineData |
  Incompat.xattrInodes;

/** Reads a superblock. `fail` is called with an offset in it for what is malformed, `unsupported` for what this reader doesn't know; both must throw. */
export function decodeSuperblock(
  bytes: Buffer,
  fail: (offset: number, message: string) => never,
  unsupported: (what: string) => never,
): FoundSuperblock {
  const u32 = (at: number) => bytes.readUInt32LE(at);
  if (bytes.readUInt16LE(0x38) !== MAGIC) fail(0x38, 'there is no ext4 file system');
  const incompat = u32(0x60);
  if ((incompat & Incompat.recover) !== 0) unsupported('a journal that must be replayed first');
  const unknown = incompat & ~READABLE;
  if (unknown !== 0) unsupported(`features 0x${(unknown >>> 0).toString(16)}`);
  const logBlockSize = u32(0x18);
  if (logBlockSize > 6) fail(0x18, `blocks of 2^${10 + logBlockSize} bytes`);
  const blockSize = 1024 << logBlockSize;
  const isLarge = (incompat & Incompat.large) !== 0;
  const found: FoundSuperblock = {
    blockSize,
    blocks: u32(0x04) + (isLarge ? u32(0x150) * 2 ** 32 : 0),
    inodes: u32(0x00),
    firstDataBlock: u32(0x14),
    blocksPerGroup: u32(0x20),
    inodesPerGroup: u32(0x28),
    inodeSize: u32(0x4c) === 0 ? 128 : bytes.readUInt16LE(0x58),
    descriptorSize: isLarge ? bytes.readUInt16LE(0xfe) : DESCRIPTOR_SIZE,
    uuid: bytes.toString('hex', 0x68, 0x78).replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-'),
    label: bytes.toString('utf8', 0x78, 0x88).replace(/\0.*$/s, ''),
    hashesAsHere:
      (u32(0x160) & UNSIGNED_HASH) !== 0 && bytes.subarray(0xec, 0xfc).every((byte) => byte === 0),
  };
  if (found.blocksPerGroup === 0 || found.blocksPerGroup > blockSize * 8)
    fail(0x20, `groups of ${found.blocksPerGroup} blocks`);
  if (found.inodesPerGroup === 0 || found.inodesPerGroup > blockSize * 8)
    fail(0x28, `groups of ${found.inodesPerGroup} inodes`);
  if (found.inodeSize < 128 || found.inodeSize > blockSize || (found.inodeSize & (found.inodeSize - 1)) !== 0)
    fail(0x58, `inodes of ${found.inodeSize} bytes`);
  if (found.descriptorSize < DESCRIPTOR_SIZE || found.descriptorSize > blockSize)
    fail(0xfe, `group descriptors of ${found.descriptorSize} bytes`);
  if (found.blocks <= found.firstDataBlock) fail(0x04, `${found.blocks} blocks`);
  if (found.inodes > found.inodesPerGroup * Math.ceil(found.blocks / found.blocksPerGroup))
    fail(0x00, `${found.inodes} inodes, more than its groups have`);
  return found;
}
