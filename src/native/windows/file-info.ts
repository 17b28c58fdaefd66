/**
 * What Windows knows of one file and Node doesn't tell: attributes, 100 ns times, reparse points, descriptor, extended
 * attributes, streams.
 */

import { C, type Struct } from '../library.ts';
import { BOOL, HANDLE, NTSTATUS } from './ctypes.ts';
import type { Dlls } from './dll.ts';
import {
  FILE_ATTRIBUTE_TAG_INFO,
  FILE_BASIC_INFO,
  FILE_ID_INFO,
  FILE_STANDARD_INFO,
  IO_STATUS_BLOCK,
  StructBuffer,
  WIN32_FIND_STREAM_DATA,
} from './file-structs.ts';
import { ControlCode } from './kernel32.ts';
import { Win32Error } from './status.ts';

/** FILE_READ_EA, FILE_READ_ATTRIBUTES, READ_CONTROL. */
const READ_METADATA = 0x0002_0088;
const SHARE_ALL = 7;
const OPEN_EXISTING = 3;
/** FILE_FLAG_BACKUP_SEMANTICS, for directories, and FILE_FLAG_OPEN_REPARSE_POINT, for links themselves. */
const BACKUP_AND_REPARSE = 0x0220_0000;

const BASIC = { class: 0, struct: FILE_BASIC_INFO } as const;
const STANDARD = { class: 1, struct: FILE_STANDARD_INFO } as const;
const TAG = { class: 9, struct: FILE_ATTRIBUTE_TAG_INFO } as const;
const ID = { class: 18, struct: FILE_ID_INFO } as const;

/** The most that either can have. */
const REPARSE_BYTES = 16_384;
const EXTENDED_ATTRIBUTE_BYTES = 65_536;
/** What a file says that has none, or whose file system knows none. */
const NO_EXTENDED_ATTRIBUTES = new Set([0xc000_004f, 0xc000_0052, 0xc000_0002, 0xc000_00bb]);

const OWNER_GROUP_DACL = 7;
const HANDLE_EOF = 38;

const KERNEL32 = {
  CreateFileW: [HANDLE, [C.str16, C.uint32, C.uint32, C.pointer, C.uint32, C.uint32, HANDLE]],
  CloseHandle: [BOOL, [HANDLE]],
  GetFileInformationByHandleEx: [BOOL, [HANDLE, C.int, C.pointer, C.uint32]],
  FindFirstStreamW: [HANDLE, [C.str16, C.int, C.pointer, C.uint32]],
  FindNextStreamW: [BOOL, [HANDLE, C.pointer]],
  FindClose: [BOOL, [HANDLE]],
  DeviceIoControl: [BOOL, [HANDLE, C.uint32, C.pointer, C.uint32, C.pointer, C.uint32, C.pointer, C.pointer]],
} as const;

const NTDLL = {
  NtQueryEaFile: [
    NTSTATUS,
    [HANDLE, C.pointer, C.pointer, C.uint32, C.uint8, C.pointer, C.uint32, C.pointer, C.uint8],
  ],
} as const;

const ADVAPI32 = {
  GetKernelObjectSecurity: [BOOL, [HANDLE, C.uint32, C.pointer, C.uint32, C.pointer]],
} as const;

export interface WindowsFileInfo {
  attributes: number;
  isDirectory: boolean;
  /** 0 for what is no reparse point. */
  reparseTag: number;
  /** Bytes of the default stream. */
  size: number;
  /** In 100 ns since 1601-01-01 UTC. */
  creationTime: bigint;
  lastAccessTime: bigint;
  lastWriteTime: bigint;
  changeTime: bigint;
  /** How many names the file has. */
  links: number;
}

export interface WindowsStream {
  /** Without `:$DATA`. */
  name: string;
  size: number;
}

/** All of them block. Links aren't followed. */
export interface FileFacts {
  /** Undefined when there is nothing at the path. */
  info(path: string): WindowsFileInfo | undefined;
  /** Owner, group and DACL, self-relative. */
  securityDescriptor(path: string): Buffer;
  /** REPARSE_DATA_BUFFER of what is a reparse point. */
  reparseData(path: string): Buffer;
  /** FILE_FULL_EA_INFORMATION chain; undefined when there are none. */
  extendedAttributes(path: string): Buffer | undefined;
  /** The same for all names of a file, as long as it is open or not deleted. */
  fileId(path: string): string;
  /** Alternate data streams. */
  streams(path: string): WindowsStream[];
}

