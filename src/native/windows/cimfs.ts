/** cimfs.dll: mounting CIMs, and writing them. https://learn.microsoft.com/windows/win32/api/_cimfs/ */

import { C, pointerTo, type Signature, struct } from '../library.ts';
import { CIM_HASH_SIZE, WRITE_CALLS, type WriteCall } from './cim-calls.ts';
import { GUID, HRESULT } from './ctypes.ts';
import type { Dll, Dlls } from './dll.ts';
import { guidValue } from './guid.ts';

const { uint16, uint32, str16, pointer } = C;

/** https://learn.microsoft.com/windows/win32/api/cimfs/ns-cimfs-cimfs_image_path */
export const CIMFS_IMAGE_PATH = struct('CIMFS_IMAGE_PATH', { ImageDir: str16, ImageName: str16 });

/** Bits of a mount's flags; `verified` only for `mountImage`. */
export const CimMountFlag = { dax: 2, blockDevice: 0x10, singleFile: 0x20, verified: 0x80 } as const;

const MOUNT_CALLS = {
  CimMountImage: [HRESULT, [str16, str16, uint32, pointerTo(GUID)]],
  CimDismountImage: [HRESULT, [pointerTo(GUID)]],
  CimMergeMountImage: [HRESULT, [uint32, pointerTo(CIMFS_IMAGE_PATH), uint32, pointerTo(GUID)]],
  CimMountVerifiedImage: [HRESULT, [str16, str16, uint32, pointerTo(GUID), uint16, pointer]],
  CimMergeMountVerifiedImage: [
    HRESULT,
    [uint32, pointerTo(CIMFS_IMAGE_PATH), uint32, pointerTo(GUID), uint16, pointer],
  ],
} satisfies Record<string, Signature>;

/** An image: the folder, device or single file that holds it, and its name in there. */
export interface CimImagePath {
  container: string;
  name: string;
}

/** Mounts CIMs as volumes under GUIDs that the caller chooses (`volumePath` in guid.ts). */
export class CimFs {
  readonly dll: Dll<WriteCall | keyof typeof MOUNT_CALLS>;

  constructor(dlls: Dlls) {
    this.dll = dlls.open('cimfs.dll', { ...WRITE_CALLS, ...MOUNT_CALLS });
  }

  /** `flags` is of CimMountFlag. */
  async mountImage(image: CimImagePath, flags: number, volume: string): Promise<void> {
    const { ImageDir, ImageName } = pathValue(image);
    const operation = `mount ${show(image)} as volume ${volume}`;
    await this.dll.call(operation, 'CimMountImage', ImageDir, ImageName, flags, guidValue(volume));
  }

  async dismountImage(volume: string): Promise<void> {
    await this.dll.call(`dismount volume ${volume}`, 'CimDismountImage', guidValue(volume));
  }

  /** Mounts a merged image over its sources, which are in the order in which they were merged: topmost first. */
  async mergeMountImage(
    merged: CimImagePath,
    topmostFirst: readonly CimImagePath[],
    flags: number,
    volume: string,
  ): Promise<void> {
    const paths = [merged, ...topmostFirst].map(pathValue);
    const operation = `mount ${show(merged)} over ${topmostFirst.length} CIMs as volume ${volume}`;
    const args = [paths.length, paths, flags, guidValue(volume)];
    await this.dll.call(operation, 'CimMergeMountImage', ...args);
  }

  /** Every read through the volume is held to the root hash, 32 bytes. */
  async mountVerifiedImage(
    image: CimImagePath,
    flags: number,
    volume: string,
    rootHash: Uint8Array,
  ): Promise<void> {
    const { ImageDir, ImageName } = pathValue(image);
    const operation = `mount ${show(image)} as verified volume ${volume}`;
    const args = [ImageDir, ImageName, flags, guidValue(volume), CIM_HASH_SIZE, wholeHash(rootHash)];
    await this.dll.call(operation, 'CimMountVerifiedImage', ...args);
  }

  /** The merged image's root hash; each source is held to its own. */
  async mergeMountVerifiedImage(
    merged: CimImagePath,
    topmostFirst: readonly CimImagePath[],
    flags: number,
    volume: string,
    rootHash: Uint8Array,
  ): Promise<void> {
    const paths = [merged, ...topmostFirst].map(pathValue);
    const operation = `mount ${show(merged)} over ${topmostFirst.length} CIMs as verified volume ${volume}`;
    const args = [paths.length, paths, flags, guidValue(volume), CIM_HASH_SIZE, wholeHash(rootHash)];
    await this.dll.call(operation, 'CimMergeMountVerifiedImage', ...args);
  }
}

/** Windows takes no trailing backslash here. */
function pathValue({ container, name }: CimImagePath): { ImageDir: string; ImageName: string } {
  return { ImageDir: container.replace(/\\+$/, ''), ImageName: name };
}

function show({ container, name }: CimImagePath): string {
  return `${container}\\${name}`;
}

/** The DLL would read past the end of a shorter one. */
function wholeHash(hash: Uint8Array): Uint8Array {
  if (hash.length === CIM_HASH_SIZE) return hash;
  throw new RangeError(`a root hash has ${CIM_HASH_SIZE} bytes, not ${hash.length}`);
}
