/** Where an open image's bytes are read from: a file or block device, perhaps one whose every block is verified. */

import { closeSync, constants, fstatSync, openSync, readFileSync, readSync } from 'node:fs';
import { attempt, corruptAt } from './faults.ts';
import { PAGE_SIZE } from './format.ts';

export interface ByteSource {
  readonly path: string;
  /** Fills `target` from `position`; what is not there is `corrupt`. `what` names the object for the error. */
  readInto(target: Uint8Array, position: number, what: string): void;
  /** Any number of times. */
  close(): void;
}

/** Opens a file or block device. Anything else is `corrupt`: a pipe in a file's place would be waited for without end. */
export function openForReading(path: string): number {
  const descriptor = attempt(`open ${path}`, () =>
    openSync(path, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0)),
  );
  try {
    const stats = attempt(`look at ${path}`, () => fstatSync(descriptor));
    if (!stats.isFile() && !stats.isBlockDevice()) throw corruptAt(path, 0, 'it is no file');
    return descriptor;
  } catch (error) {
    closeSync(descriptor);
    throw error;
  }
}

/** Room for the IDs of ten million objects, a hundred times what a layer has. */
const LARGEST_WHOLE = 512 * 1024 * 1024;

/** All of a file; one that would take too much memory is `corrupt`. */
export function readWhole(path: string): Buffer {
  const descriptor = openForReading(path);
  try {
    const { size } = attempt(`look at ${path}`, () => fstatSync(descriptor));
    if (size > LARGEST_WHOLE)
      throw corruptAt(path, LARGEST_WHOLE, `it has ${size} bytes, and at most ${LARGEST_WHOLE} are accepted`);
    return attempt(`read ${path}`, () => readFileSync(descriptor));
  } finally {
    closeSync(descriptor);
  }
}

/** Bytes as they are on disk. */
export class FileSource implements ByteSource {
  readonly path: string;
  readonly descriptor: number;
  #closed = false;

  constructor(path: string) {
    this.path = path;
    this.descriptor = openForReading(path);
  }

  readInto(target: Uint8Array, position: number, what: string): void {
    const read = this.readSome(target, position);
    if (read < target.length) throw corruptAt(this.path, position + read, `${what}: the file ends before it`);
  }

  /** Fills as much of `target` as there are bytes; returns how many. */
  readSome(target: Uint8Array, position: number): number {
    let done = 0;
    while (done < target.length) {
      const read = attempt(`read ${this.path}`, () =>
        readSync(this.descriptor, target, done, target.length - done, position + done),
      );
      if (read === 0) break;
      done += read;
    }
    return done;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    closeSync(this.descriptor);
  }
}

const CHUNK = 1024 * 1024;

/** Some bytes of a source in order; each piece is good until the next. */
export function* readPieces(
  source: ByteSource,
  position: number,
  length: number,
  what: string,
): Generator<Buffer> {
  const chunk = Buffer.allocUnsafeSlow(Math.min(CHUNK, length));
  for (let done = 0; done < length; done += chunk.length) {
    const piece = chunk.subarray(0, Math.min(chunk.length, length - done));
    source.readInto(piece, position + done, what);
    yield piece;
  }
}

/** Some bytes of a source, whole. */
export function readBytes(source: ByteSource, position: number, length: number, what: string): Buffer {
  const bytes = Buffer.allocUnsafeSlow(length);
  source.readInto(bytes, position, what);
  return bytes;
}

/** A page, or what there is of it. */
export function readPage(file: FileSource, position: number): Buffer {
  const page = Buffer.alloc(PAGE_SIZE);
  return page.subarray(0, file.readSome(page, position));
}
