/**
 * The calls that write CIMs, which cimfs.dll and cimwriter.dll both have.
 * https://learn.microsoft.com/windows/win32/api/_cimfs/
 */

import { C, out, pointerTo, type Signature, struct } from '../library.ts';
import { HANDLE, HRESULT } from './ctypes.ts';
import type { Dll } from './dll.ts';

const { void: none, uint32, int64, uint64, str16, pointer } = C;

/** 96 bytes. https://learn.microsoft.com/windows/win32/api/cimfs/ns-cimfs-cimfs_file_metadata */
export const CIMFS_FILE_METADATA = struct('CIMFS_FILE_METADATA', {
  Attributes: uint32,
  FileSize: int64,
  CreationTime: int64,
  LastWriteTime: int64,
  ChangeTime: int64,
  LastAccessTime: int64,
  SecurityDescriptorBuffer: pointer,
  SecurityDescriptorSize: uint32,
  ReparseDataBuffer: pointer,
  ReparseDataSize: uint32,
  EaBuffer: pointer,
  EaBufferSize: uint32,
});

/** Bits of `createImage`'s flags. */
export const CimCreateFlag = {
  doNotExpandPeImages: 1,
  fixedSizeChunks: 2,
  blockDevice: 4,
  singleFile: 8,
  consistent: 0x10,
  verified: 0x40,
} as const;

/** Bits of `addToMergedImage`'s flags. */
export const CimMergeFlag = { singleFile: 1, blockDevice: 2, verified: 4 } as const;

/** Bytes of a root hash. */
export const CIM_HASH_SIZE = 32;

export const WRITE_CALLS = {
  CimCreateImage: [HRESULT, [str16, str16, str16, out(HANDLE)]],
  CimCreateImage2: [HRESULT, [str16, uint32, str16, str16, out(HANDLE)]],
  CimCloseImage: [none, [HANDLE]],
  CimCommitImage: [HRESULT, [HANDLE]],
  CimCreateFile: [HRESULT, [HANDLE, str16, pointerTo(CIMFS_FILE_METADATA), out(HANDLE)]],
  CimCloseStream: [HRESULT, [HANDLE]],
  CimWriteStream: [HRESULT, [HANDLE, pointer, uint32]],
  CimDeletePath: [HRESULT, [HANDLE, str16]],
  CimCreateHardLink: [HRESULT, [HANDLE, str16, str16]],
  CimCreateMergeLink: [HRESULT, [HANDLE, str16, str16]],
  CimTombstoneFile: [HRESULT, [HANDLE, str16]],
  CimCreateAlternateStream: [HRESULT, [HANDLE, str16, uint64, out(HANDLE)]],
  CimAddFsToMergedImage: [HRESULT, [HANDLE, str16]],
  CimAddFsToMergedImage2: [HRESULT, [HANDLE, str16, uint32]],
  CimSealImage: [HRESULT, [str16, out(uint64), out(uint64), pointer]],
  CimGetVerificationInformation: [
    HRESULT,
    [str16, out(uint32), out(uint64), out(uint64), out(uint64), pointer, pointer],
  ],
} satisfies Record<string, Signature>;

export type WriteCall = keyof typeof WRITE_CALLS;

export type CimImageHandle = number & { readonly brand: 'CimImageHandle' };
export type CimStreamHandle = number & { readonly brand: 'CimStreamHandle' };

/** A file or directory to create. Times are in 100 ns units since 1601-01-01 UTC; `size` and buffers in bytes. */
export interface CimFileMetadata {
  attributes: number;
  size: number;
  creationTime: bigint;
  lastWriteTime: bigint;
  changeTime: bigint;
  lastAccessTime: bigint;
  securityDescriptor?: Uint8Array | undefined;
  reparseData?: Uint8Array | undefined;
  extendedAttributes?: Uint8Array | undefined;
}

export interface VerificationInformation {
  sealed: boolean;
  /** Empty when it isn't sealed. */
  rootHash: Uint8Array;
  signatureSize: number;
  fixedHeaderSize: number;
}

