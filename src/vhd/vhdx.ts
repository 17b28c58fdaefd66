/**
 * VHDX files, as far as disks of scratches go: growing ones without a parent are written whole, and read when they were closed
 * cleanly. Integers are little-endian. Layout: [MS-VHDX], "Virtual Hard Disk v2 (VHDX) File Format". Nothing in a written file depends
 * on time or machine.
 *
 *   0            what the file is, two headers and two region tables, 64 KiB each
 *   1 MiB        log, empty
 *   2 MiB        metadata: block size, disk size, sector sizes, identity
 *   3 MiB        block allocation table (BAT): where each block of 1 MiB of the disk is, or that it is zeros
 *   whole MiB    the blocks that hold something
 */

import { createHash } from 'node:crypto';
import { closeSync, fsyncSync, ftruncateSync, openSync, writeSync } from 'node:fs';
import { crc32c } from '../erofs/crc32c.ts';
import { CimletError, classify } from '../errors.ts';

const KIB = 2 ** 10;
export const MIB = 2 ** 20;
const TABLE_BYTES = 64 * KIB;

export const VHDX_COOKIE = 'vhdxfile';
export const VHDX = {
  headers: [64 * KIB, 128 * KIB],
  headerBytes: 4 * KIB,
  headerSignature: 'head',
  regionTables: [192 * KIB, 256 * KIB],
  regionTableBytes: TABLE_BYTES,
  regionSignature: 'regi',
  metadataSignature: 'metadata',
  largestDisk: 64 * 2 ** 40,
  blocksPerBitmap: (blockSize: number, sectorSize: number) => (2 ** 23 * sectorSize) / blockSize,
} as const;

export const Region = {
  bat: '2dc27766-f623-4200-9d64-115e9bfd4a08',
  metadata: '8b7ca206-4790-4b9a-b8fe-575f050f886e',
} as const;

export const Item = {
  fileParameters: 'caa16737-fa36-4d43-b3b6-33f0aa44e76b',
  diskSize: '2fa54224-cd1b-4876-b211-5dbed83bf4b8',
  diskId: 'beca12ab-b2e6-4523-93ef-c309e000c746',
  logicalSector: '8141bf1d-a96f-4709-ba47-f233a8faab5f',
  physicalSector: 'cda348c7-445d-4471-9cc9-e9885251c556',
  /** Of a disk over another. */
  parentLocator: 'a8d35f2d-b30b-454d-abf7-d3d84834ab0c',
} as const;

export const BlockState = { notPresent: 0, undefined: 1, zero: 2, unmapped: 3, present: 6 } as const;
const STATE_BITS = 3n;

const LOG_AT = MIB;
const METADATA_AT = 2 * MIB;
const BAT_AT = 3 * MIB;
const BLOCK_SIZE = MIB;
const LOGICAL_SECTOR = 512;
const PHYSICAL_SECTOR = 4096;
const ITEMS_AT = TABLE_BYTES;
/** Whoever doesn't know the item can't read the file. */
export const REQUIRED = 4;
const OF_DISK = 2;

/** Bytes at a place of the disk. */
export interface Piece {
  at: number;
  content: Uint8Array;
}

/**
 * Writes a VHDX of a disk of `size` bytes, a multiple of 512, that is zeros but for `pieces`, to `file`, which must not exist; durable
 * when it returns, but not the file's name. `identity` is what the disk's ID is derived from. Throws `already-exists`, `no-space`.
 */
export function writeVhdx(file: string, size: number, identity: Uint8Array, pieces: Iterable<Piece>): void {
  if (size <= 0 || size % LOGICAL_SECTOR !== 0 || size > VHDX.largestDisk)
    throw new CimletError('invalid-manifest', `write ${file}: no disk has ${size} bytes`);
  try {
    const descriptor = openSync(file, 'wx', 0o600);
    try {
      writeInto(descriptor, size, identity, pieces);
      fsyncSync(descriptor);
    } finally {
      closeSync(descriptor);
    }
  } catch (error) {
    throw classify(error, `write ${file}`);
  }
}

