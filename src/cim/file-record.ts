/** The 88-byte file entry, and what it says as a FileInfo. */

import {
  type RegionOffset,
  readRegionOffset,
  readStreamRecord,
  type StreamRecord,
  StreamType,
  writeRegionOffset,
  writeStreamRecord,
} from './format.ts';
import { FileAttribute, type FileId, type FileInfo, type FileMetadata, type LayerMark } from './types.ts';

export const FILE_RECORD_SIZE = 88;

/** Where a file entry's fields are, in bytes from its start. */
export const FileField = {
  flags: 0,
  eaLength: 2,
  reparseTag: 4,
  creationTime: 8,
  lastWriteTime: 16,
  changeTime: 24,
  lastAccessTime: 32,
  defaultStream: 40,
  securityDescriptor: 56,
  extendedAttributes: 64,
  reparseData: 72,
  streamTable: 80,
} as const;

/** One entry within a file table; tables in memory always have entries of FILE_RECORD_SIZE bytes. */
export interface FileSlot {
  table: Buffer;
  position: number;
}

/** Attribute bits that a file entry stores, each with its flag bit. */
const FLAGS = [
  [FileAttribute.readOnly, 1],
  [FileAttribute.hidden, 2],
  [FileAttribute.system, 4],
  [FileAttribute.archive, 8],
  [FileAttribute.sparse, 16],
] as const;

export const KNOWN_FLAGS = 0x1f;

/**
 * Flags of the embedded host's block CIMs, which version 1 has no use for. A merge link's target (UTF-16LE) is where reparse data would be;
 * a tombstone on a directory makes it opaque.
 */
export const MarkFlag = { mergeLink: 0x4000, tombstone: 0x8000 } as const;
export const MARK_FLAGS = MarkFlag.mergeLink | MarkFlag.tombstone;

export interface FileBlobs {
  securityDescriptor: RegionOffset | undefined;
  extendedAttributes: RegionOffset | undefined;
  eaLength: number;
  reparseData: RegionOffset | undefined;
  reparseTag: number;
}

/** Writes everything but the default stream and the stream table, which are cleared. */
export function writeFileRecord(slot: FileSlot, metadata: FileMetadata, blobs: FileBlobs): void {
  const { table, position } = slot;
  table.fill(0, position, position + FILE_RECORD_SIZE);
  let flags = 0;
  for (const [attribute, flag] of FLAGS) if (metadata.attributes & attribute) flags |= flag;
  table.writeUInt16LE(flags, position + FileField.flags);
  table.writeUInt16LE(blobs.eaLength, position + FileField.eaLength);
  table.writeUInt32LE(blobs.reparseTag, position + FileField.reparseTag);
  table.writeBigUInt64LE(metadata.creationTime, position + FileField.creationTime);
  table.writeBigUInt64LE(metadata.lastWriteTime, position + FileField.lastWriteTime);
  table.writeBigUInt64LE(metadata.changeTime, position + FileField.changeTime);
  table.writeBigUInt64LE(metadata.lastAccessTime, position + FileField.lastAccessTime);
  writeRegionOffset(table, position + FileField.securityDescriptor, blobs.securityDescriptor);
  writeRegionOffset(table, position + FileField.extendedAttributes, blobs.extendedAttributes);
  writeRegionOffset(table, position + FileField.reparseData, blobs.reparseData);
}

/** Writes an entry that is no file: a tombstone, or with `target` a merge link. */
export function writeMarkRecord(slot: FileSlot, target: RegionOffset | undefined): void {
  const { table, position } = slot;
  table.fill(0, position, position + FILE_RECORD_SIZE);
  writeRegionOffset(table, position + FileField.reparseData, target);
  setMarkFlag(slot, target === undefined ? MarkFlag.tombstone : MarkFlag.mergeLink);
}

export function setMarkFlag({ table, position }: FileSlot, flag: number): void {
  table.writeUInt16LE(table.readUInt16LE(position + FileField.flags) | flag, position + FileField.flags);
}

