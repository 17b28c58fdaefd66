/**
 * The CIM on-disk format, version 1.0: constants, headers and the small structures. All integers are little-endian.
 * Facts from the public reader of github.com/jstarks/hcsshim (branch `cim`, internal/cim/format, MIT) and from
 * github.com/microsoft/hcsshim pkg/cimfs/format. File entries are in file-record.ts, link tables in link-table.ts.
 */

import { CimletError } from '../errors.ts';
import { corruptAt } from './faults.ts';

export const PAGE_SIZE = 4096;
export const SMALL_ALIGNMENT = 8;
export const FILES_PER_TABLE = 1024;
export const UPCASE_LENGTH = 0x10000;
export const MAX_NAME_UNITS = 255;
export const MAX_PATH_UNITS = 32767;
export const MAX_REGIONS = 0x10000;
export const MAX_STREAM_SIZE = 2 ** 48 - 1;

const MAGIC = Buffer.from('cimfile0', 'latin1');
const VERSION = { major: 1, minor: 0 } as const;

export const FileType = { image: 0, region: 1, objectId: 2 } as const;
export type FileType = (typeof FileType)[keyof typeof FileType];

/** What a region file holds. Ours always come in this order, so the type is also the index in an image's own set. */
export const RegionType = { metadata: 0, data: 1, smallData: 2 } as const;
export type RegionType = (typeof RegionType)[keyof typeof RegionType];
export const REGION_TYPES = [RegionType.metadata, RegionType.data, RegionType.smallData] as const;

export const StreamType = { data: 0, linkTable: 1, peImage: 2 } as const;

export const REGION_SET_SIZE = 24;
export const IMAGE_HEADER_SIZE = 72;
export const REGION_HEADER_SIZE = 40;
export const OBJECT_ID_HEADER_SIZE = 48;
export const OBJECT_ID_ENTRY_SIZE = 40;
export const DIGEST_SIZE = 24;
export const FILESYSTEM_SIZE = 24;
export const TABLE_ENTRY_SIZE = 16;
export const STREAM_SIZE = 16;

/** A place in the region list of an image. Null (0 on disk) is `undefined`. */
export interface RegionOffset {
  region: number;
  offset: number;
}

export interface RegionSet {
  guid: string;
  count: number;
}

export interface ImageHeader {
  version: { major: number; minor: number };
  own: RegionSet;
  parents: RegionSet[];
  filesystem: RegionOffset | undefined;
}

export interface RegionHeader {
  index: number;
  type: number;
}

export interface ObjectIdHeader extends RegionHeader {
  tableOffset: number;
  count: number;
}

export interface Filesystem {
  upcase: RegionOffset | undefined;
  tables: RegionOffset | undefined;
  tableCount: number;
  root: number;
}

export interface TableEntry {
  at: RegionOffset | undefined;
  count: number;
  entrySize: number;
}

/** A stream as a file entry or a stream table stores it. `size` is what readers see, sparse streams included. */
export interface StreamRecord {
  at: RegionOffset | undefined;
  size: number;
  type: number;
  sparse: boolean;
}

export const EMPTY_STREAM: StreamRecord = { at: undefined, size: 0, type: StreamType.data, sparse: false };

export function regionFileName(guid: string, index: number): string {
  return `region_${guid}_${index}`;
}

export function objectIdFileName(guid: string, index: number): string {
  return `objectid_${guid}_${index}`;
}

export function alignUp(value: number, alignment: number): number {
  return Math.ceil(value / alignment) * alignment;
}

/** Reads 48 bits as a number, which holds them exactly. */
function readUInt48(bytes: Buffer, position: number): number {
  return bytes.readUInt32LE(position) + bytes.readUInt16LE(position + 4) * 2 ** 32;
}

function writeUInt48(bytes: Buffer, position: number, value: number): void {
  bytes.writeUInt32LE(value % 2 ** 32, position);
  bytes.writeUInt16LE(Math.floor(value / 2 ** 32), position + 4);
}

/** Low 48 bits byte offset, high 16 region number; all zero is null. */
export function readRegionOffset(bytes: Buffer, position: number): RegionOffset | undefined {
  const offset = readUInt48(bytes, position);
  const region = bytes.readUInt16LE(position + 6);
  return offset === 0 && region === 0 ? undefined : { region, offset };
}

