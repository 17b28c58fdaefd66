/** Positioned reads of disk images. */

import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { VHDX_COOKIE } from '../vhd/vhdx.ts';
import { VhdxFile } from '../vhd/vhdx-file.ts';
import { attempt, corruptAt } from './faults.ts';

/** What a disk is read from. Close it. */
export interface DiskImage {
  /** Of its file. */
  readonly path: string;
  /** Bytes of the disk, and of the footer of one that ends in such. */
  readonly size: number;
  /** Fills `target`; what lies beyond the end is `corrupt`. */
  readInto(target: Uint8Array, position: number): void;
  read(position: number, length: number): Buffer;
  close(): void;
}

/** A raw image or a fixed VHD, which is one with a footer, or a VHDX. */
export function openImage(path: string): DiskImage {
  const file = new ImageFile(path);
  try {
    const isVhdx =
      file.size >= VHDX_COOKIE.length && file.read(0, VHDX_COOKIE.length).toString('latin1') === VHDX_COOKIE;
    if (!isVhdx) return file;
  } catch (error) {
    file.close();
    throw error;
  }
  file.close();
  return new VhdxFile(path);
}

class ImageFile implements DiskImage {
  readonly path: string;
  readonly size: number;
  readonly #descriptor: number;

  constructor(path: string) {
    this.path = path;
    this.#descriptor = attempt(`open ${path}`, () => openSync(path, 'r'));
    this.size = fstatSync(this.#descriptor).size;
  }

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
