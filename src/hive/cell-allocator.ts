/** Lays out the cells of a hive that is being written: one after the other, in bins of 4 KiB or as much as one cell needs. */

import { alignUp, BIN_ALIGNMENT, BIN_HEADER_SIZE, CELL_ALIGNMENT, OFFSET_SIZE } from './format.ts';

/** Offsets are 31 bits: the upper half is for what is only in memory. */
const MAX_BINS_SIZE = 0x7fffe000;

export interface NewCell {
  /** In bytes from the end of the base block. */
  offset: number;
  /** The cell's contents, all zero at first. */
  bytes: Buffer;
}

export class CellAllocator {
  readonly bins: Buffer[] = [];
  readonly #timestamp: bigint;
  #bin = Buffer.alloc(0);
  #binOffset = 0;
  #used = 0;
  #size = 0;

  /** `timestamp` goes into the first bin's header. */
  constructor(timestamp: bigint) {
    this.#timestamp = timestamp;
  }

  /** Bytes in all bins. */
  get size(): number {
    return this.#size;
  }

  allocate(length: number): NewCell {
    const size = alignUp(OFFSET_SIZE + length, CELL_ALIGNMENT);
    if (this.#bin.length - this.#used < size) this.#openBin(size);
    const position = this.#used;
    this.#used += size;
    this.#bin.writeInt32LE(-size, position);
    const start = position + OFFSET_SIZE;
    return { offset: this.#binOffset + position, bytes: this.#bin.subarray(start, start + length) };
  }

  /** Ends the last bin. */
  close(): void {
    const left = this.#bin.length - this.#used;
    if (left > 0) this.#bin.writeInt32LE(left, this.#used);
    this.#used = this.#bin.length;
  }

  #openBin(cellSize: number): void {
    this.close();
    this.#bin = Buffer.alloc(alignUp(BIN_HEADER_SIZE + cellSize, BIN_ALIGNMENT));
    this.#binOffset = this.#size;
    this.#used = BIN_HEADER_SIZE;
    this.#size += this.#bin.length;
    if (this.#size > MAX_BINS_SIZE) throw new Error('write hive: more than 2 GiB');
    this.#bin.write('hbin', 0, 'latin1');
    this.#bin.writeUInt32LE(this.#binOffset, 4);
    this.#bin.writeUInt32LE(this.#bin.length, 8);
    if (this.#binOffset === 0) this.#bin.writeBigUInt64LE(this.#timestamp, 20);
    this.bins.push(this.#bin);
  }
}