function writeInto(descriptor: number, size: number, identity: Uint8Array, pieces: Iterable<Piece>): void {
  const bat = emptyBat(size);
  let end = BAT_AT + wholeMib(bat.length);
  for (const { at, content } of pieces)
    for (let done = 0; done < content.length; ) {
      const position = at + done;
      const within = position % BLOCK_SIZE;
      const part = content.subarray(done, done + BLOCK_SIZE - within);
      const entry = entryOf(Math.floor(position / BLOCK_SIZE), BLOCK_SIZE, LOGICAL_SECTOR);
      const known = decodeEntry(bat.readBigUInt64LE(entry));
      const offset = known.state === BlockState.present ? known.offset : end;
      if (offset === end) {
        bat.writeBigUInt64LE(encodeEntry(BlockState.present, offset), entry);
        end += BLOCK_SIZE;
      }
      writeAt(descriptor, part, offset + within);
      done += part.length;
    }
  ftruncateSync(descriptor, end);
  writeAt(descriptor, bat, BAT_AT);
  writeAt(descriptor, encodeMetadata(size, deriveGuid('disk', identity)), METADATA_AT);
  const regions = encodeRegions(wholeMib(bat.length));
  for (const at of VHDX.regionTables) writeAt(descriptor, regions, at);
  for (const [index, at] of VHDX.headers.entries())
    writeAt(descriptor, encodeHeader(index + 1, deriveGuid('file', identity)), at);
  const name = Buffer.from('cimlet', 'utf16le');
  writeAt(descriptor, Buffer.concat([Buffer.from(VHDX_COOKIE, 'latin1'), name]), 0);
}

/** Where the entry of a block is in the BAT: a bitmap's, which only disks with parents use, follows each run of blocks. */
export function entryOf(block: number, blockSize: number, sectorSize: number): number {
  return (block + Math.floor(block / VHDX.blocksPerBitmap(blockSize, sectorSize))) * 8;
}

/** All of it reads as zeros. The largest disk's has half a GiB: nothing is done for each block. */
function emptyBat(size: number): Buffer {
  const blocks = Math.ceil(size / BLOCK_SIZE);
  const zero = Buffer.alloc(8);
  zero.writeBigUInt64LE(encodeEntry(BlockState.zero, 0));
  const bat = Buffer.alloc(entryOf(blocks - 1, BLOCK_SIZE, LOGICAL_SECTOR) + 8, zero);
  const run = VHDX.blocksPerBitmap(BLOCK_SIZE, LOGICAL_SECTOR);
  for (let bitmap = run * 8; bitmap < bat.length; bitmap += (run + 1) * 8) bat.fill(0, bitmap, bitmap + 8);
  return bat;
}

function encodeEntry(state: number, offset: number): bigint {
  return BigInt(state) | BigInt(offset);
}

/** Offsets are whole MiB: the bits below them hold the state. */
export function decodeEntry(entry: bigint): { state: number; offset: number } {
  return { state: Number(entry & ((1n << STATE_BITS) - 1n)), offset: Number((entry >> 20n) << 20n) };
}

/** No log is in use. */
function encodeHeader(sequence: number, guid: Buffer): Buffer {
  const bytes = Buffer.alloc(VHDX.headerBytes);
  bytes.write(VHDX.headerSignature, 0, 'latin1');
  bytes.writeBigUInt64LE(BigInt(sequence), 8);
  guid.copy(bytes, 16); // of the file's last change
  guid.copy(bytes, 32); // of the disk's
  bytes.writeUInt16LE(1, 66); // version; that of the log before it is 0
  bytes.writeUInt32LE(MIB, 68);
  bytes.writeBigUInt64LE(BigInt(LOG_AT), 72);
  return withChecksum(bytes);
}

