/** Inode records of an image that is being written: the latest in memory, the others in a nameless file beside it. */

import { closeSync, readSync, writeSync } from 'node:fs';
import { attempt } from './faults.ts';
import { INODE_SIZE } from './format.ts';
import { openNameless } from './nameless-file.ts';

/** In memory; small images have no file. */
const WINDOW = 4096;

export class InodeSpool {
  readonly #directory: string;
  readonly #window = Buffer.alloc(WINDOW * INODE_SIZE);
  /** Number of the first record in memory. */
  #first = 0;
  #descriptor: number | undefined;

  constructor(directory: string) {
    this.#directory = directory;
  }

  /** Room for record `number`, all zeros or as it was, to be filled at once. Numbers grow by one; earlier ones may be asked for again. */
  change(number: number, fill: (record: Buffer) => void): void {
    if (number >= this.#first) {
      if (number >= this.#first + WINDOW) this.#flush();
      const at = (number - this.#first) * INODE_SIZE;
      fill(this.#window.subarray(at, at + INODE_SIZE));
      return;
    }
    const record = this.read(number);
    fill(record);
    this.#attempt(() => writeSync(this.#open(), record, 0, INODE_SIZE, number * INODE_SIZE));
  }

  /** A copy of a record. */
  read(number: number): Buffer {
    const record = Buffer.allocUnsafe(INODE_SIZE).fill(0);
    if (number >= this.#first) this.#window.copy(record, 0, (number - this.#first) * INODE_SIZE);
    else this.#load(record, number);
    return record;
  }

  /** Records from 0 up to `end`, many at a time; each buffer is good until the next. */
  *readAll(end: number): Generator<{ first: number; records: Buffer }> {
    const buffer = this.#first === 0 ? undefined : Buffer.allocUnsafeSlow(1024 * INODE_SIZE);
    for (let first = 0; first < this.#first && buffer !== undefined; ) {
      const count = Math.min(1024, this.#first - first);
      const records = buffer.subarray(0, count * INODE_SIZE);
      this.#load(records, first);
      yield { first, records };
      first += count;
    }
    yield { first: this.#first, records: this.#window.subarray(0, (end - this.#first) * INODE_SIZE) };
  }

  close(): void {
    if (this.#descriptor !== undefined) closeSync(this.#descriptor);
    this.#descriptor = undefined;
  }

  #flush(): void {
    this.#attempt(() => {
      const descriptor = this.#open();
      for (let done = 0; done < this.#window.length; )
        done += writeSync(
          descriptor,
          this.#window,
          done,
          this.#window.length - done,
          this.#first * INODE_SIZE + done,
        );
    });
    this.#first += WINDOW;
    this.#window.fill(0);
  }

  #load(target: Buffer, number: number): void {
    this.#attempt(() => {
      for (let done = 0; done < target.length; ) {
        const position = number * INODE_SIZE + done;
        const read = readSync(this.#open(), target, done, target.length - done, position);
        if (read === 0) throw new Error('the spool file of inodes became shorter');
        done += read;
      }
    });
  }

  #open(): number {
    this.#descriptor ??= openNameless(this.#directory, 'inodes');
    return this.#descriptor;
  }

  #attempt<T>(action: () => T): T {
    return attempt(`spool inodes in ${this.#directory}`, action);
  }
}
