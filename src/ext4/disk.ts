/** `layer.vhd`: an ext4 file system, perhaps dm-verity, perhaps the footer that makes it a fixed VHD. */

import { appendFileSync, closeSync, fsyncSync, openSync } from 'node:fs';
import { decodeVhdFooter, encodeVhdFooter, VHD_FOOTER_SIZE, type VhdFooter } from '../vhd/footer.ts';
import { attempt, corruptAt } from './faults.ts';
import { type DiskImage, openImage } from './image-file.ts';
import { Ext4Reader } from './reader.ts';
import { type FoundVerity, findVerity } from './verity-tree.ts';

const COOKIE = 'conectix';

/** An open disk image. Close it. */
export class Disk {
  readonly file: DiskImage;
  readonly files: Ext4Reader;
  readonly verity: FoundVerity | undefined;
  /** Undefined for an image that is no fixed VHD. */
  readonly footer: VhdFooter | undefined;

  /** Throws `corrupt` for a footer or a dm-verity superblock that isn't what it must be, and as Ext4Reader does. */
  constructor(path: string) {
    this.file = openImage(path);
    try {
      this.files = new Ext4Reader(this.file);
      this.footer = readFooter(this.file);
      this.verity = findVerity(this.file, this.files.size);
    } catch (error) {
      this.file.close();
      throw error;
    }
  }

  /** Where the disk ends: before the footer. */
  get size(): number {
    return this.footer?.size ?? this.file.size;
  }

  close(): void {
    this.file.close();
  }
}

/** The footer of a file that ends in one. */
function readFooter(file: DiskImage): VhdFooter | undefined {
  const offset = file.size - VHD_FOOTER_SIZE;
  if (offset < 0) return undefined;
  const bytes = file.read(offset, VHD_FOOTER_SIZE);
  // Images without a footer are whole blocks; what is longer wants to be a VHD.
  if (bytes.toString('latin1', 0, 8) !== COOKIE && file.size % 1024 === 0) return undefined;
  return decodeVhdFooter(bytes, offset, (position, message) => {
    throw corruptAt(file.path, offset + position, message);
  });
}

/** Appends the footer to an image of whole sectors. Its unique ID is derived from `identity`. */
export function appendVhdFooter(path: string, size: number, identity: Uint8Array): void {
  attempt(`add a VHD footer to ${path}`, () => appendFileSync(path, encodeVhdFooter(size, identity)));
}

/** Makes a finished image durable. */
export function syncImage(path: string): void {
  attempt(`sync ${path}`, () => {
    const descriptor = openSync(path, 'r+');
    try {
      fsyncSync(descriptor);
    } finally {
      closeSync(descriptor);
    }
  });
}
