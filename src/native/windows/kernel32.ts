/** kernel32.dll: files, handles and volumes. https://learn.microsoft.com/windows/win32/api/fileapi/ */

import { C, out, type Signature } from '../library.ts';
import { BOOL, HANDLE, ULARGE_INTEGER } from './ctypes.ts';
import type { Dll, Dlls } from './dll.ts';
import { isWin32Error } from './native-error.ts';
import { Win32Error } from './status.ts';

const { uint32, str16, pointer } = C;

const CALLS = {
  CloseHandle: [BOOL, [HANDLE]],
  CreateFileW: [HANDLE, [str16, uint32, uint32, pointer, uint32, uint32, HANDLE]],
  DeviceIoControl: [BOOL, [HANDLE, uint32, pointer, uint32, pointer, uint32, out(uint32), pointer]],
  SetVolumeMountPointW: [BOOL, [str16, str16]],
  DeleteVolumeMountPointW: [BOOL, [str16]],
  FindFirstVolumeW: [HANDLE, [pointer, uint32]],
  FindNextVolumeW: [BOOL, [HANDLE, pointer, uint32]],
  FindVolumeClose: [BOOL, [HANDLE]],
  GetVolumeInformationW: [
    BOOL,
    [str16, pointer, uint32, out(uint32), out(uint32), out(uint32), pointer, uint32],
  ],
  GetVolumeNameForVolumeMountPointW: [BOOL, [str16, pointer, uint32]],
  GetVolumePathNameW: [BOOL, [str16, pointer, uint32]],
  GetVolumePathNamesForVolumeNameW: [BOOL, [str16, pointer, uint32, out(uint32)]],
  GetDiskFreeSpaceExW: [BOOL, [str16, out(ULARGE_INTEGER), out(ULARGE_INTEGER), out(ULARGE_INTEGER)]],
} satisfies Record<string, Signature>;

export type FileHandle = number & { readonly brand: 'FileHandle' };

/** Access rights of `createFile`. */
export const FileAccess = { none: 0, read: 0x80000000, write: 0x40000000, delete: 0x10000 } as const;
/** What others may do meanwhile. */
export const FileShare = { read: 1, write: 2, delete: 4 } as const;
/** What to do when the file is there, and when it isn't. */
export const FileDisposition = { createNew: 1, createAlways: 2, openExisting: 3, openAlways: 4 } as const;
/** `backupSemantics` opens directories, and, with the backup privileges, anything; `openReparsePoint` the point itself. */
export const FileFlag = {
  openReparsePoint: 0x200000,
  backupSemantics: 0x2000000,
  writeThrough: 0x80000000,
} as const;

/** Control codes of `deviceIoControl`. */
export const ControlCode = {
  IOCTL_DISK_GET_LENGTH_INFO: 0x7405c,
  FSCTL_LOCK_VOLUME: 0x90018,
  FSCTL_EXTEND_VOLUME: 0x900f0,
  FSCTL_GET_REPARSE_POINT: 0x900a8,
} as const;

export interface VolumeInformation {
  label: string;
  serialNumber: number;
  /** `NTFS`, `ReFS`, `CimFS`. */
  fileSystem: string;
  maximumComponentLength: number;
  /** FILE_SUPPORTS_REPARSE_POINTS and the like. */
  flags: number;
}

export interface DiskSpace {
  available: bigint;
  total: bigint;
  free: bigint;
}

const NAME_UNITS = 261;
const VOLUME_UNITS = 64;
const REPARSE_BYTES = 16384;

/** Volume paths end in a backslash: `\\?\Volume{guid}\`. */
export class Kernel32 {
  readonly dll: Dll<keyof typeof CALLS>;

  constructor(dlls: Dlls) {
    this.dll = dlls.open('kernel32.dll', CALLS);
  }

