/** virtdisk.dll: VHD and VHDX files as disks. https://learn.microsoft.com/windows/win32/api/virtdisk/ */

import { C, out, pointerTo, type Signature, struct } from '../library.ts';
import { GUID, HANDLE, WIN32_ERROR } from './ctypes.ts';
import type { Dll, Dlls } from './dll.ts';
import { guidValue } from './guid.ts';
import type { Kernel32 } from './kernel32.ts';

const { int32, uint32, uint64, str16, pointer } = C;

export const VIRTUAL_STORAGE_TYPE = struct('VIRTUAL_STORAGE_TYPE', { DeviceId: uint32, VendorId: GUID });

const CREATE_VERSION_2 = struct('CREATE_VIRTUAL_DISK_PARAMETERS.Version2', {
  UniqueId: GUID,
  MaximumSize: uint64,
  BlockSizeInBytes: uint32,
  SectorSizeInBytes: uint32,
  PhysicalSectorSizeInBytes: uint32,
  ParentPath: str16,
  SourcePath: str16,
  OpenFlags: uint32,
  ParentVirtualStorageType: VIRTUAL_STORAGE_TYPE,
  SourceVirtualStorageType: VIRTUAL_STORAGE_TYPE,
  ResiliencyGuid: GUID,
});

/** The arm of the union that version 2 means, which is all that Windows reads of it. */
export const CREATE_VIRTUAL_DISK_PARAMETERS = struct('CREATE_VIRTUAL_DISK_PARAMETERS', {
  Version: uint32,
  Version2: CREATE_VERSION_2,
});

const OPEN_VERSION_2 = struct('OPEN_VIRTUAL_DISK_PARAMETERS.Version2', {
  GetInfoOnly: int32,
  ReadOnly: int32,
  ResiliencyGuid: GUID,
});

/** The same. */
export const OPEN_VIRTUAL_DISK_PARAMETERS = struct('OPEN_VIRTUAL_DISK_PARAMETERS', {
  Version: uint32,
  Version2: OPEN_VERSION_2,
});

/** Version 1's reserved zero lies where version 2's offset does. */
export const ATTACH_VIRTUAL_DISK_PARAMETERS = struct('ATTACH_VIRTUAL_DISK_PARAMETERS', {
  Version: uint32,
  RestrictedOffset: uint64,
  RestrictedLength: uint64,
});

const TYPE = pointerTo(VIRTUAL_STORAGE_TYPE);

const CALLS = {
  CreateVirtualDisk: [
    WIN32_ERROR,
    [
      TYPE,
      str16,
      uint32,
      pointer,
      uint32,
      uint32,
      pointerTo(CREATE_VIRTUAL_DISK_PARAMETERS),
      pointer,
      out(HANDLE),
    ],
  ],
  OpenVirtualDisk: [
    WIN32_ERROR,
    [TYPE, str16, uint32, uint32, pointerTo(OPEN_VIRTUAL_DISK_PARAMETERS), out(HANDLE)],
  ],
  AttachVirtualDisk: [
    WIN32_ERROR,
    [HANDLE, pointer, uint32, uint32, pointerTo(ATTACH_VIRTUAL_DISK_PARAMETERS), pointer],
  ],
  DetachVirtualDisk: [WIN32_ERROR, [HANDLE, uint32, uint32]],
  GetVirtualDiskPhysicalPath: [WIN32_ERROR, [HANDLE, pointer, pointer]],
} satisfies Record<string, Signature>;

/** Bits of `attach`'s flags. A disk stays attached only while a handle is open, unless its lifetime is permanent. */
export const AttachFlag = {
  readOnly: 1,
  noDriveLetter: 2,
  permanentLifetime: 4,
  noLocalHost: 8,
  bypassDefaultEncryptionPolicy: 0x20,
} as const;

const OPEN_CACHED_IO = 8;
const OPEN_IGNORE_RELATIVE_PARENT_LOCATOR = 0x80;

const ZERO_GUID = '00000000-0000-0000-0000-000000000000';
const VENDOR_MICROSOFT = 'ec984aec-a0f9-47e9-901f-71415a66345b';
const DEVICE_VHDX = 3;
const PATH_UNITS = 260;

