/** Makes and checks the trees of dm-verity. */

import { type FileHandle, open } from 'node:fs/promises';
import { classify } from '../errors.ts';
import { corruptAt, type Ext4Fault } from './faults.ts';
import { BLOCK_SIZE } from './format.ts';
import type { DiskImage } from './image-file.ts';
import {
  BlockDigest,
  DIGESTS_PER_BLOCK,
  decodeVeritySuperblock,
  encodeVeritySuperblock,
  type VeritySuperblock,
  verityLevels,
  ZERO_SALT,
} from './verity.ts';

const DIGEST = BLOCK_SIZE / DIGESTS_PER_BLOCK;
const CHUNK_BLOCKS = 2 * DIGESTS_PER_BLOCK;
/** Who has so many knows enough. */
const MAX_FAULTS = 100;

/**
 * Appends dm-verity's superblock and tree to the file system of `size` bytes at the beginning of a file. Returns the root hash, 64 hexadecimal
 * digits, which stands for every byte of it.
 */
export async function appendVerity(
  path: string,
  size: number,
  { signal }: { signal?: AbortSignal | undefined } = {},
): Promise<string> {
  const operation = `add dm-verity to ${path}`;
  let handle: FileHandle | undefined;
  try {
    handle = await open(path, 'r+');
    const dataBlocks = size / BLOCK_SIZE;
    const { levels } = verityLevels(dataBlocks);
    const digest = new BlockDigest(ZERO_SALT);
    let below = { offset: 0, blocks: dataBlocks };
    for (const { block, blocks } of levels) {
      const above = { offset: size + block * BLOCK_SIZE, blocks };
      await hashLevel(handle, below, above.offset, digest, signal);
      below = above;
    }
    const top = Buffer.alloc(BLOCK_SIZE);
    await handle.read(top, 0, BLOCK_SIZE, below.offset);
    const root = Buffer.alloc(DIGEST);
    digest.digest(top, root, 0);
    await handle.write(encodeVeritySuperblock(dataBlocks, root), 0, BLOCK_SIZE, size);
    return root.toString('hex');
  } catch (error) {
    throw classify(error, operation);
  } finally {
    await handle?.close();
  }
}

interface Range {
  offset: number;
  blocks: number;
}

/** Reads the next blocks while these are hashed. */
async function hashLevel(
  handle: FileHandle,
  { offset, blocks }: Range,
  target: number,
  digest: BlockDigest,
  signal: AbortSignal | undefined,
): Promise<void> {
  let [current, next] = [allocate(), allocate()];
  const load = (buffer: Buffer, first: number) => {
    const length = Math.max(0, Math.min(CHUNK_BLOCKS, blocks - first)) * BLOCK_SIZE;
    const read = handle.read(buffer, 0, length, offset + first * BLOCK_SIZE);
    // What fails is told when its turn comes.
    read.catch(() => undefined);
    return read;
  };
  let loading = load(current, 0);
  try {
    for (let first = 0; first < blocks; first += CHUNK_BLOCKS) {
      signal?.throwIfAborted();
      const { bytesRead } = await loading;
      loading = load(next, first + CHUNK_BLOCKS);
      const count = Math.min(CHUNK_BLOCKS, blocks - first);
      // What a file lacks at its end reads as zeros.
      current.fill(0, bytesRead, count * BLOCK_SIZE);
      const digests = Buffer.alloc(Math.ceil(count / DIGESTS_PER_BLOCK) * BLOCK_SIZE);
      for (let index = 0; index < count; index++)
        digest.digest(
          current.subarray(index * BLOCK_SIZE, (index + 1) * BLOCK_SIZE),
          digests,
          index * DIGEST,
        );
      await handle.write(digests, 0, digests.length, target + first * DIGEST);
      [current, next] = [next, current];
    }
  } finally {
    // The file must not be closed under a read.
    await Promise.allSettled([loading]);
  }
}

function allocate(): Buffer {
  return Buffer.allocUnsafeSlow(CHUNK_BLOCKS * BLOCK_SIZE);
}

/** dm-verity as it was found behind a file system. */
export interface FoundVerity extends VeritySuperblock {
  /** Of the superblock. */
  offset: number;
  /** Of superblock and tree. */
  end: number;
  rootHash: string;
}

/** The dm-verity at `offset`; undefined when there is none. */
export function findVerity(file: DiskImage, offset: number): FoundVerity | undefined {
  if (offset + BLOCK_SIZE > file.size) return undefined;
  const superblock = decodeVeritySuperblock(file.read(offset, BLOCK_SIZE), (at, message) => {
    throw corruptAt(file.path, offset + at, message);
  });
  if (superblock === undefined) return undefined;
  if (superblock.dataBlocks * BLOCK_SIZE !== offset)
    throw corruptAt(
      file.path,
      offset + 72,
      `dm-verity of ${superblock.dataBlocks} blocks, not of all before it`,
    );
  const end = offset + verityLevels(superblock.dataBlocks).blocks * BLOCK_SIZE;
  const root = Buffer.alloc(DIGEST);
  new BlockDigest(superblock.salt).digest(file.read(offset + BLOCK_SIZE, BLOCK_SIZE), root, 0);
  return { ...superblock, offset, end, rootHash: root.toString('hex') };
}

/** The blocks that don't have their digests, in the tree and in what it covers; at most a hundred. */
export function verifyVerity(
  file: DiskImage,
  verity: FoundVerity,
  signal?: Pick<AbortSignal, 'throwIfAborted'>,
): Ext4Fault[] {
  const faults: Ext4Fault[] = [];
  const digest = new BlockDigest(verity.salt);
  const found = Buffer.alloc(DIGEST);
  let below = { offset: 0, blocks: verity.dataBlocks };
  for (const { block, blocks } of verityLevels(verity.dataBlocks).levels) {
    const above = { offset: verity.offset + block * BLOCK_SIZE, blocks };
    for (let number = 0; number < below.blocks; number += DIGESTS_PER_BLOCK) {
      signal?.throwIfAborted();
      const digests = file.read(above.offset + number * DIGEST, BLOCK_SIZE);
      const count = Math.min(DIGESTS_PER_BLOCK, below.blocks - number);
      const offset = below.offset + number * BLOCK_SIZE;
      const data = file.read(offset, count * BLOCK_SIZE);
      for (let index = 0; index < count; index++) {
        digest.digest(data.subarray(index * BLOCK_SIZE, (index + 1) * BLOCK_SIZE), found, 0);
        if (found.equals(digests.subarray(index * DIGEST, (index + 1) * DIGEST))) continue;
        if (faults.length < MAX_FAULTS)
          faults.push({
            file: file.path,
            offset: offset + index * BLOCK_SIZE,
            message: 'a block does not have its digest in the dm-verity tree',
          });
      }
    }
    below = above;
  }
  return faults;
}
