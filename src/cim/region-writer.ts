/** Writes one region file through a bounded buffer. Sequential, but what was appended last can be taken back. */

import { close, closeSync, fdatasync, fsyncSync, ftruncateSync, openSync, readSync } from 'node:fs';
import { CimletError } from '../errors.ts';
import { writeFully } from './durable-files.ts';
import { attempt } from './faults.ts';
import { alignUp, PAGE_SIZE } from './format.ts';

const BUFFER_SIZE = 1024 * 1024;
const WRITE_BACK_EVERY = 64 * 1024 * 1024;

export class RegionWriter {
  readonly path: string;
  readonly #descriptor: number;
  readonly #buffer = Buffer.allocUnsafeSlow(BUFFER_SIZE);
  /** Bytes of the file that are written out; the buffer holds what follows. */
  #flushed = 0;
  #buffered = 0;
  #writtenBack = 0;
  #writingBack = false;
  #closed = false;

  /** Creates the file, or empties what a dead run left there, and starts it with `header`. */
  constructor(path: string, header: Uint8Array) {
    this.path = path;
    this.#descriptor = attempt(`create ${path}`, () => openSync(path, 'w+'));
    this.append(header);
  }

  /** Where the next byte goes. */
  get position(): number {
    return this.#flushed + this.#buffered;
  }

  append(data: Uint8Array): void {
    if (this.#buffered + data.length > BUFFER_SIZE) {
      this.#flush(data);
      return;
    }
    this.#buffer.set(data, this.#buffered);
    this.#buffered += data.length;
  }

  /** Fills with zeros up to a multiple of `alignment` (at most a page) and returns that position. */
  align(alignment: number): number {
    const padding = alignUp(this.position, alignment) - this.position;
    if (padding > 0) this.append(ZEROS.subarray(0, padding));
    return this.position;
  }

  /** Takes back everything from `position` on. */
  rewind(position: number): void {
    if (position >= this.#flushed) {
      this.#buffered = position - this.#flushed;
      return;
    }
    this.#flushed = position;
    this.#writtenBack = Math.min(this.#writtenBack, position);
    this.#buffered = 0;
  }

  /** Reads back what was appended. */
  read(position: number, length: number): Buffer {
    if (position + length > this.#flushed) this.#flush();
    const bytes = Buffer.alloc(length);
    const read = attempt(`read ${this.path}`, () => readSync(this.#descriptor, bytes, 0, length, position));
    if (read !== length) throw new CimletError('corrupt', `read ${this.path}: it became shorter`);
    return bytes;
  }

  /** Pads to a whole page, makes the file durable and closes it; returns its size. */
  finish(): number {
    const size = this.align(PAGE_SIZE);
    this.#flush();
    attempt(`write ${this.path}`, () => {
      // What was taken back may reach beyond the end.
      ftruncateSync(this.#descriptor, size);
      fsyncSync(this.#descriptor);
    });
    this.close();
    return size;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    closeSync(this.#descriptor);
  }

  /** Writes out the buffer and then `more`, which thus is never copied. */
  #flush(more: Uint8Array = ZEROS.subarray(0, 0)): void {
    attempt(`write ${this.path}`, () => {
      writeFully(this.#descriptor, this.#buffer.subarray(0, this.#buffered), this.#flushed);
      writeFully(this.#descriptor, more, this.position);
    });
    this.#flushed = this.position + more.length;
    this.#buffered = 0;
    this.#writeBack();
  }

  /**
   * Has the kernel write to disk while more data comes, so that `finish` waits for the rest only. The descriptor is its own, since
   * the writer may be closed before the answer comes; an error is left for `finish`, which meets it again.
   */
  #writeBack(): void {
    if (this.#writingBack || this.#flushed - this.#writtenBack < WRITE_BACK_EVERY) return;
    this.#writtenBack = this.#flushed;
    this.#writingBack = true;
    const descriptor = attempt(`open ${this.path}`, () => openSync(this.path, 'r'));
    fdatasync(descriptor, () => {
      close(descriptor);
      this.#writingBack = false;
    });
  }
}

const ZEROS = Buffer.alloc(PAGE_SIZE);