/** https://learn.microsoft.com/windows/win32/api/winbase/nf-winbase-getfileinformationbyhandleex and its neighbours. */
export function fileFacts(dlls: Dlls): FileFacts {
  const kernel32 = dlls.open('kernel32.dll', KERNEL32);
  const advapi32 = dlls.open('advapi32.dll', ADVAPI32);
  const ntdll = dlls.open('ntdll.dll', NTDLL);

  /** Undefined when there is nothing. */
  function withFile<T>(path: string, use: (handle: number) => T): T | undefined {
    const args = [path, READ_METADATA, SHARE_ALL, null, OPEN_EXISTING, BACKUP_AND_REPARSE, 0];
    const { value, status } = kernel32.attemptNow('CreateFileW', ...args);
    if (status === Win32Error.FILE_NOT_FOUND || status === Win32Error.PATH_NOT_FOUND) return undefined;
    if (status !== 0) throw kernel32.failure(`look at ${path}`, 'CreateFileW', args, status);
    const handle = Number(value);
    try {
      return use(handle);
    } finally {
      kernel32.callNow(`close ${path}`, 'CloseHandle', handle);
    }
  }

  /** Throws `not-found` when there is nothing. */
  function withPresent<T>(operation: string, path: string, use: (handle: number) => T): T {
    const found = withFile(path, (handle) => ({ value: use(handle) }));
    if (found === undefined)
      throw kernel32.failure(operation, 'CreateFileW', [path], Win32Error.FILE_NOT_FOUND);
    return found.value;
  }

  function query(path: string, handle: number, kind: { class: number; struct: Struct }): StructBuffer {
    const info = new StructBuffer(kind.struct);
    const args = [handle, kind.class, info.buffer, info.buffer.length];
    kernel32.callNow(`look at ${path}`, 'GetFileInformationByHandleEx', ...args);
    return info;
  }

  return {
    info: (path) =>
      withFile(path, (handle) => {
        const basic = query(path, handle, BASIC);
        const standard = query(path, handle, STANDARD);
        const tag = query(path, handle, TAG);
        const attributes = basic.uint32('FileAttributes');
        return {
          attributes,
          isDirectory: (attributes & 0x10) !== 0,
          reparseTag: (attributes & 0x400) === 0 ? 0 : tag.uint32('ReparseTag'),
          size: Number(standard.int64('EndOfFile')),
          creationTime: basic.int64('CreationTime'),
          lastAccessTime: basic.int64('LastAccessTime'),
          lastWriteTime: basic.int64('LastWriteTime'),
          changeTime: basic.int64('ChangeTime'),
          links: standard.uint32('NumberOfLinks'),
        };
      }),
    securityDescriptor: (path) => {
      const operation = `read the security descriptor of ${path}`;
      return withPresent(operation, path, (handle) => {
        const needed = Buffer.alloc(4);
        const ask = (buffer: Buffer | null) =>
          advapi32.attemptNow(
            'GetKernelObjectSecurity',
            handle,
            OWNER_GROUP_DACL,
            buffer,
            buffer?.length ?? 0,
            needed,
          );
        const { status } = ask(null);
        if (status !== 0 && status !== Win32Error.INSUFFICIENT_BUFFER)
          throw advapi32.failure(operation, 'GetKernelObjectSecurity', [], status);
        const buffer = Buffer.alloc(needed.readUInt32LE(0));
        const second = ask(buffer).status;
        if (second !== 0) throw advapi32.failure(operation, 'GetKernelObjectSecurity', [], second);
        return buffer;
      });
    },
    reparseData: (path) => {
      const operation = `read the reparse point ${path}`;
      return withPresent(operation, path, (handle) => {
        const [buffer, returned] = [Buffer.alloc(REPARSE_BYTES), Buffer.alloc(4)];
        const code = ControlCode.FSCTL_GET_REPARSE_POINT;
        const args = [handle, code, null, 0, buffer, buffer.length, returned, null];
        kernel32.callNow(operation, 'DeviceIoControl', ...args);
        return buffer.subarray(0, returned.readUInt32LE());
      });
    },
    extendedAttributes: (path) => {
      const operation = `read the extended attributes of ${path}`;
      return withPresent(operation, path, (handle) => {
        const [buffer, status] = [Buffer.alloc(EXTENDED_ATTRIBUTE_BYTES), new StructBuffer(IO_STATUS_BLOCK)];
        const args = [handle, status.buffer, buffer, buffer.length, 0, null, 0, null, 1];
        const outcome = ntdll.attemptNow('NtQueryEaFile', ...args);
        if (NO_EXTENDED_ATTRIBUTES.has(outcome.status >>> 0)) return undefined;
        if (outcome.status !== 0) throw ntdll.failure(operation, 'NtQueryEaFile', args, outcome.status);
        return buffer.subarray(0, Number(status.int64('Information')));
      });
    },
    fileId: (path) =>
      withPresent(`ask which file ${path} is`, path, (handle) =>
        query(path, handle, ID).buffer.toString('hex'),
      ),
    streams: (path) => {
      const found: WindowsStream[] = [];
      const data = new StructBuffer(WIN32_FIND_STREAM_DATA);
      const first = kernel32.attemptNow('FindFirstStreamW', path, 0, data.buffer, 0);
      if (first.status === HANDLE_EOF) return found;
      if (first.status !== 0)
        throw kernel32.failure(`list the streams of ${path}`, 'FindFirstStreamW', [path], first.status);
      const handle = Number(first.value);
      try {
        for (;;) {
          const [, name = ''] = textIn(data.buffer, data.at('cStreamName')).split(':');
          if (name !== '') found.push({ name, size: Number(data.int64('StreamSize')) });
          const { status } = kernel32.attemptNow('FindNextStreamW', handle, data.buffer);
          if (status === HANDLE_EOF) return found;
          if (status !== 0)
            throw kernel32.failure(`list the streams of ${path}`, 'FindNextStreamW', [path], status);
        }
      } finally {
        kernel32.callNow(`list the streams of ${path}`, 'FindClose', handle);
      }
    },
  };
}

function textIn(buffer: Buffer, offset: number): string {
  const text = buffer.toString('utf16le', offset);
  const end = text.indexOf('\0');
  return end < 0 ? text : text.slice(0, end);
}
