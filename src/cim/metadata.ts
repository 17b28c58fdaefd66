/** A file's metadata on its way into an image: refused when a reader could not make sense of it, then stored. */

import { CimletError } from '../errors.ts';
import {
  extendedAttributesFault,
  NULL_DACL_DESCRIPTOR,
  reparseDataFault,
  securityDescriptorFault,
} from './blobs.ts';
import type { FileBlobs } from './file-record.ts';
import { MAX_STREAM_SIZE, type RegionOffset, RegionType } from './format.ts';
import type { ObjectStore } from './object-store.ts';
import { FileAttribute, type FileMetadata } from './types.ts';

const MAX_FILETIME = 2n ** 64n - 1n;

/** Refuses a stream size that isn't a whole number of at most 48 bits. */
export function checkSize(operation: string, size: number): void {
  if (!Number.isInteger(size) || size < 0 || size > MAX_STREAM_SIZE)
    throw new CimletError('corrupt', `${operation}: ${size} is no size of a stream`);
}

/** Refuses metadata that the format cannot hold, or blobs of the wrong shape. Empty blobs count as absent. */
export function checkMetadata(operation: string, metadata: FileMetadata): void {
  checkSize(operation, metadata.size);
  const { creationTime, lastWriteTime, changeTime, lastAccessTime } = metadata;
  const fault =
    ([creationTime, lastWriteTime, changeTime, lastAccessTime].some(
      (time) => time < 0n || time > MAX_FILETIME,
    )
      ? 'a time is no FILETIME'
      : undefined) ??
    (metadata.size > 0 && metadata.attributes & FileAttribute.directory
      ? 'a directory has a size'
      : undefined) ??
    faultIn(metadata.securityDescriptor, securityDescriptorFault) ??
    faultIn(metadata.extendedAttributes, extendedAttributesFault) ??
    faultIn(metadata.reparseData, reparseDataFault);
  if (fault !== undefined) throw new CimletError('corrupt', `${operation}: ${fault}`);
}

function faultIn(
  bytes: Uint8Array | undefined,
  check: (bytes: Uint8Array) => string | undefined,
): string | undefined {
  return bytes?.length ? check(bytes) : undefined;
}

/** Stores a file's blobs, each content once; no security descriptor becomes the NULL-DACL one. */
export function storeBlobs(store: ObjectStore, metadata: FileMetadata): FileBlobs {
  const { securityDescriptor, extendedAttributes, reparseData } = metadata;
  return {
    securityDescriptor: storeCounted(
      store,
      securityDescriptor?.length ? securityDescriptor : NULL_DACL_DESCRIPTOR,
    ),
    extendedAttributes: extendedAttributes?.length
      ? store.put(RegionType.metadata, extendedAttributes)
      : undefined,
    eaLength: extendedAttributes?.length ?? 0,
    reparseData: reparseData?.length ? storeCounted(store, reparseData) : undefined,
    reparseTag: reparseData?.length ? Buffer.from(reparseData).readUInt32LE(0) : 0,
  };
}

/** Stores a blob as the format keeps it: after its u16 length. */
export function storeCounted(store: ObjectStore, data: Uint8Array): RegionOffset {
  const bytes = Buffer.allocUnsafe(2 + data.length);
  bytes.writeUInt16LE(data.length, 0);
  bytes.set(data, 2);
  return store.put(RegionType.metadata, bytes);
}
