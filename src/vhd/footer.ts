/**
 * The 512-byte footer that makes a file a fixed VHD of everything before it. All integers are big-endian. Layout: Microsoft's "Virtual Hard
 * Disk Image Format Specification", version 1.0. Nothing in it depends on time or machine. With `win ` as creator qemu takes the disk's size
 * from the footer's size field; otherwise it would take the geometry's, which is rounded.
 */

import { createHash } from 'node:crypto';

export const VHD_FOOTER_SIZE = 512;

const COOKIE = 'conectix';
const FEATURES_RESERVED = 2;
const FORMAT_VERSION = 0x00010000;
const CREATOR = 'win ';
const CREATOR_VERSION = 0x000a0000;
const CREATOR_HOST = 'Wi2k';
const TYPE_FIXED = 2;
const CHECKSUM_AT = 64;

export interface VhdFooter {
  /** Bytes of the disk, all that comes before the footer. */
  size: number;
  /** Lower case with dashes. */
  uniqueId: string;
}

/** The footer for a disk of `size` bytes, a multiple of 512, whose unique ID is derived from `identity`. */
export function encodeVhdFooter(size: number, identity: Uint8Array): Buffer {
  const bytes = Buffer.alloc(VHD_FOOTER_SIZE);
  bytes.write(COOKIE, 0, 'latin1');
  bytes.writeUInt32BE(FEATURES_RESERVED, 8);
  bytes.writeUInt32BE(FORMAT_VERSION, 12);
  bytes.fill(0xff, 16, 24);
  // Creation time, 24: none.
  bytes.write(CREATOR, 28, 'latin1');
  bytes.writeUInt32BE(CREATOR_VERSION, 32);
  bytes.write(CREATOR_HOST, 36, 'latin1');
  bytes.writeBigUInt64BE(BigInt(size), 40);
  bytes.writeBigUInt64BE(BigInt(size), 48);
  const { cylinders, heads, sectors } = geometryOf(size);
  bytes.writeUInt16BE(cylinders, 56);
  bytes.writeUInt8(heads, 58);
  bytes.writeUInt8(sectors, 59);
  bytes.writeUInt32BE(TYPE_FIXED, 60);
  deriveUuid(identity).copy(bytes, 68);
  bytes.writeUInt32BE(checksumOf(bytes), CHECKSUM_AT);
  return bytes;
}

/** A UUID of version 8, which leaves its bits to whoever makes it. */
function deriveUuid(identity: Uint8Array): Buffer {
  const uuid = createHash('sha256').update('cimlet VHD\0').update(identity).digest().subarray(0, 16);
  uuid.writeUInt8((uuid.readUInt8(6) & 0x0f) | 0x80, 6);
  uuid.writeUInt8((uuid.readUInt8(8) & 0x3f) | 0x80, 8);
  return uuid;
}

/** The specification's appendix "CHS Calculation". */
function geometryOf(size: number): { cylinders: number; heads: number; sectors: number } {
  const total = Math.min(Math.floor(size / 512), 65_535 * 16 * 255);
  if (total >= 65_535 * 16 * 63) return { cylinders: Math.floor(total / 255 / 16), heads: 16, sectors: 255 };
  let sectors = 17;
  let tracks = Math.floor(total / sectors);
  let heads = Math.max(4, Math.floor((tracks + 1023) / 1024));
  if (tracks >= heads * 1024 || heads > 16) {
    sectors = 31;
    heads = 16;
    tracks = Math.floor(total / sectors);
  }
  if (tracks >= heads * 1024) {
    sectors = 63;
    heads = 16;
    tracks = Math.floor(total / sectors);
  }
  return { cylinders: Math.floor(tracks / heads), heads, sectors };
}

/** One's complement of the sum of all bytes but the checksum's own. */
function checksumOf(bytes: Buffer): number {
  let sum = 0;
  bytes.forEach((byte, i) => {
    if (i < CHECKSUM_AT || i >= CHECKSUM_AT + 4) sum += byte;
  });
  return ~sum >>> 0;
}

/**
 * Reads the footer of a fixed VHD, `bytes`, which lie at `offset` of their file: also the disk's size. `fail` is called for anything else, with
 * the position in the footer; it must throw.
 */
export function decodeVhdFooter(
  bytes: Buffer,
  offset: number,
  fail: (position: number, message: string) => never,
): VhdFooter {
  if (bytes.length < VHD_FOOTER_SIZE || offset % VHD_FOOTER_SIZE !== 0)
    fail(0, 'the file does not end in a whole VHD footer');
  if (bytes.toString('latin1', 0, 8) !== COOKIE)
    fail(0, 'there is something behind the content that is no VHD footer');
  if (bytes.readUInt32BE(CHECKSUM_AT) !== checksumOf(bytes))
    fail(CHECKSUM_AT, "the VHD footer's checksum is wrong");
  if (bytes.readUInt32BE(60) !== TYPE_FIXED) fail(60, 'the VHD is not a fixed one');
  const size = Number(bytes.readBigUInt64BE(48));
  if (size !== offset) fail(48, `the VHD footer is for a disk of ${size} bytes`);
  const hex = bytes.toString('hex', 68, 84);
  return { size, uniqueId: hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-') };
}
