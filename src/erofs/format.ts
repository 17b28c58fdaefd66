/**
 * EROFS on-disk structures, little-endian. Facts: Linux fs/erofs/erofs_fs.h and Documentation/filesystems/erofs.rst.
 */

import { crc32c } from './crc32c.ts';
import type { ErofsDevice, ErofsTime } from './source.ts';

export const BLOCK_SIZE = 4096;
/** An inode's number (nid) counts slots of this size from the start of the metadata area. */
export const SLOT_SIZE = 32;
export const INODE_SIZE = 64;
export const DIRENT_SIZE = 12;
export const XATTR_HEADER_SIZE = 12;
export const CHUNK_INDEX_SIZE = 8;
export const MAX_NAME_BYTES = 255;
export const MAX_SYMLINK_BYTES = 4095;
export const MAX_XATTR_BYTES = 0xffff;
export const MAX_DEVICES = 0xffff;
/** The kernel counts an inode's shared attributes in one byte. */
export const MAX_SHARED_XATTRS = 255;
/** `i_xattr_icount` is 16 bits wide and counts 4-byte units after the header. */
export const MAX_XATTR_AREA = XATTR_HEADER_SIZE + 4 * 0xfffe;

const SUPER_OFFSET = 1024;
const SUPER_SIZE = 128;
const DEVICE_SLOT_SIZE = 128;
const MAGIC = 0xe0f5e1e2;
const COMPAT_SB_CHECKSUM = 0x1;
const COMPAT_MTIME = 0x2;
const INCOMPAT_CHUNKED_FILE = 0x4;
const INCOMPAT_DEVICE_TABLE = 0x8;

const CHUNK_FORMAT_INDEXES = 0x20;
const MAX_CHUNK_BLOCK_BITS = 31;
const NULL_BLOCK = 0xffffffff;
const CRC_SEED = 0xffffffff;

/** How an inode's data is laid out (`i_format`). */
export const Layout = { plain: 0, inline: 2, chunks: 4 } as const;
export type Layout = (typeof Layout)[keyof typeof Layout];

export const FileType = { file: 1, directory: 2, symlink: 7 } as const;
const TYPE_BITS = { file: 0o100000, directory: 0o040000, symlink: 0o120000 } as const;

/** Zeros; small ones come from Node's pool, which `Buffer.alloc` doesn't use and which is several times as fast. */
export function zeroed(size: number): Buffer {
  return Buffer.allocUnsafe(size).fill(0);
}

export function alignUp(value: number, to: number): number {
  return Math.ceil(value / to) * to;
}

/** Bytes that the superblock and device table take at the start of the image, in whole blocks. */
export function headSize(devices: number): number {
  return alignUp(SUPER_OFFSET + SUPER_SIZE + devices * DEVICE_SLOT_SIZE, BLOCK_SIZE);
}

export interface HeadFields {
  rootNid: number;
  inodes: number;
  blocks: number;
  metaBlock: number;
  xattrBlock: number;
  uuid: Uint8Array;
  buildTime: ErofsTime;
  volumeName: Uint8Array;
  devices: readonly ErofsDevice[];
}

