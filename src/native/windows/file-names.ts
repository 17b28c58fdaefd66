/**
 * Names of files made and taken away as a restore does, whoever may do what by the descriptors: layers hold files and
 * directories of TrustedInstaller's, which administrators may only read. What Node calls (CreateDirectoryW, CreateHardLinkW) asks for
 * no more than a program's rights; hcsshim does the same (internal/safefile). Links aren't followed at the end of a path; the
 * caller sees to the directories above. Blocks. Needs SeBackupPrivilege and SeRestorePrivilege.
 */

import { readdirSync } from 'node:fs';
import { win32 } from 'node:path';
import { C, layoutOf, out, pointerTo, type Signature } from '../library.ts';
import { BOOL, HANDLE, NTSTATUS } from './ctypes.ts';
import type { Dlls } from './dll.ts';
import {
  FILE_ATTRIBUTE_TAG_INFO,
  FILE_BASIC_INFO,
  FILE_DISPOSITION_INFO_EX,
  FILE_LINK_INFORMATION,
  IO_STATUS_BLOCK,
  OBJECT_ATTRIBUTES,
  StructBuffer,
} from './file-structs.ts';
import { FileDisposition, FileFlag } from './kernel32.ts';
import { Win32Error } from './status.ts';

const { int32, uint32, str16, pointer } = C;

const KERNEL32 = {
  CreateFileW: [HANDLE, [str16, uint32, uint32, pointer, uint32, uint32, HANDLE]],
  CloseHandle: [BOOL, [HANDLE]],
  GetFileInformationByHandleEx: [BOOL, [HANDLE, int32, pointer, uint32]],
  SetFileInformationByHandle: [BOOL, [HANDLE, int32, pointer, uint32]],
} satisfies Record<string, Signature>;

const NTDLL = {
  NtCreateFile: [
    NTSTATUS,
    [
      ...[out(HANDLE), uint32, pointerTo(OBJECT_ATTRIBUTES), out(IO_STATUS_BLOCK), pointer],
      ...[uint32, uint32, uint32, uint32, pointer, uint32],
    ],
  ],
  NtSetInformationFile: [NTSTATUS, [HANDLE, out(IO_STATUS_BLOCK), pointer, uint32, int32]],
} satisfies Record<string, Signature>;

const READ_ATTRIBUTES = 0x80;
const WRITE_ATTRIBUTES = 0x100;
const DELETE = 0x1_0000;
const SYNCHRONIZE = 0x10_0000;
const SHARE_ALL = 7;

const FILE_ATTRIBUTE_NORMAL = 0x80;
const FILE_CREATE = 2;
/** FILE_DIRECTORY_FILE, FILE_SYNCHRONOUS_IO_NONALERT, FILE_OPEN_FOR_BACKUP_INTENT. */
const DIRECTORY_AS_RESTORED = 0x1 | 0x20 | 0x4000;
const OBJ_CASE_INSENSITIVE = 0x40;

const FILE_LINK_CLASS = 11;
const FILE_BASIC_CLASS = 0;
const FILE_DISPOSITION_CLASS = 4;
const FILE_ATTRIBUTE_TAG_CLASS = 9;
const FILE_DISPOSITION_EX_CLASS = 21;
/** FILE_DISPOSITION_DELETE, _POSIX_SEMANTICS, _IGNORE_READONLY_ATTRIBUTE: other names of the file keep that attribute. */
const DELETE_NAME = 0x1 | 0x2 | 0x10;
const READ_ONLY = 0x1;
const DIRECTORY = 0x10;
const REPARSE_POINT = 0x400;

export interface FileNames {
  makeDirectory(path: string): void;
  /** Another name for a file. */
  link(existing: string, path: string): void;
  /** With all that is in it. Nothing there is fine. */
  remove(path: string): void;
}