/** A self-relative descriptor without owner, group and DACL: anybody may do anything (SDDL `D:NO_ACCESS_CONTROL`). */
const NO_ACCESS_CONTROL = Uint8Array.of(1, 0, 4, 0x80, ...new Array<number>(16).fill(0));

/** More is written in several calls. */
const LARGEST_WRITE = 1 << 30;

/**
 * Writes CIMs. Calls on one image must come one at a time; those on entries block, the long ones run on another thread.
 * Paths inside of an image are separated by backslashes; a trailing one, which the DLLs can't take, is dropped.
 */
export class CimWriteCalls {
  readonly #dll: Dll<WriteCall>;

  constructor(dll: Dll<WriteCall>) {
    this.#dll = dll;
  }

  /** The DLL that does the work. */
  get file(): string {
    return this.#dll.file;
  }

  /**
   * Creates an image in a folder, forked from `oldName` there; null: from nothing. `newName` null continues `oldName`
   * itself. An empty name means something else to Windows than null.
   */
  async createImage(folder: string, oldName: string | null, newName: string | null): Promise<CimImageHandle> {
    const path = withoutTrailing(folder);
    const handle = [0];
    const operation = `create CIM ${newName ?? oldName} in ${path}`;
    await this.#dll.call(operation, 'CimCreateImage', path, oldName, newName, handle);
    return handle[0] as CimImageHandle;
  }

  /** Creates an image in a block container: `path` is the device or the single file, as `flags` (CimCreateFlag) say. */
  async createImage2(
    path: string,
    flags: number,
    oldName: string | null,
    newName: string | null,
  ): Promise<CimImageHandle> {
    const container = withoutTrailing(path);
    const handle = [0];
    const operation = `create CIM ${newName ?? oldName} in ${container}`;
    await this.#dll.call(operation, 'CimCreateImage2', container, flags, oldName, newName, handle);
    return handle[0] as CimImageHandle;
  }

  /** Makes what was written durable and visible under the image's name. Streams must be closed. */
  async commitImage(image: CimImageHandle): Promise<void> {
    await this.#dll.call('commit the CIM', 'CimCommitImage', image);
  }

  /** Ends the use of a handle; what wasn't committed is dropped. */
  async closeImage(image: CimImageHandle): Promise<void> {
    await this.#dll.call('close the CIM', 'CimCloseImage', image);
  }

  /**
   * Creates a file or directory, or replaces a file. Exactly `metadata.size` bytes must be written before the stream is
   * closed; the DLL itself notices neither too few nor says so. An absent or empty security descriptor becomes the NULL
   * DACL, since an empty one leaves the image in a state that can't be used.
   */
  createFile(image: CimImageHandle, path: string, metadata: CimFileMetadata): CimStreamHandle {
    const stream = [0];
    const inside = withoutTrailing(path);
    const value = metadataValue(metadata);
    this.#dll.callNow(`create ${inside} in the CIM`, 'CimCreateFile', image, inside, value, stream);
    return stream[0] as CimStreamHandle;
  }

