/** The superblock. Source: kernel documentation, "Super Block" (Documentation/filesystems/ext4/super.rst). */

import {
  BLOCKS_PER_GROUP,
  Compat,
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
  u32(0x5c, Compat.extendedAttributes | Compat.directoryIndex | Compat.sparseSuper2);
  u32(
    0x60,
    Incompat.fileType |
      Incompat.extents |
      Incompat.flexGroups |
      (superblock.inlineData ? Incompat.inlineData : 0),
  );
  u32(
    0x64,
    ReadOnlyCompat.largeFile |
      ReadOnlyCompat.directoryLinks |
      ReadOnlyCompat.extraInodeSize |
      ReadOnlyCompat.readOnly,
  );
  superblock.uuid.copy(bytes, 0x68);
  bytes.writeUInt8(HALF_MD4, 0xfc);
  u16(0x15c, EXTRA_ISIZE);
  u16(0x15e, EXTRA_ISIZE);
  u32(0x160, UNSIGNED_HASH);
  bytes.writeUInt8(LOG_GROUPS_PER_FLEX, 0x174);
  u32(0x268, LOST_AND_FOUND);
  return bytes;
}
