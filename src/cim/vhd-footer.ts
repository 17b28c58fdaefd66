/**
 * The 512-byte footer that makes a file a fixed VHD of everything before it. All integers are big-endian. Layout: Microsoft's "Virtual Hard
 * Disk Image Format Specification", version 1.0. Nothing in it depends on time or machine. With `win ` as creator qemu takes the disk's size
 * from the footer's size field; otherwise it would take the geometry's, which is rounded.
 */

import { closeSync, fstatSync, fsyncSync, openSync, readSync } from 'node:fs';
import { CimletError } from '../errors.ts';
import { type Container, openContainer } from './container.ts';
import { sha256 } from './container-format.ts';
import { writeFully } from './durable-files.ts';
import { attempt, corruptAt } from './faults.ts';
import { rootHashDigest, treeGeometry } from './merkle.ts';

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
  const uuid = sha256(Buffer.from('cimlet VHD\0'), identity).subarray(0, 16);
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
 * Adds the footer behind all there is of a container file, its seal included; one that is there already stays. Afterwards nothing can be
 * added to the container, and it cannot be sealed. A file that ends elsewhere, as after a seal that was cut off, is `corrupt`.
 */
export function addVhdFooter(path: string): VhdFooter {
  const container = openContainer(path);
  try {
    if (container.kind === 'device')
      throw new CimletError('failed-precondition', `add a VHD footer to ${path}: it is a block device`);
    return readVhdFooter(path) ?? append(container);
  } finally {
    container.close();
  }
}

function append({ path, header, headerPage, seal }: Container): VhdFooter {
  const end = seal === undefined ? header.end : treeGeometry(seal.sealedLength).end;
  const identity = seal === undefined ? headerPage : rootHashDigest(seal.rootHash);
  return attempt(`add a VHD footer to ${path}`, () => {
    const descriptor = openSync(path, 'r+');
    try {
      const { size } = fstatSync(descriptor);
      if (size !== end) throw corruptAt(path, end, `there are ${size - end} bytes where the container ends`);
      const footer = encodeVhdFooter(size, identity);
      writeFully(descriptor, footer, size);
      fsyncSync(descriptor);
      return decode(footer, path, size);
    } finally {
      closeSync(descriptor);
    }
  });
}

/**
 * The footer at the end of a file; undefined when there is none. One that isn't what a fixed VHD of this size has is `corrupt`, and so is
 * half a one, as only a file that isn't whole pages can end in.
 */
export function readVhdFooter(path: string): VhdFooter | undefined {
  return attempt(`read ${path}`, () => {
    const descriptor = openSync(path, 'r');
    try {
      const { size } = fstatSync(descriptor);
      if (size % 4096 === 0) return undefined;
      const offset = Math.max(0, size - VHD_FOOTER_SIZE);
      const bytes = Buffer.alloc(VHD_FOOTER_SIZE);
      const read = readSync(descriptor, bytes, 0, bytes.length, offset);
      return decode(bytes.subarray(0, read), path, offset);
    } finally {
      closeSync(descriptor);
    }
  });
}

function decode(bytes: Buffer, path: string, offset: number): VhdFooter {
  const fail = (position: number, message: string) => corruptAt(path, offset + position, message);
  if (bytes.length < VHD_FOOTER_SIZE || offset % VHD_FOOTER_SIZE !== 0)
    throw fail(0, 'the file does not end in a whole VHD footer');
  if (bytes.toString('latin1', 0, 8) !== COOKIE)
    throw fail(0, 'there is something behind the content that is no VHD footer');
  if (bytes.readUInt32BE(CHECKSUM_AT) !== checksumOf(bytes))
    throw fail(CHECKSUM_AT, "the VHD footer's checksum is wrong");
  if (bytes.readUInt32BE(60) !== TYPE_FIXED) throw fail(60, 'the VHD is not a fixed one');
  const size = Number(bytes.readBigUInt64BE(48));
  if (size !== offset) throw fail(48, `the VHD footer is for a disk of ${size} bytes`);
  const hex = bytes.toString('hex', 68, 84);
  return { size, uniqueId: hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-') };
}
