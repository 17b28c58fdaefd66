/** Finds and checks the trees of dm-verity. */

import { corruptAt, type Ext4Fault } from './faults.ts';
import { BLOCK_SIZE } from './format.ts';
import type { DiskImage } from './image-file.ts';
import {
  BlockDigest,
  DIGEST,
  DIGESTS_PER_BLOCK,
  decodeVeritySuperblock,
  type VeritySuperblock,
  verityLevels,
} from './verity.ts';

/** Who has so many knows enough. */
const MAX_FAULTS = 100;

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
