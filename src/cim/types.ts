/**
 * What a CIM holds, as the rest of cimlet sees it. Paths inside a CIM are relative, separated by `/`, and compare
 * without case through the image's upcase table. Times are FILETIMEs: 100 ns units since 1601-01-01 UTC.
 */

/** Windows file attributes a CIM can hold (winnt.h). Directory and reparse point are implied by what the file is. */
export const FileAttribute = {
  readOnly: 0x1,
  hidden: 0x2,
  system: 0x4,
  directory: 0x10,
  archive: 0x20,
  sparse: 0x200,
  reparsePoint: 0x400,
} as const;

export interface FileMetadata {
  /** FILE_ATTRIBUTE_* bits; `directory` decides whether a directory is created. */
  attributes: number;
  /** Bytes that will be written to the default stream; 0 for directories. */
  size: number;
  creationTime: bigint;
  lastWriteTime: bigint;
  changeTime: bigint;
  lastAccessTime: bigint;
  /** Self-relative SECURITY_DESCRIPTOR. Absent or empty becomes the NULL-DACL descriptor. */
  securityDescriptor?: Uint8Array | undefined;
  /** REPARSE_DATA_BUFFER, tag first. */
  reparseData?: Uint8Array | undefined;
  /** FILE_FULL_EA_INFORMATION chain. */
  extendedAttributes?: Uint8Array | undefined;
}

/** A stream being written. Exactly the declared size must be written before `close`. */
export interface CimStream {
  write(data: Uint8Array): void;
  close(): void;
}

export type FileId = number;

/** Where a stream's bytes are, when they lie in one contiguous run of a region file. */
export interface DataExtent {
  /** Index into `CimReader.regions`. */
  region: number;
  /** Byte offset in that region file. */
  offset: number;
  length: number;
}

/**
 * What an entry of a block CIM says of the layers below it. A tombstone hides what they hold at its path; an opaque directory hides what they
 * hold below it; a merge link is another name of the file that they show at `target`. The first and the last are no files.
 */
export type LayerMark = { kind: 'tombstone' } | { kind: 'opaque' } | { kind: 'merge-link'; target: string };

export interface FileInfo extends FileMetadata {
  id: FileId;
  isDirectory: boolean;
  reparseTag: number;
  /** In block CIMs only. */
  mark?: LayerMark | undefined;
}

export interface StreamInfo {
  name: string;
  size: number;
}

export interface DirectoryEntry {
  name: string;
  id: FileId;
}
