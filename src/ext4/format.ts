/**
 * Numbers of the ext4 format. Sources: the kernel's Documentation/filesystems/ext4 (globals, group descriptors, inodes, directories) and
 * fs/ext4/ext4.h. All integers are little-endian.
 */

export const BLOCK_SIZE = 4096;
export const INODE_SIZE = 256;
/** Bytes of an inode behind the first 128 that have a meaning: up to and with the creation time. */
export const EXTRA_ISIZE = 24;
/** Where extended attributes may lie in an inode. */
export const INODE_XATTRS_AT = 128 + EXTRA_ISIZE;
export const BLOCKS_PER_GROUP = BLOCK_SIZE * 8;
export const MAX_INODES_PER_GROUP = BLOCK_SIZE * 8;
export const INODES_PER_BLOCK = BLOCK_SIZE / INODE_SIZE;
export const DESCRIPTOR_SIZE = 32;

export const ROOT_INODE = 2;
/** Inodes below are reserved. */
export const FIRST_INODE = 11;
export const LOST_AND_FOUND = FIRST_INODE;

export const MAX_NAME = 255;
/** The kernel's PATH_MAX, without the NUL. */
export const MAX_PATH = 4095;
/** Hard links of one file. */
export const MAX_LINKS = 65_000;
export const MAX_SYMLINK = BLOCK_SIZE - 1;
/** A target up to here lies in the inode. */
export const MAX_FAST_SYMLINK = 59;
/** Bytes of an inode for extents, a fast symlink, a device number or inline data. */
export const INODE_DATA = 60;

export const InodeFlag = { index: 0x1000, extents: 0x80000, inlineData: 0x10000000 } as const;

/** Types as in the mode. */
export const ModeType = {
  fifo: 0o010000,
  characterDevice: 0o020000,
  directory: 0o040000,
  blockDevice: 0o060000,
  file: 0o100000,
  symlink: 0o120000,
  socket: 0o140000,
  mask: 0o170000,
} as const;

/** Types as in directory entries. */
export const EntryType = {
  free: 0,
  file: 1,
  directory: 2,
  characterDevice: 3,
  blockDevice: 4,
  fifo: 5,
  socket: 6,
  symlink: 7,
} as const;

export const Compat = {
  journal: 0x4,
  extendedAttributes: 0x8,
  directoryIndex: 0x20,
  sparseSuper2: 0x200,
} as const;

export const Incompat = {
  fileType: 0x2,
  recover: 0x4,
  metaGroups: 0x10,
  extents: 0x40,
  large: 0x80,
  flexGroups: 0x200,
  xattrInodes: 0x400,
  checksumSeed: 0x2000,
  largeDirectories: 0x4000,
  inlineData: 0x8000,
} as const;

export const ReadOnlyCompat = {
  sparseSuper: 0x1,
  largeFile: 0x2,
  hugeFile: 0x8,
  directoryLinks: 0x20,
  extraInodeSize: 0x40,
  metadataChecksum: 0x400,
  readOnly: 0x1000,
} as const;

export function blocksOf(bytes: number): number {
  return Math.ceil(bytes / BLOCK_SIZE);
}
