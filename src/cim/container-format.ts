/**
 * The embedded host's own single-file container of block CIMs, version 1. It is not the one Windows writes, which is not published.
 * All integers are little-endian, all parts begin on pages of 4,096 bytes, what lies between is zero.
 *
 * Header, the first page, of which 512 bytes are used so that writing it is atomic: magic `cimletbc`; version u32; flags u32, 0; the directory's offset u64, length u64 and SHA-256 (32 bytes); end of
 * the content u64, where a seal may follow; zeros; SHA-256 of all before it (the 32 bytes up to 512); zeros.
 *
 * Directory: magic `cimletcd`; number of CIMs u32; number of retired directories u32; the CIMs: bytes of the name u16, parts u16, the name in
 * UTF-8, the parts of 56 bytes: kind u8 (as in files' headers, or 3 for a source list), region type u8, index u16, 0 u32, offset u64, length
 * u64, SHA-256. A region of data has no digest here (zeros), since its object IDs have one for each object. Then the retired directories,
 * which later ones replaced: offset u64, length u64, SHA-256.
 */

import { createHash } from 'node:crypto';
import { CimletError } from '../errors.ts';
import { corruptAt } from './faults.ts';
import { FileType, PAGE_SIZE, RegionType } from './format.ts';

export const CONTAINER_MAGIC = Buffer.from('cimletbc', 'latin1');
const DIRECTORY_MAGIC = Buffer.from('cimletcd', 'latin1');
const VERSION = 1;
export const SHA256_SIZE = 32;
const HEADER_SIZE = 512;
const CHECKSUM_AT = HEADER_SIZE - SHA256_SIZE;
const DIRECTORY_HEADER_SIZE = 16;
const PART_SIZE = 56;
const SPAN_SIZE = 48;
const MAX_DIRECTORY = 2 ** 26;

export const PartKind = { ...FileType, sources: 3 } as const;
export type PartKind = (typeof PartKind)[keyof typeof PartKind];

/** Some bytes of a container with their SHA-256. */
export interface Span {
  offset: number;
  length: number;
  digest: Buffer;
}

export interface ContainerPart {
  kind: PartKind;
  /** Of regions and object IDs; see RegionType. */
  type: number;
  index: number;
  offset: number;
  length: number;
  /** Absent for a region of data. */
  digest: Buffer | undefined;
}

export interface ContainedCim {
  /** With `.cim`. */
  name: string;
  parts: ContainerPart[];
}

export interface ContainerHeader {
  directory: Span;
  /** Bytes of content, a multiple of 4,096. */
  end: number;
}

export interface ContainerDirectory {
  cims: ContainedCim[];
  retired: Span[];
}

export function sha256(...pieces: Uint8Array[]): Buffer {
  const hash = createHash('sha256');
  for (const piece of pieces) hash.update(piece);
  return hash.digest();
}

export function encodeContainerHeader({ directory, end }: ContainerHeader): Buffer {
  const bytes = Buffer.alloc(PAGE_SIZE);
  CONTAINER_MAGIC.copy(bytes);
  bytes.writeUInt32LE(VERSION, 8);
  writeSpan(bytes, 16, directory);
  writeNumber(bytes, 64, end);
  sha256(bytes.subarray(0, CHECKSUM_AT)).copy(bytes, CHECKSUM_AT);
  return bytes;
}

/** Decodes the first page of a container; `file` is for errors. */
export function decodeContainerHeader(bytes: Buffer, file: string): ContainerHeader {
  if (bytes.length < PAGE_SIZE) throw corruptAt(file, bytes.length, 'the container ends within its header');
  if (!bytes.subarray(0, 8).equals(CONTAINER_MAGIC)) throw corruptAt(file, 0, 'not a container of CIMs');
  if (!sha256(bytes.subarray(0, CHECKSUM_AT)).equals(bytes.subarray(CHECKSUM_AT, HEADER_SIZE)))
    throw corruptAt(file, CHECKSUM_AT, "the container header's checksum is wrong");
  const version = bytes.readUInt32LE(8);
  const flags = bytes.readUInt32LE(12);
  if (version !== VERSION || flags !== 0)
    throw new CimletError(
      'unsupported-host',
      `open container ${file}: version ${version} with flags ${flags} cannot be read, only ${VERSION} with none`,
    );
  const header = { directory: readSpan(bytes, 16), end: readNumber(bytes, 64) };
  const { offset, length } = header.directory;
  if (header.end % PAGE_SIZE !== 0 || header.end < 2 * PAGE_SIZE || !Number.isSafeInteger(header.end))
    throw corruptAt(file, 64, `the container's content ends at ${header.end}`);
  if (!isInside(header.directory, header.end) || length > MAX_DIRECTORY)
    throw corruptAt(file, 16, `the container's directory (${length} bytes at ${offset}) lies outside`);
  return header;
}