export function fileNames(dlls: Dlls): FileNames {
  const kernel32 = dlls.open('kernel32.dll', KERNEL32);
  const ntdll = dlls.open('ntdll.dll', NTDLL);

  function withOpen<T>(path: string, access: number, use: (handle: number) => T): T | undefined {
    const flags = FileFlag.backupSemantics | FileFlag.openReparsePoint;
    const args = [longPath(path), access, SHARE_ALL, null, FileDisposition.openExisting, flags, 0];
    const { value, status } = kernel32.attemptNow('CreateFileW', ...args);
    if (status === Win32Error.FILE_NOT_FOUND || status === Win32Error.PATH_NOT_FOUND) return undefined;
    if (status !== 0) throw kernel32.failure(`open ${path}`, 'CreateFileW', args, status);
    const handle = Number(value);
    try {
      return use(handle);
    } finally {
      kernel32.callNow(`close ${path}`, 'CloseHandle', handle);
    }
  }

  function attributesOf(path: string, handle: number): number {
    const info = new StructBuffer(FILE_ATTRIBUTE_TAG_INFO);
    const args = [handle, FILE_ATTRIBUTE_TAG_CLASS, info.buffer, info.buffer.length];
    kernel32.callNow(`look at ${path}`, 'GetFileInformationByHandleEx', ...args);
    return info.uint32('FileAttributes');
  }

  function remove(path: string): void {
    withOpen(path, READ_ATTRIBUTES | WRITE_ATTRIBUTES | DELETE, (handle) => {
      const attributes = attributesOf(path, handle);
      if ((attributes & (DIRECTORY | REPARSE_POINT)) === DIRECTORY)
        for (const name of readdirSync(longPath(path))) remove(win32.join(path, name));
      removeName(path, handle, attributes);
    });
  }

  /** What isn't NTFS knows only the older way, which takes no read-only file. */
  function removeName(path: string, handle: number, attributes: number): void {
    const set = (kind: number, info: Buffer) => [handle, kind, info, info.length] as const;
    const disposition = new StructBuffer(FILE_DISPOSITION_INFO_EX).buffer;
    disposition.writeUInt32LE(DELETE_NAME);
    const args = set(FILE_DISPOSITION_EX_CLASS, disposition);
    const { status } = kernel32.attemptNow('SetFileInformationByHandle', ...args);
    if (status === 0) return;
    const operation = `remove ${path}`;
    if (status !== Win32Error.INVALID_PARAMETER && status !== Win32Error.NOT_SUPPORTED)
      throw kernel32.failure(operation, 'SetFileInformationByHandle', args, status);
    if ((attributes & READ_ONLY) !== 0) {
      const basic = new StructBuffer(FILE_BASIC_INFO);
      basic.buffer.writeUInt32LE(
        attributes & ~READ_ONLY || FILE_ATTRIBUTE_NORMAL,
        basic.at('FileAttributes'),
      );
      kernel32.callNow(operation, 'SetFileInformationByHandle', ...set(FILE_BASIC_CLASS, basic.buffer));
    }
    const all = set(FILE_DISPOSITION_CLASS, Buffer.of(1));
    kernel32.callNow(operation, 'SetFileInformationByHandle', ...all);
  }

  return {
    remove,
    makeDirectory: (path) => {
      const name = nativePath(path);
      const length = name.length * 2;
      const attributes = {
        Length: layoutOf(OBJECT_ATTRIBUTES).size,
        RootDirectory: 0,
        ObjectName: { Length: length, MaximumLength: length, Buffer: name },
        Attributes: OBJ_CASE_INSENSITIVE,
        SecurityDescriptor: null,
        SecurityQualityOfService: null,
      };
      const handle = [0];
      ntdll.callNow(
        `make directory ${path}`,
        'NtCreateFile',
        ...[handle, READ_ATTRIBUTES | SYNCHRONIZE, attributes, {}, null, FILE_ATTRIBUTE_NORMAL],
        ...[SHARE_ALL, FILE_CREATE, DIRECTORY_AS_RESTORED, null, 0],
      );
      kernel32.callNow(`close ${path}`, 'CloseHandle', handle[0] ?? 0);
    },
    link: (existing, path) => {
      const operation = `link ${path} to ${existing}`;
      const name = Buffer.from(nativePath(path), 'utf16le');
      const info = new StructBuffer(FILE_LINK_INFORMATION, name.length);
      info.buffer.writeUInt32LE(name.length, info.at('FileNameLength'));
      name.copy(info.buffer, info.at('FileName'));
      const args = [{}, info.buffer, info.buffer.length, FILE_LINK_CLASS];
      const linked = withOpen(existing, WRITE_ATTRIBUTES, (handle) => {
        ntdll.callNow(operation, 'NtSetInformationFile', handle, ...args);
        return true;
      });
      if (linked === undefined)
        throw kernel32.failure(operation, 'CreateFileW', [existing], Win32Error.FILE_NOT_FOUND);
    },
  };
}

/** Past 260 characters Windows looks only at paths of this form. */
export function longPath(path: string): string {
  return path.startsWith('\\\\') ? path : `\\\\?\\${path.replaceAll('/', '\\')}`;
}

/** As the native calls have paths: those below `\\?\` are below `\??\`. */
function nativePath(path: string): string {
  return longPath(path).replace(/^\\\\\?\\/, '\\??\\');
}