/** The start of the image: boot area, superblock with its checksum, device table. */
export function encodeHead(fields: HeadFields): Buffer {
  const head = zeroed(headSize(fields.devices.length));
  const superblock = head.subarray(SUPER_OFFSET);
  superblock.writeUInt32LE(MAGIC, 0);
  superblock.writeUInt32LE(COMPAT_SB_CHECKSUM | COMPAT_MTIME, 8);
  superblock.writeUInt8(Math.log2(BLOCK_SIZE), 12);
  superblock.writeUInt16LE(fields.rootNid, 14);
  superblock.writeBigUInt64LE(BigInt(fields.inodes), 16);
  superblock.writeBigInt64LE(fields.buildTime.seconds, 24);
  superblock.writeUInt32LE(fields.buildTime.nanoseconds, 32);
  superblock.writeUInt32LE(fields.blocks, 36);
  superblock.writeUInt32LE(fields.metaBlock, 40);
  superblock.writeUInt32LE(fields.xattrBlock, 44);
  superblock.set(fields.uuid, 48);
  superblock.set(fields.volumeName, 64);
  const deviceTable = fields.devices.length > 0 ? INCOMPAT_DEVICE_TABLE : 0;
  superblock.writeUInt32LE(INCOMPAT_CHUNKED_FILE | deviceTable, 80);
  superblock.writeUInt16LE(fields.devices.length, 86);
  superblock.writeUInt16LE((SUPER_OFFSET + SUPER_SIZE) / DEVICE_SLOT_SIZE, 88);
  fields.devices.forEach((device, index) => {
    superblock.writeUInt32LE(device.size / BLOCK_SIZE, SUPER_SIZE + index * DEVICE_SLOT_SIZE + 64);
  });
  superblock.writeUInt32LE(crc32c(CRC_SEED, head.subarray(SUPER_OFFSET, BLOCK_SIZE)), 4);
  return head;
}

export interface InodeFields {
  type: keyof typeof FileType;
  layout: Layout;
  xattrBytes: number;
  mode: number;
  size: number;
  /** First data block, or for chunks the result of `chunkFormat`. */
  location: number;
  number: number;
  uid: number;
  gid: number;
  mtime: ErofsTime;
  nlink: number;
}

/** An extended (64-byte) inode: the kind that has its own time, 32-bit owners and 64-bit size. */
export function encodeInode(fields: InodeFields): Buffer {
  const inode = zeroed(INODE_SIZE);
  inode.writeUInt16LE(1 | (fields.layout << 1), 0);
  inode.writeUInt16LE(fields.xattrBytes === 0 ? 0 : (fields.xattrBytes - XATTR_HEADER_SIZE) / 4 + 1, 2);
  inode.writeUInt16LE(TYPE_BITS[fields.type] | (fields.mode & 0o7777), 4);
  inode.writeBigUInt64LE(BigInt(fields.size), 8);
  inode.writeUInt32LE(fields.location, 16);
  inode.writeUInt32LE(fields.number, 20);
  inode.writeUInt32LE(fields.uid, 24);
  inode.writeUInt32LE(fields.gid, 28);
  inode.writeBigInt64LE(fields.mtime.seconds, 32);
  inode.writeUInt32LE(fields.mtime.nanoseconds, 40);
  inode.writeUInt32LE(fields.nlink, 44);
  return inode;
}

/** Chunk size of a file, as a power of two of blocks: one chunk holds the file, up to the format's 8 TiB. */
function chunkBlockBits(size: number): number {
  const blocks = Math.ceil(size / BLOCK_SIZE);
  let bits = 0;
  while (bits < MAX_CHUNK_BLOCK_BITS && 2 ** bits < blocks) bits++;
  return bits;
}

export function chunkFormat(size: number): number {
  return CHUNK_FORMAT_INDEXES | chunkBlockBits(size);
}

export function chunkCount(size: number): number {
  return Math.ceil(size / (BLOCK_SIZE * 2 ** chunkBlockBits(size)));
}

/** A file's chunk indexes. `start`: its first block on `device` (0 = the image itself), undefined for a hole. */
export function encodeChunkIndexes(
  size: number,
  start: { device: number; block: number } | undefined,
): Buffer {
  const count = chunkCount(size);
  const chunkBlocks = 2 ** chunkBlockBits(size);
  const indexes = zeroed(count * CHUNK_INDEX_SIZE);
  for (let chunk = 0; chunk < count; chunk++) {
    const at = chunk * CHUNK_INDEX_SIZE;
    indexes.writeUInt16LE(start?.device ?? 0, at + 2);
    indexes.writeUInt32LE(start === undefined ? NULL_BLOCK : start.block + chunk * chunkBlocks, at + 4);
  }
  return indexes;
}
