/** Inode records. Source: kernel documentation, "Index Nodes" (Documentation/filesystems/ext4/inodes.rst). */

import { EXTRA_ISIZE, INODE_DATA, INODE_XATTRS_AT, ModeType } from './format.ts';

const NANOSECONDS = 1_000_000_000n;
/** 1901-12-13 and 2446-05-10: what 34 bits from -2^31 on hold. */
const FIRST_SECOND = -(2 ** 31);
const LAST_SECOND = 2 ** 34 - 2 ** 31 - 1;

/** Times are nanoseconds since 1970. */
export interface InodeTimes {
  mtime: bigint;
  atime: bigint;
  ctime: bigint;
  /** When it was made. */
  crtime: bigint;
}

export interface Inode extends InodeTimes {
  /** Type and permissions. */
  mode: number;
  uid: number;
  gid: number;
  size: number;
  links: number;
  /** In units of 512 bytes, everything that belongs to the file. */
  sectors: number;
  flags: number;
  /** 60 bytes at most: extents, a fast symlink's target, a device number or inline data. */
  data: Uint8Array;
  /** Block of extended attributes; 0 for none. */
  xattrBlock: number;
  /** Extended attributes in the record, with their magic number. */
  xattrs: Uint8Array | undefined;
}

/** Writes a record of 256 bytes, all of it. Times beyond the format's range become its ends. */
export function encodeInode(record: Buffer, inode: Inode): void {
  record.fill(0);
  record.writeUInt16LE(inode.mode, 0x00);
  record.writeUInt16LE(inode.uid & 0xffff, 0x02);
  writeTime(record, inode.atime, 0x08, 0x8c);
  writeTime(record, inode.ctime, 0x0c, 0x84);
  writeTime(record, inode.mtime, 0x10, 0x88);
  record.writeUInt16LE(inode.gid & 0xffff, 0x18);
  record.writeUInt16LE(inode.links, 0x1a);
  record.writeUInt32LE(inode.flags, 0x20);
  record.set(inode.data, 0x28);
  record.writeUInt32LE(inode.xattrBlock, 0x68);
  record.writeUInt16LE(inode.uid >>> 16, 0x78);
  record.writeUInt16LE(inode.gid >>> 16, 0x7a);
  record.writeUInt16LE(EXTRA_ISIZE, 0x80);
  writeTime(record, inode.crtime, 0x90, 0x94);
  if (inode.xattrs !== undefined) record.set(inode.xattrs, INODE_XATTRS_AT);
  setSize(record, inode.size, inode.sectors);
}

/** Changes size and sectors of a record. */
export function setSize(record: Buffer, size: number, sectors: number): void {
  record.writeUInt32LE(size % 2 ** 32, 0x04);
  record.writeUInt32LE(Math.floor(size / 2 ** 32), 0x6c);
  record.writeUInt32LE(sectors % 2 ** 32, 0x1c);
  record.writeUInt16LE(Math.floor(sectors / 2 ** 32), 0x74);
}

/** Where a record has what `data` is. */
export function inodeData(record: Buffer): Buffer {
  return record.subarray(0x28, 0x28 + INODE_DATA);
}

export function setLinks(record: Buffer, links: number): void {
  record.writeUInt16LE(links, 0x1a);
}

/** Reads a record of any size that the format allows; what an old, short one doesn't have is 0. */
export function decodeInode(record: Buffer): Inode {
  const extra = record.length > 128 ? Math.min(record.readUInt16LE(0x80), record.length - 128) : 0;
  const extraOf = (at: number) => (at + 4 <= 128 + extra ? record.readUInt32LE(at) : 0);
  const xattrsAt = 128 + extra;
  return {
    mode: record.readUInt16LE(0x00),
    uid: record.readUInt16LE(0x02) + record.readUInt16LE(0x78) * 0x10000,
    gid: record.readUInt16LE(0x18) + record.readUInt16LE(0x7a) * 0x10000,
    size: record.readUInt32LE(0x04) + record.readUInt32LE(0x6c) * 2 ** 32,
    links: record.readUInt16LE(0x1a),
    sectors: record.readUInt32LE(0x1c) + record.readUInt16LE(0x74) * 2 ** 32,
    flags: record.readUInt32LE(0x20),
    data: Buffer.from(inodeData(record)),
    xattrBlock: record.readUInt32LE(0x68) + record.readUInt16LE(0x76) * 2 ** 32,
    xattrs: extra > 0 && xattrsAt + 4 <= record.length ? Buffer.from(record.subarray(xattrsAt)) : undefined,
    atime: readTime(record, 0x08, extraOf(0x8c)),
    ctime: readTime(record, 0x0c, extraOf(0x84)),
    mtime: readTime(record, 0x10, extraOf(0x88)),
    crtime: 0x98 <= 128 + extra ? readTime(record, 0x90, extraOf(0x94)) : 0n,
  };
}

function writeTime(record: Buffer, time: bigint, at: number, extraAt: number): void {
  let seconds = Number(time / NANOSECONDS);
  let nanoseconds = Number(time % NANOSECONDS);
  if (nanoseconds < 0) {
    nanoseconds += 1e9;
    seconds--;
  }
  if (seconds < FIRST_SECOND) [seconds, nanoseconds] = [FIRST_SECOND, 0];
  if (seconds > LAST_SECOND) [seconds, nanoseconds] = [LAST_SECOND, 0];
  const low = seconds | 0;
  const epoch = (seconds - low) / 2 ** 32;
  record.writeInt32LE(low, at);
  record.writeUInt32LE(nanoseconds * 4 + epoch, extraAt);
}

function readTime(record: Buffer, at: number, extra: number): bigint {
  const seconds = record.readInt32LE(at) + (extra & 3) * 2 ** 32;
  return BigInt(seconds) * NANOSECONDS + BigInt(extra >>> 2);
}

/** The first eight bytes of a device's inode data: old numbers in the first half, others in the second. */
export function encodeDevice({ major, minor }: { major: number; minor: number }): Buffer {
  const data = Buffer.alloc(8);
  if (major < 256 && minor < 256) data.writeUInt32LE(major * 256 + minor, 0);
  else data.writeUInt32LE(((minor & 0xff) | (major << 8) | ((minor & ~0xff) << 12)) >>> 0, 4);
  return data;
}

export function decodeDevice(data: Uint8Array): { major: number; minor: number } {
  const bytes = Buffer.from(data);
  const old = bytes.readUInt32LE(0);
  if (old !== 0) return { major: (old >>> 8) & 0xff, minor: old & 0xff };
  const number = bytes.readUInt32LE(4);
  return { major: (number >>> 8) & 0xfff, minor: (number & 0xff) | ((number >>> 12) & 0xfff00) };
}

export function typeOf(mode: number): number {
  return mode & ModeType.mask;
}
