/**
 * What a merged CIM says of the CIMs it was merged from, topmost first: they are as needed to read it as its own bytes, and must be the same.
 *
 * Layout: count u32; u8 1 when the sources are block devices; u8 1 when they are sealed; u16, u64 0; then for each source 64 bytes: region
 * GUID (16), bytes of its container's content u64, u64 0, digest. The digest is the root hash of a sealed container. Otherwise it is SHA-256
 * over the CIM's parts in the order of its container's directory, each as kind u8, type u8, index u16, length u64, SHA-256.
 */

import type { Container, ContainerKind } from './container.ts';
import {
  type ContainedCim,
  PartKind,
  readNumber,
  SHA256_SIZE,
  sha256,
  writeNumber,
} from './container-format.ts';
import { corruptAt } from './faults.ts';
import { decodeGuid, encodeGuid, RegionType } from './format.ts';
import { rootHashDigest } from './merkle.ts';

const HEADER_SIZE = 16;
const ENTRY_SIZE = 64;

export interface SourceIdentity {
  guid: string;
  /** Bytes of content of the container. */
  size: number;
  digest: Buffer;
}

export interface SourceList {
  kind: ContainerKind;
  sealed: boolean;
  /** Topmost first. */
  sources: SourceIdentity[];
}

export function encodeSourceList({ kind, sealed, sources }: SourceList): Buffer {
  const bytes = Buffer.alloc(HEADER_SIZE + sources.length * ENTRY_SIZE);
  bytes.writeUInt32LE(sources.length, 0);
  bytes.writeUInt8(kind === 'device' ? 1 : 0, 4);
  bytes.writeUInt8(sealed ? 1 : 0, 5);
  sources.forEach(({ guid, size, digest }, i) => {
    const at = HEADER_SIZE + i * ENTRY_SIZE;
    encodeGuid(guid).copy(bytes, at);
    writeNumber(bytes, at + 16, size);
    digest.copy(bytes, at + 32);
  });
  return bytes;
}

/** `file` is for errors; offsets are from the list's start. */
export function decodeSourceList(bytes: Buffer, file: string): SourceList {
  const count = bytes.length < HEADER_SIZE ? -1 : bytes.readUInt32LE(0);
  if (bytes.length !== HEADER_SIZE + count * ENTRY_SIZE)
    throw corruptAt(file, 0, `a source list of ${bytes.length} bytes does not have its ${count} entries`);
  const sources = Array.from({ length: count }, (_, i) => {
    const at = HEADER_SIZE + i * ENTRY_SIZE;
    return {
      guid: decodeGuid(bytes, at),
      size: readNumber(bytes, at + 16),
      digest: Buffer.from(bytes.subarray(at + 32, at + 32 + SHA256_SIZE)),
    };
  });
  return { kind: bytes.readUInt8(4) === 1 ? 'device' : 'file', sealed: bytes.readUInt8(5) === 1, sources };
}

/** A CIM's identity as a source. Unless it is sealed, its header and metadata are read and must have their digests. */
export function identifySource(container: Container, cim: ContainedCim, guid: string): SourceIdentity {
  const size = container.header.end;
  const { seal } = container;
  if (seal !== undefined) return { guid, size, digest: rootHashDigest(seal.rootHash) };
  const described = cim.parts.map((part) => {
    const { kind, type, index, length, digest } = part;
    const isMetadata = kind === PartKind.region && type === RegionType.metadata;
    if (digest !== undefined && (kind === PartKind.image || isMetadata)) {
      const found = container.digest(part, `${cim.name} in its container`);
      if (!found.equals(digest))
        throw corruptAt(container.path, part.offset, `a part of ${cim.name} does not have its digest`);
    }
    const bytes = Buffer.alloc(12 + SHA256_SIZE);
    bytes.writeUInt8(kind, 0);
    bytes.writeUInt8(type, 1);
    bytes.writeUInt16LE(index, 2);
    writeNumber(bytes, 4, length);
    digest?.copy(bytes, 12);
    return bytes;
  });
  return { guid, size, digest: sha256(...described) };
}
