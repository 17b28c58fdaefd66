/** Positioned reads of an image's file. */

import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { attempt, corruptAt } from './faults.ts';

export class ImageFile {
  readonly path: string;
  readonly size: number;
  readonly #descriptor: number;

  constructor(path: string) {
    this.path = path;
    this.#descriptor = attempt(`open ${path}`, () => openSync(path, 'r'));
    this.size = fstatSync(this.#descriptor).size;
  }

  /** Fills `target`; what lies beyond the end of the file is `corrupt`. */
  readInto(target: Uint8Array, position: number): void {
    attempt(`read ${this.path}`, () => {
      for (let done = 0; done < target.length; ) {
        const read = readSync(this.#descriptor, target, done, target.length - done, position + done);
        if (read === 0) throw corruptAt(this.path, position + done, 'the file ends here');
        done += read;
      }
    });
  }

  read(position: number, length: number): Buffer {
    if (position + length > this.size) throw corruptAt(this.path, this.size, 'the file ends here');
    const bytes = Buffer.allocUnsafe(length);
    this.readInto(bytes, position);
    return bytes;
  }

  close(): void {
    closeSync(this.#descriptor);
  }
}
