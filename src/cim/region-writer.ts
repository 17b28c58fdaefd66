/** Writes one region through a bounded buffer. Sequential, but what was appended last can be taken back. */

import { close, fdatasync, openSync, readSync } from 'node:fs';
import { CimletError } from '../errors.ts';
import { writeFully } from './durable-files.ts';
import { attempt } from './faults.ts';
import { alignUp, PAGE_SIZE } from './format.ts';

const BUFFER_SIZE = 1024 * 1024;
const WRITE_BACK_EVERY = 64 * 1024 * 1024;

/** Where a region is written: from `base` on in an open file, which is its owner's to sync and to close. */
export interface RegionPlace {
  path: string;
  descriptor: number;
  base: number;
}

export class RegionWriter {
  readonly #place: RegionPlace;
  readonly #writesBack: boolean;
  readonly #buffer = Buffer.allocUnsafeSlow(BUFFER_SIZE);
  /** Bytes of the region that are written out; the buffer holds what follows. */
  #flushed = 0;
  #buffered = 0;
  #writtenBack = 0;
  #writingBack = false;

  /** Starts the region with `header`. With `writeBack`, `path` must be there and the kernel is told to write while more data comes. */
  constructor(place: RegionPlace, header: Uint8Array, { writeBack }: { writeBack: boolean }) {
    this.#place = place;
    this.#writesBack = writeBack;
    this.append(header);
  }

  /** Where the next byte goes, from the region's start. */
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
    const { path, descriptor, base } = this.#place;
    const bytes = Buffer.alloc(length);
    const read = attempt(`read ${path}`, () => readSync(descriptor, bytes, 0, length, base + position));
    if (read !== length) throw new CimletError('corrupt', `read ${path}: it became shorter`);
    return bytes;
  }

  /** Pads to a whole page and writes all out; returns the region's size. What was taken back may follow on disk. */
  finish(): number {
    const size = this.align(PAGE_SIZE);
    this.#flush();
    return size;
  }

  /** Writes out the buffer and then `more`, which thus is never copied. */
  #flush(more: Uint8Array = ZEROS.subarray(0, 0)): void {
    const { path, descriptor, base } = this.#place;
    attempt(`write ${path}`, () => {
      writeFully(descriptor, this.#buffer.subarray(0, this.#buffered), base + this.#flushed);
      writeFully(descriptor, more, base + this.position);
    });
    this.#flushed = this.position + more.length;
    this.#buffered = 0;
    if (this.#writesBack) this.#writeBack(path);
  }

  /**
   * Has the kernel write to disk while more data comes, so that the final sync waits for the rest only. The descriptor is its own,
   * since the writer may be closed before the answer comes; an error is left for the final sync, which meets it again.
   */
  #writeBack(path: string): void {
    if (this.#writingBack || this.#flushed - this.#writtenBack < WRITE_BACK_EVERY) return;
    this.#writtenBack = this.#flushed;
    this.#writingBack = true;
    const descriptor = attempt(`open ${path}`, () => openSync(path, 'r'));
    fdatasync(descriptor, () => {
      close(descriptor);
      this.#writingBack = false;
    });
  }
}

const ZEROS = Buffer.alloc(PAGE_SIZE);