  /** Close the handle with `closeHandle`. */
  async createFile(
    path: string,
    {
      access = FileAccess.none,
      share = FileShare.read | FileShare.write | FileShare.delete,
      disposition = FileDisposition.openExisting,
      flags = FileFlag.backupSemantics,
    }: { access?: number; share?: number; disposition?: number; flags?: number } = {},
  ): Promise<FileHandle> {
    const args = [path, access, share, null, disposition, flags, 0];
    return (await this.dll.call(`open ${path}`, 'CreateFileW', ...args)) as FileHandle;
  }

  closeHandle(handle: number): void {
    this.dll.callNow('close a handle', 'CloseHandle', handle);
  }

  /** The bytes that the device answered, at most `outputSize`. `operation` names what is being done and to what. */
  async deviceIoControl(
    operation: string,
    handle: number,
    code: number,
    input: Uint8Array | null,
    outputSize = 0,
  ): Promise<Uint8Array> {
    const output = outputSize === 0 ? null : new Uint8Array(outputSize);
    const returned = [0];
    const args = [handle, code, input, input?.length ?? 0, output, outputSize, returned, null];
    await this.dll.call(operation, 'DeviceIoControl', ...args);
    return output?.subarray(0, returned[0]) ?? new Uint8Array();
  }

  /** Bytes of an open disk or volume. */
  async diskLength(handle: FileHandle, path: string): Promise<bigint> {
    const operation = `ask for the length of ${path}`;
    const bytes = await this.deviceIoControl(
      operation,
      handle,
      ControlCode.IOCTL_DISK_GET_LENGTH_INFO,
      null,
      8,
    );
    return Buffer.from(bytes).readBigInt64LE();
  }

  /** Grows an open volume's file system to a number of 512-byte sectors. */
  async extendVolume(handle: FileHandle, path: string, sectors: bigint): Promise<void> {
    const input = Buffer.alloc(8);
    input.writeBigInt64LE(sectors);
    const operation = `extend ${path} to ${sectors} sectors`;
    await this.deviceIoControl(operation, handle, ControlCode.FSCTL_EXTEND_VOLUME, input);
  }

  /**
   * Whether anything on a volume is open: as long as something is, Windows lets nobody lock it. The lock ends with the call.
   * https://learn.microsoft.com/windows/win32/api/winioctl/ni-winioctl-fsctl_lock_volume
   */
  async isVolumeInUse(volume: string): Promise<boolean> {
    const path = volume.replace(/\\$/, '');
    const handle = await this.createFile(path, {
      access: FileAccess.read | FileAccess.write,
      share: FileShare.read | FileShare.write,
    });
    try {
      await this.deviceIoControl(`lock ${path}`, handle, ControlCode.FSCTL_LOCK_VOLUME, null);
      return false;
    } catch (error) {
      if (isWin32Error(error, Win32Error.ACCESS_DENIED)) return true;
      throw error;
    } finally {
      this.closeHandle(handle);
    }
  }

  /** The REPARSE_DATA_BUFFER of an open reparse point. */
  async reparsePoint(handle: FileHandle, path: string): Promise<Uint8Array> {
    const operation = `read the reparse point ${path}`;
    const code = ControlCode.FSCTL_GET_REPARSE_POINT;
    return this.deviceIoControl(operation, handle, code, null, REPARSE_BYTES);
  }

  /** Shows a volume in an empty directory of an NTFS volume. */
  async setVolumeMountPoint(directory: string, volume: string): Promise<void> {
    const args = [withTrailing(directory), withTrailing(volume)];
    await this.dll.call(`mount ${volume} at ${directory}`, 'SetVolumeMountPointW', ...args);
  }

  async deleteVolumeMountPoint(directory: string): Promise<void> {
    const path = withTrailing(directory);
    await this.dll.call(`remove the mount point ${directory}`, 'DeleteVolumeMountPointW', path);
  }