export function writeRegionOffset(bytes: Buffer, position: number, at: RegionOffset | undefined): void {
  writeUInt48(bytes, position, at?.offset ?? 0);
  bytes.writeUInt16LE(at?.region ?? 0, position + 6);
}

/** Data offset, then length in bits 0-47, type in 48-55, bit 56 sparse. */
export function readStreamRecord(bytes: Buffer, position: number): StreamRecord {
  return {
    at: readRegionOffset(bytes, position),
    size: readUInt48(bytes, position + 8),
    type: bytes.readUInt8(position + 14),
    sparse: (bytes.readUInt8(position + 15) & 1) !== 0,
  };
}

export function writeStreamRecord(bytes: Buffer, position: number, stream: StreamRecord): void {
  writeRegionOffset(bytes, position, stream.at);
  writeUInt48(bytes, position + 8, stream.size);
  bytes.writeUInt8(stream.type, position + 14);
  bytes.writeUInt8(stream.sparse ? 1 : 0, position + 15);
}

const GUID_PATTERN = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

export function isGuid(text: string): boolean {
  return GUID_PATTERN.test(text);
}

/** A GUID in Windows' mixed-endian order: the first three groups little-endian, the rest as written. */
export function encodeGuid(guid: string): Buffer {
  const bytes = Buffer.from(guid.replaceAll('-', ''), 'hex');
  bytes.subarray(0, 4).reverse();
  bytes.subarray(4, 6).reverse();
  bytes.subarray(6, 8).reverse();
  return bytes;
}

export function decodeGuid(bytes: Buffer, position: number): string {
  const group = (start: number, end: number) => bytes.toString('hex', position + start, position + end);
  const swapped = (start: number, end: number) =>
    Buffer.from(bytes.subarray(position + start, position + end))
      .reverse()
      .toString('hex');
  return [swapped(0, 4), swapped(4, 6), swapped(6, 8), group(8, 10), group(10, 16)].join('-');
}

function commonHeader(size: number, type: FileType): Buffer {
  const bytes = Buffer.alloc(size);
  MAGIC.copy(bytes);
  bytes.writeUInt32LE(size, 8);
  bytes.writeUInt8(type, 12);
  bytes.writeUInt32LE(VERSION.major, 16);
  bytes.writeUInt32LE(VERSION.minor, 20);
  return bytes;
}

function readVersion(bytes: Buffer, file: string, size: number, type: FileType, what: string) {
  if (bytes.length < size) throw corruptAt(file, bytes.length, `${what} ends within its ${size}-byte header`);
  if (!bytes.subarray(0, MAGIC.length).equals(MAGIC)) throw corruptAt(file, 0, `${what}: not a CIM file`);
  const found = bytes.readUInt8(12);
  if (found !== type) throw corruptAt(file, 12, `${what}: file type is ${found}, not ${type}`);
  return { major: bytes.readUInt32LE(16), minor: bytes.readUInt32LE(20) };
}

/** Refuses a version whose bodies this reader does not know. */
export function requireVersion(file: string, version: { major: number; minor: number }): void {
  if (version.major === VERSION.major) return;
  throw new CimletError(
    'unsupported-host',
    `open CIM ${file}: format version ${version.major}.${version.minor} cannot be read, only 1.x`,
    { hint: 'images that Windows wrote (2.x, 3.x) are read by Windows; `cim inspect` lists their files' },
  );
}

/** The files of a version 1 image are of version 1 as well: another number is damage. */
function requireOwnVersion(bytes: Buffer, file: string, size: number, type: FileType, what: string): void {
  const { major, minor } = readVersion(bytes, file, size, type, what);
  if (major !== VERSION.major)
    throw corruptAt(file, 16, `${what}: format version is ${major}.${minor}, the image's is 1.x`);
}

function readRegionSet(bytes: Buffer, position: number): RegionSet {
  return { guid: decodeGuid(bytes, position), count: bytes.readUInt16LE(position + 16) };
}

function writeRegionSet(bytes: Buffer, position: number, set: RegionSet): void {
  encodeGuid(set.guid).copy(bytes, position);
  bytes.writeUInt16LE(set.count, position + 16);
}

