/** Reads a sealed container: every block is checked against the tree up to its root before a byte of it is handed out. */

import { ByteCache } from './byte-cache.ts';
import type { ByteSource, FileSource } from './byte-source.ts';
import { SHA256_SIZE } from './container-format.ts';
import { corruptAt } from './faults.ts';
import { PAGE_SIZE } from './format.ts';
import { DIGESTS_PER_PAGE, digestBlock, type Seal, type TreeLevel, treeGeometry } from './merkle.ts';

const TREE_CACHE_BYTES = 4 * 1024 * 1024;
const BLOCK_CACHE_BYTES = 1024 * 1024;
const MAX_RUN = 1024 * 1024;

export class SealedSource implements ByteSource {
  readonly path: string;
  readonly #file: FileSource;
  readonly #seal: Seal;
  readonly #levels: TreeLevel[];
  readonly #tree = new ByteCache<string, Buffer>(TREE_CACHE_BYTES, (page) => page.length);
  /** Blocks read in part, since small objects lie close together. */
  readonly #blocks = new ByteCache<number, Buffer>(BLOCK_CACHE_BYTES, (block) => block.length);
  readonly #digest = Buffer.alloc(SHA256_SIZE);

  /** Takes over `file`. */
  constructor(file: FileSource, seal: Seal) {
    this.path = file.path;
    this.#file = file;
    this.#seal = seal;
    this.#levels = treeGeometry(seal.sealedLength).levels;
  }

  readInto(target: Uint8Array, position: number, what: string): void {
    if (position + target.length > this.#seal.sealedLength)
      throw corruptAt(this.path, position, `${what} lies outside what is sealed`);
    for (let done = 0; done < target.length; ) {
      const from = position + done;
      const left = target.length - done;
      if (from % PAGE_SIZE === 0 && left >= PAGE_SIZE) {
        const length = Math.min(MAX_RUN, left - (left % PAGE_SIZE));
        this.#readBlocks(target.subarray(done, done + length), from, what);
        done += length;
      } else {
        const skip = from % PAGE_SIZE;
        const length = Math.min(left, PAGE_SIZE - skip);
        target.set(this.#block((from - skip) / PAGE_SIZE, what).subarray(skip, skip + length), done);
        done += length;
      }
    }
  }

  close(): void {
    this.#file.close();
  }

  #block(number: number, what: string): Buffer {
    return this.#blocks.get(number, () => {
      const block = Buffer.allocUnsafeSlow(PAGE_SIZE);
      this.#readBlocks(block, number * PAGE_SIZE, what);
      return block;
    });
  }

  #readBlocks(target: Uint8Array, position: number, what: string): void {
    let done = 0;
    try {
      this.#file.readInto(target, position, what);
      for (; done < target.length; done += PAGE_SIZE) {
        const block = target.subarray(done, done + PAGE_SIZE);
        this.#check(block, -1, (position + done) / PAGE_SIZE, position + done);
      }
    } catch (error) {
      // What is not checked may not be used, whatever the caller does with the error.
      target.fill(0, done);
      throw error;
    }
  }

  /** Checks a block of the content (level -1) or a page of the tree against the level above. */
  #check(block: Uint8Array, level: number, number: number, position: number): void {
    const expected = this.#expected(level, number);
    digestBlock(block, this.#digest, 0);
    if (!this.#digest.equals(expected))
      throw corruptAt(this.path, position, 'the seal is broken: a block does not have its digest');
  }

  #expected(level: number, number: number): Buffer {
    if (level + 1 === this.#levels.length) return this.#seal.treeRoot;
    const page = this.#treePage(level + 1, Math.floor(number / DIGESTS_PER_PAGE));
    const at = (number % DIGESTS_PER_PAGE) * SHA256_SIZE;
    return page.subarray(at, at + SHA256_SIZE);
  }

  #treePage(level: number, number: number): Buffer {
    return this.#tree.get(`${level}:${number}`, () => {
      const position = (this.#levels[level]?.offset ?? 0) + number * PAGE_SIZE;
      const page = Buffer.allocUnsafeSlow(PAGE_SIZE);
      this.#file.readInto(page, position, "the seal's tree");
      this.#check(page, level, number, position);
      return page;
    });
  }
}
