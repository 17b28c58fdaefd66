/**
 * The seal of a container: a Merkle tree of SHA-256 over its content in blocks of 4,096 bytes. It lies behind the content: first the seal's
 * page, then the tree's levels, leaves first. A level is the digests of the blocks below it, 128 to a page, the last page filled with zeros;
 * the top level is one page, whose digest is the tree root.
 *
 * Seal page: magic `cimletsl`; version u32; digest size u32; sealed length u64; SHA-256 of the container's header page; tree root; root hash =
 * SHA-256 of tree root, sealed length (u64) and header digest; zeros; SHA-256 of all before it (the page's last 32 bytes).
 */

import { hash } from 'node:crypto';
import { readNumber, SHA256_SIZE, sha256, writeNumber } from './container-format.ts';
import { corruptAt } from './faults.ts';
import { PAGE_SIZE } from './format.ts';

const MAGIC = Buffer.from('cimletsl', 'latin1');
const VERSION = 1;
const CHECKSUM_AT = PAGE_SIZE - SHA256_SIZE;
export const DIGESTS_PER_PAGE = PAGE_SIZE / SHA256_SIZE;

export interface Seal {
  sealedLength: number;
  headerDigest: Buffer;
  treeRoot: Buffer;
  /** `sha256:` and 64 hexadecimal digits, as it is spelled everywhere outside of files. */
  rootHash: string;
}

/** One level of the tree: where its pages are in the file, and how many. */
export interface TreeLevel {
  offset: number;
  pages: number;
}

/** Where a seal's tree is, leaves first, and where the seal ends. */
export function treeGeometry(sealedLength: number): { levels: TreeLevel[]; end: number } {
  const levels: TreeLevel[] = [];
  let offset = sealedLength + PAGE_SIZE;
  let digests = sealedLength / PAGE_SIZE;
  do {
    const pages = Math.ceil(digests / DIGESTS_PER_PAGE);
    levels.push({ offset, pages });
    offset += pages * PAGE_SIZE;
    digests = pages;
  } while (digests > 1);
  return { levels, end: offset };
}

/** Writes a block's SHA-256 into `target`. A string costs less than a buffer of its own, and there is one for every block. */
export function digestBlock(block: Uint8Array, target: Buffer, position: number): void {
  target.write(hash('sha256', block, 'binary'), position, SHA256_SIZE, 'latin1');
}

export function createSeal(sealedLength: number, header: Buffer, treeRoot: Buffer): Seal {
  const headerDigest = sha256(header);
  return {
    sealedLength,
    headerDigest,
    treeRoot,
    rootHash: rootHashOf(sealedLength, headerDigest, treeRoot),
  };
}

function rootHashOf(sealedLength: number, headerDigest: Buffer, treeRoot: Buffer): string {
  const length = Buffer.alloc(8);
  writeNumber(length, 0, sealedLength);
  return nameRootHash(sha256(treeRoot, length, headerDigest));
}

/** `sha256:` and the digest in hexadecimal. */
export function nameRootHash(digest: Buffer): string {
  return `sha256:${digest.toString('hex')}`;
}

/** The digest that a root hash names. */
export function rootHashDigest(rootHash: string): Buffer {
  return Buffer.from(rootHash.replace(/^sha256:/, ''), 'hex');
}

export function encodeSealPage(seal: Seal): Buffer {
  const bytes = Buffer.alloc(PAGE_SIZE);
  MAGIC.copy(bytes);
  bytes.writeUInt32LE(VERSION, 8);
  bytes.writeUInt32LE(SHA256_SIZE, 12);
  writeNumber(bytes, 16, seal.sealedLength);
  seal.headerDigest.copy(bytes, 24);
  seal.treeRoot.copy(bytes, 56);
  rootHashDigest(seal.rootHash).copy(bytes, 88);
  sha256(bytes.subarray(0, CHECKSUM_AT)).copy(bytes, CHECKSUM_AT);
  return bytes;
}

/** The seal whose page this is; undefined when there is none. `file` and `offset` say where the page is, for errors. */
export function decodeSealPage(
  bytes: Buffer,
  header: Buffer,
  file: string,
  offset: number,
): Seal | undefined {
  if (bytes.length < PAGE_SIZE || bytes.every((byte) => byte === 0)) return undefined;
  const fail = (position: number, message: string) => corruptAt(file, offset + position, message);
  if (!sha256(bytes.subarray(0, CHECKSUM_AT)).equals(bytes.subarray(CHECKSUM_AT)))
    throw fail(
      0,
      "there is something behind the content that is no seal, or the seal page's checksum is wrong",
    );
  if (!bytes.subarray(0, 8).equals(MAGIC) || bytes.readUInt32LE(8) !== VERSION)
    throw fail(0, 'the seal is of an unknown kind or version');
  const sealedLength = readNumber(bytes, 16);
  if (sealedLength !== offset) throw fail(16, `the seal is for ${sealedLength} bytes, not ${offset}`);
  const headerDigest = Buffer.from(bytes.subarray(24, 56));
  const treeRoot = Buffer.from(bytes.subarray(56, 88));
  if (!sha256(header).equals(headerDigest)) throw fail(24, 'the seal is of another container header');
  const rootHash = rootHashOf(sealedLength, headerDigest, treeRoot);
  if (nameRootHash(bytes.subarray(88, 120)) !== rootHash)
    throw fail(88, 'the root hash is not the one of the tree root, the length and the header');
  return { sealedLength, headerDigest, treeRoot, rootHash };
}
