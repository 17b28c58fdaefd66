/**
 * dm-verity: a superblock behind the data, and behind it a tree of SHA-256 over blocks of 4,096 bytes, top level first. A digest is over salt
 * and block. Source: kernel documentation, "dm-verity", and cryptsetup's wiki page DMVerity for the superblock; the salt is 32 bytes of zeros,
 * as hcsshim has it.
 */

import { createHash, hash } from 'node:crypto';
import { BLOCK_SIZE } from './format.ts';

export const DIGEST = 32;
export const DIGESTS_PER_BLOCK = BLOCK_SIZE / DIGEST;
const SALT_SIZE = 32;
const MAX_SALT = 256;
const SIGNATURE = 'verity\0\0';
const ALGORITHM = 'sha256';

export interface VerityLevel {
  /** Of its first block, from the superblock on. */
  block: number;
  blocks: number;
}

/** The levels of a tree, leaves first, and its blocks together with the superblock's. */
export function verityLevels(dataBlocks: number): { levels: VerityLevel[]; blocks: number } {
  const sizes: number[] = [];
  for (let blocks = dataBlocks; blocks > 1 || sizes.length === 0; ) {
    blocks = Math.ceil(blocks / DIGESTS_PER_BLOCK);
    sizes.push(blocks);
  }
  let next = 1;
  const levels = sizes.toReversed().map((blocks) => {
    const level = { block: next, blocks };
    next += blocks;
    return level;
  });
  return { levels: levels.reverse(), blocks: next };
}

/** The digest of blocks one after another, with a salt before each. */
export class BlockDigest {
  readonly #salted: Buffer;
  readonly #block: Buffer;
  /** Of the block of zeros, of which images have many. */
  readonly #zeros: Buffer;

  constructor(salt: Uint8Array) {
    this.#salted = Buffer.alloc(salt.length + BLOCK_SIZE);
    this.#salted.set(salt);
    this.#block = this.#salted.subarray(salt.length);
    this.#zeros = Buffer.from(hash('sha256', this.#salted, 'buffer'));
  }

  /** Writes the digest of `block` into `target`. */
  digest(block: Buffer, target: Buffer, position: number): void {
    if (block[0] === 0 && block.equals(ZEROS)) {
      this.#zeros.copy(target, position);
      return;
    }
    block.copy(this.#block);
    // A string costs less than a buffer of its own.
    target.write(hash('sha256', this.#salted, 'binary'), position, DIGEST, 'latin1');
  }
}

const ZEROS = Buffer.alloc(BLOCK_SIZE);

export interface VeritySuperblock {
  dataBlocks: number;
  salt: Buffer;
  /** Lower case with dashes. */
  uuid: string;
}

export const ZERO_SALT = Buffer.alloc(SALT_SIZE);

/** A block. The UUID is derived from the root hash. */
export function encodeVeritySuperblock(dataBlocks: number, rootHash: Buffer): Buffer {
  const bytes = Buffer.alloc(BLOCK_SIZE);
  bytes.write(SIGNATURE, 0, 'latin1');
  bytes.writeUInt32LE(1, 8); // version
  bytes.writeUInt32LE(1, 12); // hash type: salt first
  const uuid = createHash('sha256').update('cimlet verity\0').update(rootHash).digest().subarray(0, 16);
  uuid.writeUInt8((uuid.readUInt8(6) & 0x0f) | 0x80, 6);
  uuid.writeUInt8((uuid.readUInt8(8) & 0x3f) | 0x80, 8);
  uuid.copy(bytes, 16);
  bytes.write(ALGORITHM, 32, 'latin1');
  bytes.writeUInt32LE(BLOCK_SIZE, 64);
  bytes.writeUInt32LE(BLOCK_SIZE, 68);
  bytes.writeBigUInt64LE(BigInt(dataBlocks), 72);
  bytes.writeUInt16LE(SALT_SIZE, 80);
  return bytes;
}

/** Undefined for a block that is no such superblock. `fail` is told an offset in it and must throw. */
export function decodeVeritySuperblock(
  bytes: Buffer,
  fail: (offset: number, message: string) => never,
): VeritySuperblock | undefined {
  if (bytes.toString('latin1', 0, 8) !== SIGNATURE) return undefined;
  const algorithm = bytes.toString('latin1', 32, 64).replace(/\0.*$/s, '');
  const saltSize = bytes.readUInt16LE(80);
  if (bytes.readUInt32LE(8) !== 1 || bytes.readUInt32LE(12) !== 1)
    fail(8, 'a dm-verity superblock of an unknown version');
  if (algorithm !== ALGORITHM)
    fail(32, `dm-verity with ${JSON.stringify(algorithm)}, which is not supported`);
  if (bytes.readUInt32LE(64) !== BLOCK_SIZE || bytes.readUInt32LE(68) !== BLOCK_SIZE)
    fail(64, `dm-verity of blocks other than ${BLOCK_SIZE} bytes`);
  if (saltSize > MAX_SALT) fail(80, `a salt of ${saltSize} bytes`);
  return {
    dataBlocks: Number(bytes.readBigUInt64LE(72)),
    salt: Buffer.from(bytes.subarray(88, 88 + saltSize)),
    uuid: bytes.toString('hex', 16, 32).replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-'),
  };
}