/** What the entry says of lower layers, without the target of a merge link. */
export function markKind(slot: FileSlot): LayerMark['kind'] | undefined {
  const flags = slot.table.readUInt16LE(slot.position + FileField.flags);
  if (flags & MarkFlag.mergeLink) return 'merge-link';
  if ((flags & MarkFlag.tombstone) === 0) return undefined;
  return isDirectory(slot) ? 'opaque' : 'tombstone';
}

export function defaultStream(slot: FileSlot): StreamRecord {
  return readStreamRecord(slot.table, slot.position + FileField.defaultStream);
}

export function setDefaultStream(slot: FileSlot, stream: StreamRecord): void {
  writeStreamRecord(slot.table, slot.position + FileField.defaultStream, stream);
}

export function streamTable(slot: FileSlot): RegionOffset | undefined {
  return readRegionOffset(slot.table, slot.position + FileField.streamTable);
}

export function setStreamTable(slot: FileSlot, at: RegionOffset | undefined): void {
  writeRegionOffset(slot.table, slot.position + FileField.streamTable, at);
}

/** Directories are the files whose default stream is a link table. */
export function isDirectory(slot: FileSlot): boolean {
  return slot.table.readUInt8(slot.position + FileField.defaultStream + 14) === StreamType.linkTable;
}

export function fileBlobs(slot: FileSlot): FileBlobs {
  const { table, position } = slot;
  return {
    securityDescriptor: readRegionOffset(table, position + FileField.securityDescriptor),
    extendedAttributes: readRegionOffset(table, position + FileField.extendedAttributes),
    eaLength: table.readUInt16LE(position + FileField.eaLength),
    reparseData: readRegionOffset(table, position + FileField.reparseData),
    reparseTag: table.readUInt32LE(position + FileField.reparseTag),
  };
}

/** Fetches what a file entry points to: a blob after its u16 length, or a blob of a known length. */
export interface BlobSource {
  counted(at: RegionOffset, what: string): Buffer;
  sized(at: RegionOffset, length: number, what: string): Buffer;
}

export function describeFile(id: FileId, slot: FileSlot, source: BlobSource): FileInfo {
  const { table, position } = slot;
  const flags = table.readUInt16LE(position + FileField.flags);
  const directory = isDirectory(slot);
  const blobs = fileBlobs(slot);
  let attributes = 0;
  for (const [attribute, flag] of FLAGS) if (flags & flag) attributes |= attribute;
  if (directory) attributes |= FileAttribute.directory;
  const kind = markKind(slot);
  const reparse = blobs.reparseData && source.counted(blobs.reparseData, `reparse data of file ${id}`);
  const mark: LayerMark | undefined =
    kind === 'merge-link' ? { kind, target: reparse?.toString('utf16le') ?? '' } : kind && { kind };
  const reparseData = kind === 'merge-link' ? undefined : reparse;
  if (reparseData) attributes |= FileAttribute.reparsePoint;
  return {
    id,
    isDirectory: directory,
    attributes,
    size: directory ? 0 : defaultStream(slot).size,
    creationTime: table.readBigUInt64LE(position + FileField.creationTime),
    lastWriteTime: table.readBigUInt64LE(position + FileField.lastWriteTime),
    changeTime: table.readBigUInt64LE(position + FileField.changeTime),
    lastAccessTime: table.readBigUInt64LE(position + FileField.lastAccessTime),
    reparseTag: blobs.reparseTag,
    securityDescriptor:
      blobs.securityDescriptor &&
      source.counted(blobs.securityDescriptor, `security descriptor of file ${id}`),
    extendedAttributes:
      blobs.extendedAttributes &&
      source.sized(blobs.extendedAttributes, blobs.eaLength, `extended attributes of file ${id}`),
    reparseData,
    ...(mark && { mark }),
  };
}
