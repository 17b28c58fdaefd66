/** Makes the trees of dm-verity. Calls block. */

import { closeSync, ftruncateSync, openSync, readSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import { classify } from '../errors.ts';
import { BLOCK_SIZE } from './format.ts';
import { openNameless } from './nameless-file.ts';
import { BlockDigest, DIGEST, encodeVeritySuperblock, verityLevels, ZERO_SALT } from './verity.ts';

/** What is read at a time is still in the processor's cache when it is hashed. */
const CHUNK_BLOCKS = 64;

/** Blocks one after another in a file. */
interface Blocks {
  descriptor: number;
  /** Of the first, in bytes. */
  offset: number;
  count: number;
}

/**
 * Hashes an image's blocks, while others are still being written if need be, and appends superblock and tree once it is whole. Until then the
 * digests are in a nameless file beside it, since only the image's size says where they belong.
 */
export class VerityBuilder {
  readonly #path: string;
  readonly #first: number;
  readonly #checkpoint: () => void;
  readonly #digest = new BlockDigest(ZERO_SALT);
  readonly #blocks = Buffer.allocUnsafeSlow(CHUNK_BLOCKS * BLOCK_SIZE);
  readonly #digests = Buffer.allocUnsafeSlow(CHUNK_BLOCKS * DIGEST);
  readonly #image: number;
  readonly #leaves: number;
  #hashed: number;

  /**
   * Of the image in the file `path`, whose blocks before `first` are written last. `checkpoint` is called now and then, and may throw. `close` must be
   * called, whatever happens.
   */
  constructor(path: string, first: number, checkpoint: () => void) {
    this.#path = path;
    this.#first = first;
    this.#hashed = first;
    this.#checkpoint = checkpoint;
    this.#image = this.#attempt(() => openSync(path, 'r+'));
    try {
      this.#leaves = this.#attempt(() => openNameless(dirname(path), 'digests'));
    } catch (error) {
      closeSync(this.#image);
      throw error;
    }
  }

  /** Hashes what is new of the blocks up to `end`, which are as they will be. */
  follow(end: number): void {
    this.#attempt(() => this.#hashLeaves(this.#hashed, end));
    this.#hashed = Math.max(this.#hashed, end);
  }

  /**
   * Appends superblock and tree to the file system of `size` bytes. Returns the root hash, 64 hexadecimal digits, which stands for every byte
   * of it.
   */
  finish(size: number): string {
    const dataBlocks = size / BLOCK_SIZE;
    this.follow(dataBlocks);
    return this.#attempt(() => {
      this.#hashLeaves(0, Math.min(this.#first, dataBlocks));
      const { levels, blocks } = verityLevels(dataBlocks);
      ftruncateSync(this.#image, size + blocks * BLOCK_SIZE);
      let below: Blocks | undefined;
      for (const { block, blocks: count } of levels) {
        const level = { descriptor: this.#image, offset: size + block * BLOCK_SIZE, count };
        if (below === undefined) this.#copyLeaves(dataBlocks, level.offset);
        else this.#hash(below, level.descriptor, level.offset);
        below = level;
      }
      const root = this.#rootOf(below?.offset ?? size);
      writeFully(this.#image, encodeVeritySuperblock(dataBlocks, root), size);
      return root.toString('hex');
    });
  }

  close(): void {
    closeSync(this.#image);
    closeSync(this.#leaves);
  }

  #hashLeaves(first: number, end: number): void {
    const blocks = { descriptor: this.#image, offset: first * BLOCK_SIZE, count: end - first };
    this.#hash(blocks, this.#leaves, first * DIGEST);
  }

  #hash({ descriptor, offset, count }: Blocks, target: number, position: number): void {
    for (let done = 0; done < count; done += CHUNK_BLOCKS) {
      this.#checkpoint();
      const part = Math.min(CHUNK_BLOCKS, count - done);
      readZeroFilled(descriptor, this.#blocks.subarray(0, part * BLOCK_SIZE), offset + done * BLOCK_SIZE);
      for (let index = 0; index < part; index++)
        this.#digest.digest(
          this.#blocks.subarray(index * BLOCK_SIZE, (index + 1) * BLOCK_SIZE),
          this.#digests,
          index * DIGEST,
        );
      writeFully(target, this.#digests.subarray(0, part * DIGEST), position + done * DIGEST);
    }
  }

  #copyLeaves(count: number, target: number): void {
    for (let done = 0; done < count * DIGEST; ) {
      this.#checkpoint();
      const part = this.#blocks.subarray(0, Math.min(this.#blocks.length, count * DIGEST - done));
      readZeroFilled(this.#leaves, part, done);
      writeFully(this.#image, part, target + done);
      done += part.length;
    }
  }

  /** The digest of the tree's only block at the top. */
  #rootOf(offset: number): Buffer {
    const block = this.#blocks.subarray(0, BLOCK_SIZE);
    readZeroFilled(this.#image, block, offset);
    const root = Buffer.alloc(DIGEST);
    this.#digest.digest(block, root, 0);
    return root;
  }

  #attempt<T>(action: () => T): T {
    try {
      return action();
    } catch (error) {
      throw classify(error, `add dm-verity to ${this.#path}`);
    }
  }
}

/** What a file lacks at its end reads as zeros. */
function readZeroFilled(descriptor: number, target: Buffer, position: number): void {
  for (let done = 0; done < target.length; ) {
    const read = readSync(descriptor, target, done, target.length - done, position + done);
    if (read === 0) {
      target.fill(0, done);
      return;
    }
    done += read;
  }
}

function writeFully(descriptor: number, bytes: Uint8Array, position: number): void {
  for (let done = 0; done < bytes.length; )
    done += writeSync(descriptor, bytes, done, bytes.length - done, position + done);
}