  /** Creates an alternate data stream of exactly `size` bytes; `path` is `file:name:$DATA`. */
  createAlternateStream(image: CimImageHandle, path: string, size: number): CimStreamHandle {
    const stream = [0];
    this.#dll.callNow(
      `create ${path} in the CIM`,
      'CimCreateAlternateStream',
      image,
      path,
      BigInt(size),
      stream,
    );
    return stream[0] as CimStreamHandle;
  }

  writeStream(stream: CimStreamHandle, data: Uint8Array): void {
    for (let at = 0; at < data.length; at += LARGEST_WRITE) {
      const part = data.subarray(at, at + LARGEST_WRITE);
      this.#dll.callNow('write to the CIM', 'CimWriteStream', stream, part, part.length);
    }
  }

  closeStream(stream: CimStreamHandle): void {
    this.#dll.callNow('close a stream of the CIM', 'CimCloseStream', stream);
  }

  /** Removes an entry of this image; what layers below have there shows again. */
  deletePath(image: CimImageHandle, path: string): void {
    const inside = withoutTrailing(path);
    this.#dll.callNow(`delete ${inside} from the CIM`, 'CimDeletePath', image, inside);
  }

  createHardLink(image: CimImageHandle, path: string, existing: string): void {
    const args = [withoutTrailing(path), withoutTrailing(existing)] as const;
    this.#dll.callNow(`link ${path} to ${existing} in the CIM`, 'CimCreateHardLink', image, ...args);
  }

  /** A hard link to a file of a layer below, resolved when images are merged. */
  createMergeLink(image: CimImageHandle, path: string, existing: string): void {
    const args = [withoutTrailing(path), withoutTrailing(existing)] as const;
    this.#dll.callNow(`link ${path} to ${existing} below the CIM`, 'CimCreateMergeLink', image, ...args);
  }

  /** Hides what the layers below have at a path. */
  tombstoneFile(image: CimImageHandle, path: string): void {
    const inside = withoutTrailing(path);
    this.#dll.callNow(`put a tombstone on ${inside} in the CIM`, 'CimTombstoneFile', image, inside);
  }

  /** Adds the next source to a merged image: the topmost first, the base last. `flags` is of CimMergeFlag. */
  async addToMergedImage(image: CimImageHandle, path: string, flags: number): Promise<void> {
    await this.#dll.call(`add ${path} to the merged CIM`, 'CimAddFsToMergedImage2', image, path, flags);
  }

  /** The same for images that are in folders. */
  async addFolderToMergedImage(image: CimImageHandle, path: string): Promise<void> {
    await this.#dll.call(`add ${path} to the merged CIM`, 'CimAddFsToMergedImage', image, path);
  }

  /** Ends all writing to a block container and gives its root hash. */
  async sealImage(path: string): Promise<Uint8Array> {
    const container = withoutTrailing(path);
    const hash = new Uint8Array(CIM_HASH_SIZE);
    const [size, header] = [[0], [0]];
    await this.#dll.call(`seal ${container}`, 'CimSealImage', container, size, header, hash);
    return hash.subarray(0, Number(size[0]));
  }

  async getVerificationInformation(path: string): Promise<VerificationInformation> {
    const container = withoutTrailing(path);
    const hash = new Uint8Array(CIM_HASH_SIZE);
    const [sealed, size, signature, header] = [[0], [0], [0], [0]];
    const operation = `read the seal of ${container}`;
    const args = [container, sealed, size, signature, header, hash, null];
    await this.#dll.call(operation, 'CimGetVerificationInformation', ...args);
    const isSealed = sealed[0] !== 0;
    return {
      sealed: isSealed,
      rootHash: hash.subarray(0, isSealed ? Number(size[0]) : 0),
      signatureSize: Number(signature[0]),
      fixedHeaderSize: Number(header[0]),
    };
  }
}

function metadataValue(metadata: CimFileMetadata): object {
  const descriptor = metadata.securityDescriptor?.length ? metadata.securityDescriptor : NO_ACCESS_CONTROL;
  const reparse = metadata.reparseData?.length ? metadata.reparseData : null;
  const attributes = metadata.extendedAttributes?.length ? metadata.extendedAttributes : null;
  return {
    Attributes: metadata.attributes,
    FileSize: metadata.size,
    CreationTime: metadata.creationTime,
    LastWriteTime: metadata.lastWriteTime,
    ChangeTime: metadata.changeTime,
    LastAccessTime: metadata.lastAccessTime,
    SecurityDescriptorBuffer: descriptor,
    SecurityDescriptorSize: descriptor.length,
    ReparseDataBuffer: reparse,
    ReparseDataSize: reparse?.length ?? 0,
    EaBuffer: attributes,
    EaBufferSize: attributes?.length ?? 0,
  };
}

/** `C:\` stays as it is: there the backslash is no trailing one. */
function withoutTrailing(path: string): string {
  return /^[a-z]:\\$/i.test(path) ? path : path.replace(/\\+$/, '');
}