/** What layers' disks have. */
const BLOCK_SIZE = 1 << 20;

export type DiskHandle = number & { readonly brand: 'DiskHandle' };

export class VirtDisk {
  readonly dll: Dll<keyof typeof CALLS>;
  readonly #kernel32: Kernel32;

  constructor(dlls: Dlls, kernel32: Kernel32) {
    this.dll = dlls.open('virtdisk.dll', CALLS);
    this.#kernel32 = kernel32;
  }

  /** Creates a growing VHDX of `size` bytes as its disk, and keeps it open. `already-exists` when the file is there. */
  async createVhdx(path: string, size: bigint): Promise<DiskHandle> {
    return this.#create(`create disk ${path}`, path, { MaximumSize: size, ParentPath: null, OpenFlags: 0 });
  }

  /** Creates a VHDX that holds what differs from `parent`, which must not change any more. */
  async createDifferencingVhdx(path: string, parent: string): Promise<void> {
    const operation = `create disk ${path} over ${parent}`;
    const how = { MaximumSize: 0n, ParentPath: parent, OpenFlags: OPEN_CACHED_IO };
    this.close(await this.#create(operation, path, how));
  }

  async open(path: string, { readOnly = false }: { readOnly?: boolean } = {}): Promise<DiskHandle> {
    const handle = [0];
    const parameters = {
      Version: 2,
      Version2: { GetInfoOnly: 0, ReadOnly: readOnly ? 1 : 0, ResiliencyGuid: guidValue(ZERO_GUID) },
    };
    const flags = OPEN_CACHED_IO | OPEN_IGNORE_RELATIVE_PARENT_LOCATOR;
    const args = [storageType(0, ZERO_GUID), path, 0, flags, parameters, handle];
    await this.dll.call(`open disk ${path}`, 'OpenVirtualDisk', ...args);
    return handle[0] as DiskHandle;
  }

  /** `flags` is of AttachFlag; `path` names the disk in errors. */
  async attach(disk: DiskHandle, path: string, flags: number): Promise<void> {
    const parameters = { Version: 1, RestrictedOffset: 0n, RestrictedLength: 0n };
    const args = [disk, null, flags, 0, parameters, null];
    await this.dll.call(`attach disk ${path}`, 'AttachVirtualDisk', ...args);
  }

  async detach(disk: DiskHandle, path: string): Promise<void> {
    await this.dll.call(`detach disk ${path}`, 'DetachVirtualDisk', disk, 0, 0);
  }

  /** `\\.\PhysicalDrive3` of an attached disk. */
  async physicalPath(disk: DiskHandle, path: string): Promise<string> {
    const [bytes, buffer] = [Buffer.alloc(4), Buffer.alloc(PATH_UNITS * 2)];
    bytes.writeUInt32LE(buffer.length);
    const operation = `ask for the drive of disk ${path}`;
    await this.dll.call(operation, 'GetVirtualDiskPhysicalPath', disk, bytes, buffer);
    return buffer.toString('utf16le').split('\0', 1)[0] ?? '';
  }

  close(disk: DiskHandle): void {
    this.#kernel32.closeHandle(disk);
  }

  async #create(
    operation: string,
    path: string,
    how: { MaximumSize: bigint; ParentPath: string | null; OpenFlags: number },
  ): Promise<DiskHandle> {
    const handle = [0];
    const none = storageType(0, ZERO_GUID);
    const parameters = {
      Version: 2,
      Version2: {
        ...how,
        UniqueId: guidValue(ZERO_GUID),
        BlockSizeInBytes: BLOCK_SIZE,
        SectorSizeInBytes: 0,
        PhysicalSectorSizeInBytes: 0,
        SourcePath: null,
        ParentVirtualStorageType: none,
        SourceVirtualStorageType: none,
        ResiliencyGuid: guidValue(ZERO_GUID),
      },
    };
    const type = storageType(DEVICE_VHDX, VENDOR_MICROSOFT);
    const args = [type, path, 0, null, 0, 0, parameters, null, handle];
    await this.dll.call(operation, 'CreateVirtualDisk', ...args);
    return handle[0] as DiskHandle;
  }
}

function storageType(device: number, vendor: string): object {
  return { DeviceId: device, VendorId: guidValue(vendor) };
}