function encodeRegions(batBytes: number): Buffer {
  const bytes = Buffer.alloc(VHDX.regionTableBytes);
  const regions = [
    { guid: Region.bat, at: BAT_AT, length: batBytes },
    { guid: Region.metadata, at: METADATA_AT, length: MIB },
  ];
  bytes.write(VHDX.regionSignature, 0, 'latin1');
  bytes.writeUInt32LE(regions.length, 8);
  for (const [index, { guid, at, length }] of regions.entries()) {
    const entry = bytes.subarray(16 + index * 32);
    encodeGuid(guid).copy(entry);
    entry.writeBigUInt64LE(BigInt(at), 16);
    entry.writeUInt32LE(length, 24);
    entry.writeUInt32LE(1, 28); // required
  }
  return withChecksum(bytes);
}

function encodeMetadata(size: number, diskId: Buffer): Buffer {
  const [parameters, diskSize, logical, physical] = [8, 8, 4, 4].map((length) => Buffer.alloc(length)) as [
    Buffer,
    Buffer,
    Buffer,
    Buffer,
  ];
  parameters.writeUInt32LE(BLOCK_SIZE);
  diskSize.writeBigUInt64LE(BigInt(size));
  logical.writeUInt32LE(LOGICAL_SECTOR);
  physical.writeUInt32LE(PHYSICAL_SECTOR);
  const items = [
    { guid: Item.fileParameters, value: parameters, flags: REQUIRED },
    { guid: Item.diskSize, value: diskSize, flags: REQUIRED | OF_DISK },
    { guid: Item.diskId, value: diskId, flags: REQUIRED | OF_DISK },
    { guid: Item.logicalSector, value: logical, flags: REQUIRED | OF_DISK },
    { guid: Item.physicalSector, value: physical, flags: REQUIRED | OF_DISK },
  ];
  const bytes = Buffer.alloc(ITEMS_AT + PHYSICAL_SECTOR);
  bytes.write(VHDX.metadataSignature, 0, 'latin1');
  bytes.writeUInt16LE(items.length, 10);
  let at = ITEMS_AT;
  for (const [index, { guid, value, flags }] of items.entries()) {
    const entry = bytes.subarray(32 + index * 32);
    encodeGuid(guid).copy(entry);
    entry.writeUInt32LE(at, 16);
    entry.writeUInt32LE(value.length, 20);
    entry.writeUInt32LE(flags, 24);
    value.copy(bytes, at);
    at += value.length;
  }
  return bytes;
}

/** As Windows lays GUIDs out: the first three parts little-endian. */
export function encodeGuid(guid: string): Buffer {
  const bytes = Buffer.from(guid.replaceAll('-', ''), 'hex');
  bytes.subarray(0, 4).reverse();
  bytes.subarray(4, 6).reverse();
  bytes.subarray(6, 8).reverse();
  return bytes;
}

/** A GUID of version 8, which leaves its bits to whoever makes it. */
function deriveGuid(what: string, identity: Uint8Array): Buffer {
  const guid = createHash('sha256').update(`cimlet VHDX ${what}\0`).update(identity).digest().subarray(0, 16);
  guid.writeUInt8((guid.readUInt8(7) & 0x0f) | 0x80, 7);
  guid.writeUInt8((guid.readUInt8(8) & 0x3f) | 0x80, 8);
  return guid;
}

/** Of a header or a region table, in its second field. */
export function checksumOf(bytes: Buffer): number {
  const zeroed = Buffer.from(bytes);
  zeroed.writeUInt32LE(0, 4);
  return (crc32c(0xffffffff, zeroed) ^ 0xffffffff) >>> 0;
}

function withChecksum(bytes: Buffer): Buffer {
  bytes.writeUInt32LE(checksumOf(bytes), 4);
  return bytes;
}

function wholeMib(bytes: number): number {
  return Math.ceil(bytes / MIB) * MIB;
}

function writeAt(descriptor: number, bytes: Uint8Array, position: number): void {
  for (let done = 0; done < bytes.length; )
    done += writeSync(descriptor, bytes, done, bytes.length - done, position + done);
}
