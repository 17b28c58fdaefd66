/** The image's file: blocks appended in order, through a bounded buffer, and blocks written before changed in place. */

import { readSync, writeSync } from 'node:fs';
import { CimletError } from '../errors.ts';
import { attempt } from './faults.ts';
import { BLOCK_SIZE } from './format.ts';

const BUFFER_BLOCKS = 256;

/** Told of appended blocks once they are in the file, in order: from `first` up to `end`. */
export type OnWritten = (first: number, end: number) => void;

/** The file must be empty when this begins: what is skipped reads as zeros. */
export class BlockOutput {
  readonly path: string;
  readonly #descriptor: number;
  readonly #maxBlocks: number;
  readonly #onWritten: OnWritten;
  readonly #buffer = Buffer.allocUnsafeSlow(BUFFER_BLOCKS * BLOCK_SIZE);
  /** Block of the buffer's first byte, and blocks in it. */
  #start = 0;
  #filled = 0;

  constructor(path: string, descriptor: number, maxBlocks: number, onWritten: OnWritten) {
    this.path = path;
    this.#descriptor = descriptor;
    this.#maxBlocks = maxBlocks;
    this.#onWritten = onWritten;
  }

  /** Number of the next block. */
  get next(): number {
    return this.#start + this.#filled;
  }

  /** Appends whole blocks. */
  append(bytes: Uint8Array): number {
    const block = this.next;
    const count = bytes.length / BLOCK_SIZE;
    this.#reserve(count);
    if (this.#filled + count > BUFFER_BLOCKS) this.#flush();
    if (count > BUFFER_BLOCKS) this.#writeNext(bytes, count);
    else {
      this.#buffer.set(bytes, this.#filled * BLOCK_SIZE);
      this.#filled += count;
    }
    return block;
  }

  /** Leaves out blocks, which are zeros. */
  skip(count: number): number {
    const block = this.next;
    this.#reserve(count);
    this.#flush();
    this.#start += count;
    return block;
  }

  /** Changes blocks that were skipped. */
  rewrite(block: number, bytes: Uint8Array): void {
    this.#flush();
    this.#write(bytes, block);
  }

  read(block: number): Buffer {
    this.#flush();
    const bytes = Buffer.alloc(BLOCK_SIZE);
    attempt(`read ${this.path}`, () => readSync(this.#descriptor, bytes, 0, BLOCK_SIZE, block * BLOCK_SIZE));
    return bytes;
  }

  /** Writes out what is buffered. */
  finish(): void {
    this.#flush();
  }

  #reserve(count: number): void {
    if (this.next + count > this.#maxBlocks) throw diskLimit(this.path, this.#maxBlocks);
  }

  #flush(): void {
    if (this.#filled === 0) return;
    const count = this.#filled;
    this.#filled = 0;
    this.#writeNext(this.#buffer.subarray(0, count * BLOCK_SIZE), count);
  }

  #writeNext(bytes: Uint8Array, count: number): void {
    this.#write(bytes, this.#start);
    this.#start += count;
    this.#onWritten(this.#start - count, this.#start);
  }

  #write(bytes: Uint8Array, block: number): void {
    attempt(`write ${this.path}`, () => {
      for (let done = 0; done < bytes.length; )
        done += writeSync(this.#descriptor, bytes, done, bytes.length - done, block * BLOCK_SIZE + done);
    });
  }
}

export function diskLimit(path: string, maxBlocks: number): CimletError {
  return new CimletError(
    'no-space',
    `write ${path}: the image would be larger than the ${maxBlocks * BLOCK_SIZE} bytes it may have`,
    { hint: 'allow more with --max-size' },
  );
}