  /** The volume paths of all volumes that the mount manager knows. */
  async findVolumes(): Promise<string[]> {
    const buffer = Buffer.alloc(VOLUME_UNITS * 2);
    const search = await this.dll.call('list volumes', 'FindFirstVolumeW', buffer, VOLUME_UNITS);
    try {
      const volumes = [wideString(buffer)];
      for (;;) {
        const args = [search, buffer, VOLUME_UNITS];
        const { status } = await this.dll.attempt('FindNextVolumeW', ...args);
        if (status === Win32Error.NO_MORE_FILES) return volumes;
        if (status !== 0) throw this.dll.failure('list volumes', 'FindNextVolumeW', args, status);
        volumes.push(wideString(buffer));
      }
    } finally {
      this.dll.callNow('list volumes', 'FindVolumeClose', search);
    }
  }

  /** `root`: a volume path, drive or mount point. */
  async volumeInformation(root: string): Promise<VolumeInformation> {
    const [label, fileSystem] = [Buffer.alloc(NAME_UNITS * 2), Buffer.alloc(NAME_UNITS * 2)];
    const [serial, longest, flags] = [[0], [0], [0]];
    const args = [label, NAME_UNITS, serial, longest, flags, fileSystem, NAME_UNITS];
    const operation = `ask what volume ${root} is`;
    await this.dll.call(operation, 'GetVolumeInformationW', withTrailing(root), ...args);
    return {
      label: wideString(label),
      serialNumber: serial[0] ?? 0,
      fileSystem: wideString(fileSystem),
      maximumComponentLength: longest[0] ?? 0,
      flags: flags[0] ?? 0,
    };
  }

  /** The volume path of what is mounted at a directory or drive. */
  async volumeAt(mountPoint: string): Promise<string> {
    const buffer = Buffer.alloc(VOLUME_UNITS * 2);
    const args = [withTrailing(mountPoint), buffer, VOLUME_UNITS];
    const operation = `ask which volume is at ${mountPoint}`;
    await this.dll.call(operation, 'GetVolumeNameForVolumeMountPointW', ...args);
    return wideString(buffer);
  }

  /** The mount point of the volume that a path is on: `C:\`, or a directory that a volume is mounted at. */
  async volumeRoot(path: string): Promise<string> {
    const units = path.length + NAME_UNITS;
    const buffer = Buffer.alloc(units * 2);
    await this.dll.call(`ask which volume ${path} is on`, 'GetVolumePathNameW', path, buffer, units);
    return wideString(buffer);
  }

  /** Drives and directories at which a volume is mounted. */
  async mountPointsOf(volume: string): Promise<string[]> {
    const operation = `ask where ${volume} is mounted`;
    for (let units = NAME_UNITS; ; ) {
      const buffer = Buffer.alloc(units * 2);
      const needed = [0];
      const args = [withTrailing(volume), buffer, units, needed];
      const { status } = await this.dll.attempt('GetVolumePathNamesForVolumeNameW', ...args);
      if (status === 0) return wideStrings(buffer);
      if (status !== Win32Error.MORE_DATA)
        throw this.dll.failure(operation, 'GetVolumePathNamesForVolumeNameW', args, status);
      units = Math.max(units * 2, needed[0] ?? 0);
    }
  }

  /** In bytes; `available` to this user. */
  async diskSpace(directory: string): Promise<DiskSpace> {
    const [available, total, free]: [[number | bigint], [number | bigint], [number | bigint]] = [
      [0],
      [0],
      [0],
    ];
    const operation = `ask for the space of ${directory}`;
    await this.dll.call(operation, 'GetDiskFreeSpaceExW', withTrailing(directory), available, total, free);
    return { available: BigInt(available[0]), total: BigInt(total[0]), free: BigInt(free[0]) };
  }
}

function withTrailing(path: string): string {
  return path.endsWith('\\') ? path : `${path}\\`;
}

/** The text before the first NUL of a buffer that Windows filled. */
export function wideString(buffer: Buffer): string {
  return buffer.toString('utf16le').split('\0', 1)[0] ?? '';
}

/** A list of NUL-terminated texts that an empty one ends. */
export function wideStrings(buffer: Buffer): string[] {
  const all = buffer.toString('utf16le').split('\0');
  return all.slice(0, all.indexOf(''));
}