export function encodeContainerDirectory({ cims, retired }: ContainerDirectory): Buffer {
  const header = Buffer.alloc(DIRECTORY_HEADER_SIZE);
  DIRECTORY_MAGIC.copy(header);
  header.writeUInt32LE(cims.length, 8);
  header.writeUInt32LE(retired.length, 12);
  const spans = Buffer.alloc(retired.length * SPAN_SIZE);
  retired.forEach((span, i) => {
    writeSpan(spans, i * SPAN_SIZE, span);
  });
  return Buffer.concat([header, ...cims.map(encodeCim), spans]);
}

function encodeCim({ name, parts }: ContainedCim): Buffer {
  const text = Buffer.from(name);
  const bytes = Buffer.alloc(4 + text.length + parts.length * PART_SIZE);
  bytes.writeUInt16LE(text.length, 0);
  bytes.writeUInt16LE(parts.length, 2);
  text.copy(bytes, 4);
  parts.forEach((part, i) => {
    const at = 4 + text.length + i * PART_SIZE;
    bytes.writeUInt8(part.kind, at);
    bytes.writeUInt8(part.type, at + 1);
    bytes.writeUInt16LE(part.index, at + 2);
    writeSpan(bytes, at + 8, { ...part, digest: part.digest ?? Buffer.alloc(SHA256_SIZE) });
  });
  return bytes;
}

/** Decodes the directory that `header` points to, every part of it inside the content. */
export function decodeContainerDirectory(
  bytes: Buffer,
  header: ContainerHeader,
  file: string,
): ContainerDirectory {
  const start = header.directory.offset;
  if (!sha256(bytes).equals(header.directory.digest))
    throw corruptAt(file, start, "the container directory's digest is wrong");
  // From here on only what wrote the digest can be at fault.
  const need = (position: number, length: number) => {
    if (position + length > bytes.length)
      throw corruptAt(file, start + position, 'the container directory ends within an entry');
  };
  need(0, DIRECTORY_HEADER_SIZE);
  if (!bytes.subarray(0, 8).equals(DIRECTORY_MAGIC))
    throw corruptAt(file, start, 'not a directory of a container');
  let position = DIRECTORY_HEADER_SIZE;
  const cims: ContainedCim[] = [];
  for (let i = bytes.readUInt32LE(8); i > 0; i--) {
    need(position, 4);
    const nameLength = bytes.readUInt16LE(position);
    const count = bytes.readUInt16LE(position + 2);
    need(position + 4, nameLength + count * PART_SIZE);
    const name = bytes.toString('utf8', position + 4, position + 4 + nameLength);
    position += 4 + nameLength;
    const parts: ContainerPart[] = [];
    for (let j = 0; j < count; j++, position += PART_SIZE) {
      const part = readPart(bytes, position);
      if (part === undefined || !isInside(part, header.end))
        throw corruptAt(file, start + position, `part ${j} of ${name} lies outside or is of an unknown kind`);
      parts.push(part);
    }
    cims.push({ name, parts });
  }
  const retiredCount = bytes.readUInt32LE(12);
  need(position, retiredCount * SPAN_SIZE);
  const retired = Array.from({ length: retiredCount }, (_, i) => readSpan(bytes, position + i * SPAN_SIZE));
  const outside = retired.findIndex((span) => !isInside(span, header.end));
  if (outside >= 0) throw corruptAt(file, start + position, `retired directory ${outside} lies outside`);
  return { cims, retired };
}

function readPart(bytes: Buffer, position: number): ContainerPart | undefined {
  const kind = Object.values(PartKind).find((known) => known === bytes.readUInt8(position));
  if (kind === undefined) return undefined;
  const type = bytes.readUInt8(position + 1);
  const { offset, length, digest } = readSpan(bytes, position + 8);
  const undigested = kind === PartKind.region && type === RegionType.data;
  const index = bytes.readUInt16LE(position + 2);
  return { kind, type, index, offset, length, digest: undigested ? undefined : digest };
}

function isInside({ offset, length }: { offset: number; length: number }, end: number): boolean {
  return offset >= PAGE_SIZE && offset % PAGE_SIZE === 0 && length > 0 && offset + length <= end;
}

function writeSpan(bytes: Buffer, position: number, { offset, length, digest }: Span): void {
  writeNumber(bytes, position, offset);
  writeNumber(bytes, position + 8, length);
  digest.copy(bytes, position + 16);
}

function readSpan(bytes: Buffer, position: number): Span {
  return {
    offset: readNumber(bytes, position),
    length: readNumber(bytes, position + 8),
    digest: bytes.subarray(position + 16, position + 16 + SHA256_SIZE),
  };
}

export function readNumber(bytes: Buffer, position: number): number {
  return Number(bytes.readBigUInt64LE(position));
}

export function writeNumber(bytes: Buffer, position: number, value: number): void {
  bytes.writeBigUInt64LE(BigInt(value), position);
}
