/**
 * Files written and read whole, with all that NTFS keeps of them: BackupWrite and BackupRead of kernel32.dll. Blocks.
 * https://learn.microsoft.com/windows/win32/backup/backing-up-data-in-an-ntfs-file-stream
 */

import { C, out, type Signature } from '../library.ts';
import { BOOL, HANDLE } from './ctypes.ts';
import type { Dll, Dlls } from './dll.ts';
import { type FileNames, fileNames, longPath } from './file-names.ts';
import { FILE_BASIC_INFO, StructBuffer } from './file-structs.ts';
import { FileAccess, FileDisposition, FileFlag, FileShare } from './kernel32.ts';

const { int32, uint32, str16, pointer } = C;

const CALLS = {
  CreateFileW: [HANDLE, [str16, uint32, uint32, pointer, uint32, uint32, HANDLE]],
  CloseHandle: [BOOL, [HANDLE]],
  WriteFile: [BOOL, [HANDLE, pointer, uint32, out(uint32), pointer]],
  BackupRead: [BOOL, [HANDLE, pointer, uint32, out(uint32), BOOL, BOOL, pointer]],
  BackupWrite: [BOOL, [HANDLE, pointer, uint32, out(uint32), BOOL, BOOL, pointer]],
  SetFileInformationByHandle: [BOOL, [HANDLE, int32, pointer, uint32]],
} satisfies Record<string, Signature>;

/** WRITE_DAC, WRITE_OWNER and ACCESS_SYSTEM_SECURITY, with which BackupWrite sets a whole security descriptor. */
const SECURITY_ACCESS = 0x40000 | 0x80000 | 0x1000000;
const FILE_WRITE_ATTRIBUTES = 0x100;

const FILE_BASIC_CLASS = 0;

/** In 100 ns since 1601-01-01 UTC; what is 0 stays as it is. */
export interface FileBasics {
  creationTime: bigint;
  lastAccessTime: bigint;
  lastWriteTime: bigint;
  changeTime: bigint;
  attributes: number;
}

/** An open file or directory; a link itself, never what it points at. */
export interface BackupFile {
  /** Appends bytes as any program does. */
  write(bytes: Uint8Array): void;
  /** Takes backup streams, cut anywhere. */
  restore(bytes: Uint8Array): void;
  /** Fills a buffer with backup streams; how many bytes, 0 at the end. */
  backUp(buffer: Uint8Array): number;
  setBasics(basics: FileBasics): void;
  /** Any number of times. */
  close(): void;
}

export interface BackupFiles extends FileNames {
  create(path: string): BackupFile;
  /** Makes a file to be restored. Needs SeRestorePrivilege and SeSecurityPrivilege. */
  createToRestore(path: string): BackupFile;
  /** Opens what is there, a directory too, to be restored; the same privileges. */
  openToRestore(path: string): BackupFile;
  /** Opens what is there to be backed up. Needs SeBackupPrivilege. */
  openToBackUp(path: string): BackupFile;
  /** Sets attributes and times of what is there. */
  setBasics(path: string, basics: FileBasics): void;
}

export function backupFiles(dlls: Dlls): BackupFiles {
  const kernel32 = dlls.open('kernel32.dll', CALLS);
  const open = (path: string, access: number, disposition: number): BackupFile => {
    const flags = FileFlag.backupSemantics | FileFlag.openReparsePoint;
    const args = [longPath(path), access, FileShare.read, null, disposition, flags, 0];
    return new OpenFile(kernel32, path, kernel32.callNow(`open ${path}`, 'CreateFileW', ...args));
  };
  // Bitwise operators would make it negative.
  const restoring = FileAccess.read + FileAccess.write + SECURITY_ACCESS;
  return {
    ...fileNames(dlls),
    create: (path) => open(path, FileAccess.read + FileAccess.write, FileDisposition.createNew),
    createToRestore: (path) => open(path, restoring, FileDisposition.createNew),
    openToRestore: (path) => open(path, restoring, FileDisposition.openExisting),
    openToBackUp: (path) => open(path, FileAccess.read, FileDisposition.openExisting),
    setBasics: (path, basics) => {
      const file = open(path, FILE_WRITE_ATTRIBUTES, FileDisposition.openExisting);
      try {
        file.setBasics(basics);
      } finally {
        file.close();
      }
    },
  };
}

class OpenFile implements BackupFile {
  readonly #kernel32: Dll<keyof typeof CALLS>;
  readonly #path: string;
  #handle: number | undefined;
  /** Where Windows keeps how far it is in the streams; whoever used it must give it back. */
  readonly #context = Buffer.alloc(8);
  #used: 'BackupRead' | 'BackupWrite' | undefined;

  constructor(kernel32: Dll<keyof typeof CALLS>, path: string, handle: number) {
    this.#kernel32 = kernel32;
    this.#path = path;
    this.#handle = handle;
  }

  write(bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length; ) {
      const count = [0];
      const rest = bytes.subarray(done);
      this.#call('write', 'WriteFile', rest, rest.length, count, null);
      done += count[0] ?? 0;
    }
  }

  restore(bytes: Uint8Array): void {
    this.#used = 'BackupWrite';
    for (let done = 0; done < bytes.length; ) {
      const count = [0];
      const rest = bytes.subarray(done);
      this.#call('restore', 'BackupWrite', rest, rest.length, count, 0, 1, this.#context);
      done += count[0] ?? 0;
    }
  }

  backUp(buffer: Uint8Array): number {
    this.#used = 'BackupRead';
    const count = [0];
    this.#call('back up', 'BackupRead', buffer, buffer.length, count, 0, 1, this.#context);
    return count[0] ?? 0;
  }

  setBasics({ creationTime, lastAccessTime, lastWriteTime, changeTime, attributes }: FileBasics): void {
    const info = new StructBuffer(FILE_BASIC_INFO);
    const { buffer } = info;
    buffer.writeBigInt64LE(creationTime, info.at('CreationTime'));
    buffer.writeBigInt64LE(lastAccessTime, info.at('LastAccessTime'));
    buffer.writeBigInt64LE(lastWriteTime, info.at('LastWriteTime'));
    buffer.writeBigInt64LE(changeTime, info.at('ChangeTime'));
    buffer.writeUInt32LE(attributes, info.at('FileAttributes'));
    this.#call('set times of', 'SetFileInformationByHandle', FILE_BASIC_CLASS, buffer, buffer.length);
  }

  close(): void {
    const handle = this.#handle;
    if (handle === undefined) return;
    try {
      if (this.#used !== undefined) this.#call('close', this.#used, null, 0, [0], 1, 1, this.#context);
    } finally {
      this.#handle = undefined;
      this.#kernel32.callNow(`close ${this.#path}`, 'CloseHandle', handle);
    }
  }

  #call(verb: string, name: keyof typeof CALLS, ...args: readonly unknown[]): void {
    if (this.#handle === undefined) throw new Error(`${verb} ${this.#path}: it is closed`);
    this.#kernel32.callNow(`${verb} ${this.#path}`, name, this.#handle, ...args);
  }
}