export function encodeImageHeader(header: Omit<ImageHeader, 'version'>): Buffer {
  const bytes = Buffer.concat([
    commonHeader(IMAGE_HEADER_SIZE, FileType.image),
    Buffer.alloc(header.parents.length * REGION_SET_SIZE),
  ]);
  writeRegionSet(bytes, 32, header.own);
  writeRegionOffset(bytes, 56, header.filesystem);
  bytes.writeUInt16LE(header.parents.length, 70);
  header.parents.forEach((set, i) => {
    writeRegionSet(bytes, IMAGE_HEADER_SIZE + i * REGION_SET_SIZE, set);
  });
  return bytes;
}

/** Decodes a `.cim` file of any version: the header and the file list are common to all published ones. */
export function decodeImageHeader(bytes: Buffer, file: string): ImageHeader {
  const version = readVersion(bytes, file, IMAGE_HEADER_SIZE, FileType.image, 'image');
  const parentCount = bytes.readUInt16LE(70);
  const end = IMAGE_HEADER_SIZE + parentCount * REGION_SET_SIZE;
  if (bytes.length < end)
    throw corruptAt(file, 70, `image ends within its ${parentCount} parent region sets`);
  const parents = Array.from({ length: parentCount }, (_, i) =>
    readRegionSet(bytes, IMAGE_HEADER_SIZE + i * REGION_SET_SIZE),
  );
  const own = readRegionSet(bytes, 32);
  const total = parents.reduce((sum, set) => sum + set.count, own.count);
  if (total === 0 || total > MAX_REGIONS) throw corruptAt(file, 48, `image has ${total} regions`);
  return { version, own, parents, filesystem: readRegionOffset(bytes, 56) };
}

export function encodeRegionHeader(header: RegionHeader): Buffer {
  const bytes = commonHeader(REGION_HEADER_SIZE, FileType.region);
  bytes.writeUInt16LE(header.index, 32);
  bytes.writeUInt8(header.type, 34);
  return bytes;
}

export function decodeRegionHeader(bytes: Buffer, file: string): RegionHeader {
  requireOwnVersion(bytes, file, REGION_HEADER_SIZE, FileType.region, 'region');
  return { index: bytes.readUInt16LE(32), type: bytes.readUInt8(34) };
}

export function encodeObjectIdHeader(header: ObjectIdHeader): Buffer {
  const bytes = commonHeader(OBJECT_ID_HEADER_SIZE, FileType.objectId);
  bytes.writeUInt16LE(header.index, 32);
  bytes.writeUInt8(header.type, 34);
  bytes.writeUInt32LE(header.tableOffset, 40);
  bytes.writeUInt32LE(header.count, 44);
  return bytes;
}

export function decodeObjectIdHeader(bytes: Buffer, file: string): ObjectIdHeader {
  requireOwnVersion(bytes, file, OBJECT_ID_HEADER_SIZE, FileType.objectId, 'object ID file');
  const tableOffset = bytes.readUInt32LE(40);
  const count = bytes.readUInt32LE(44);
  if (tableOffset + count * OBJECT_ID_ENTRY_SIZE > bytes.length)
    throw corruptAt(file, 44, `${count} object IDs do not fit into ${bytes.length} bytes`);
  return { index: bytes.readUInt16LE(32), type: bytes.readUInt8(34), tableOffset, count };
}

export function encodeFilesystem(filesystem: Filesystem): Buffer {
  const bytes = Buffer.alloc(FILESYSTEM_SIZE);
  writeRegionOffset(bytes, 0, filesystem.upcase);
  writeRegionOffset(bytes, 8, filesystem.tables);
  bytes.writeUInt32LE(filesystem.tableCount, 16);
  bytes.writeUInt32LE(filesystem.root, 20);
  return bytes;
}

export function decodeFilesystem(bytes: Buffer): Filesystem {
  return {
    upcase: readRegionOffset(bytes, 0),
    tables: readRegionOffset(bytes, 8),
    tableCount: bytes.readUInt32LE(16),
    root: bytes.readUInt32LE(20),
  };
}

export function writeTableEntry(bytes: Buffer, position: number, entry: TableEntry): void {
  writeRegionOffset(bytes, position, entry.at);
  bytes.writeUInt16LE(entry.count, position + 8);
  bytes.writeUInt16LE(entry.entrySize, position + 10);
}

export function readTableEntry(bytes: Buffer, position: number): TableEntry {
  return {
    at: readRegionOffset(bytes, position),
    count: bytes.readUInt16LE(position + 8),
    entrySize: bytes.readUInt16LE(position + 10),
  };
}
