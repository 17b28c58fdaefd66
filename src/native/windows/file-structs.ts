/** Structs that say of a file what it is, or what to make of it: winbase.h, and those of the native calls (ntifs.h). */

import { array, C, layoutOf, pointerTo, type Struct, struct } from '../library.ts';
import { HANDLE } from './ctypes.ts';

const { uint8, uint16, uint32, int64, uint64, intptr, str16, pointer } = C;

/** https://learn.microsoft.com/windows/win32/api/winbase/ns-winbase-file_basic_info. Times in 100 ns since 1601-01-01 UTC. */
export const FILE_BASIC_INFO = struct('FILE_BASIC_INFO', {
  CreationTime: int64,
  LastAccessTime: int64,
  LastWriteTime: int64,
  ChangeTime: int64,
  FileAttributes: uint32,
});

export const FILE_STANDARD_INFO = struct('FILE_STANDARD_INFO', {
  AllocationSize: int64,
  EndOfFile: int64,
  NumberOfLinks: uint32,
  DeletePending: uint8,
  Directory: uint8,
});

export const FILE_ATTRIBUTE_TAG_INFO = struct('FILE_ATTRIBUTE_TAG_INFO', {
  FileAttributes: uint32,
  ReparseTag: uint32,
});

export const FILE_ID_INFO = struct('FILE_ID_INFO', {
  VolumeSerialNumber: uint64,
  FileId: array(uint8, 16),
});

export const FILE_DISPOSITION_INFO_EX = struct('FILE_DISPOSITION_INFO_EX', { Flags: uint32 });

/** https://learn.microsoft.com/windows/win32/api/fileapi/ns-fileapi-win32_find_stream_data */
export const WIN32_FIND_STREAM_DATA = struct('WIN32_FIND_STREAM_DATA', {
  StreamSize: int64,
  cStreamName: array(uint16, 296),
});

/** https://learn.microsoft.com/windows-hardware/drivers/ddi/ntifs/ns-ntifs-_file_link_information. The name follows. */
export const FILE_LINK_INFORMATION = struct('FILE_LINK_INFORMATION', {
  ReplaceIfExists: uint8,
  RootDirectory: HANDLE,
  FileNameLength: uint32,
  FileName: array(uint16, 1),
});

export const IO_STATUS_BLOCK = struct('IO_STATUS_BLOCK', { Status: intptr, Information: intptr });

/** Lengths in bytes. */
export const UNICODE_STRING = struct('UNICODE_STRING', {
  Length: uint16,
  MaximumLength: uint16,
  Buffer: str16,
});

export const OBJECT_ATTRIBUTES = struct('OBJECT_ATTRIBUTES', {
  Length: uint32,
  RootDirectory: HANDLE,
  ObjectName: pointerTo(UNICODE_STRING),
  Attributes: uint32,
  SecurityDescriptor: pointer,
  SecurityQualityOfService: pointer,
});

/** A struct in memory, whose fields are read and written by their names. */
export class StructBuffer {
  readonly buffer: Buffer;
  readonly #offsets: Readonly<Record<string, number>>;

  /** `extra`: bytes beyond the struct. */
  constructor(type: Struct, extra = 0) {
    const { size, offsets } = layoutOf(type);
    this.buffer = Buffer.alloc(size + extra);
    this.#offsets = offsets;
  }

  at(field: string): number {
    const offset = this.#offsets[field];
    if (offset === undefined) throw new Error(`no field ${field} in the struct`);
    return offset;
  }

  uint32(field: string): number {
    return this.buffer.readUInt32LE(this.at(field));
  }

  int64(field: string): bigint {
    return this.buffer.readBigInt64LE(this.at(field));
  }
}
