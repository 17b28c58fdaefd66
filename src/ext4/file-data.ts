/** The data of one file at a time: what comes in pieces goes out in blocks, long runs of zeros become holes. */

import type { BlockOutput } from './block-output.ts';
import { ExtentList } from './extents.ts';
import { BLOCK_SIZE } from './format.ts';

const ZEROS = Buffer.alloc(BLOCK_SIZE);
/** Shorter runs of zeros are stored: a hole costs an extent, and extents are kept in memory until the file ends. */
const MIN_HOLE = 16;

export class FileData {
  readonly #output: BlockOutput;
  readonly #extents = new ExtentList();
  /** The beginning of a block whose rest is to come. */
  readonly #partial = Buffer.alloc(BLOCK_SIZE);
  #partialBytes = 0;
  /** Blocks of the file that are written or holes, and blocks of zeros that are neither yet. */
  #blocks = 0;
  #zeroBlocks = 0;
  #stored = 0;

  constructor(output: BlockOutput) {
    this.#output = output;
  }

  write(data: Uint8Array): void {
    const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
    let at = this.#fillPartial(bytes);
    let from = at;
    for (; at + BLOCK_SIZE <= bytes.length; at += BLOCK_SIZE) {
      if (!isZero(bytes, at)) {
        if (this.#zeroBlocks > 0) this.#settleZeros();
        continue;
      }
      this.#store(bytes.subarray(from, at));
      from = at + BLOCK_SIZE;
      this.#zeroBlocks++;
    }
    this.#store(bytes.subarray(from, at));
    if (at < bytes.length) {
      bytes.copy(this.#partial, 0, at);
      this.#partialBytes = bytes.length - at;
    }
  }

  /** So many bytes of zeros. */
  writeZeros(length: number): void {
    const missing = (BLOCK_SIZE - this.#partialBytes) % BLOCK_SIZE;
    this.write(ZEROS.subarray(0, Math.min(missing, length)));
    const left = Math.max(0, length - missing);
    this.#zeroBlocks += Math.floor(left / BLOCK_SIZE);
    this.write(ZEROS.subarray(0, left % BLOCK_SIZE));
  }

  /** Ends the file; its extents are good until the next one begins. */
  finish(): { extents: ExtentList; stored: number } {
    if (this.#partialBytes > 0) this.write(ZEROS.subarray(this.#partialBytes));
    this.#settleZeros();
    return { extents: this.#extents, stored: this.#stored };
  }

  /** Begins the next file. */
  begin(): void {
    this.#extents.clear();
    this.#partialBytes = 0;
    this.#blocks = 0;
    this.#zeroBlocks = 0;
    this.#stored = 0;
  }

  /** Returns how many bytes went into the block that had been begun. */
  #fillPartial(bytes: Buffer): number {
    if (this.#partialBytes === 0) return 0;
    const taken = bytes.copy(this.#partial, this.#partialBytes);
    this.#partialBytes += taken;
    if (this.#partialBytes === BLOCK_SIZE) {
      this.#partialBytes = 0;
      if (isZero(this.#partial, 0)) this.#zeroBlocks++;
      else {
        this.#settleZeros();
        this.#store(this.#partial);
      }
    }
    return taken;
  }

  /** Blocks of zeros before a block of data, or the file's end. */
  #settleZeros(): void {
    const count = this.#zeroBlocks;
    this.#zeroBlocks = 0;
    if (count >= MIN_HOLE) this.#blocks += count;
    else for (let done = 0; done < count; done++) this.#store(ZEROS);
  }

  #store(blocks: Uint8Array): void {
    const count = blocks.length / BLOCK_SIZE;
    if (count === 0) return;
    this.#extents.add(this.#blocks, this.#output.append(blocks), count);
    this.#blocks += count;
    this.#stored += count;
  }
}

function isZero(bytes: Buffer, at: number): boolean {
  return bytes[at] === 0 && bytes.compare(ZEROS, 0, BLOCK_SIZE, at, at + BLOCK_SIZE) === 0;
}
