/** VHD footers of container files: a container with one is a fixed VHD of itself. */

import { closeSync, fstatSync, fsyncSync, openSync, readSync } from 'node:fs';
import { CimletError } from '../errors.ts';
import { decodeVhdFooter, encodeVhdFooter, VHD_FOOTER_SIZE, type VhdFooter } from '../vhd/footer.ts';
import { type Container, openContainer } from './container.ts';
import { writeFully } from './durable-files.ts';
import { attempt, corruptAt } from './faults.ts';
import { rootHashDigest, treeGeometry } from './merkle.ts';

export { encodeVhdFooter, VHD_FOOTER_SIZE, type VhdFooter } from '../vhd/footer.ts';

/**
 * Adds the footer behind all there is of a container file, its seal included; one that is there already stays. Afterwards nothing can be
 * added to the container, and it cannot be sealed. A file that ends elsewhere, as after a seal that was cut off, is `corrupt`.
 */
export function addVhdFooter(path: string): VhdFooter {
  const container = openContainer(path);
  try {
    if (container.kind === 'device')
      throw new CimletError('failed-precondition', `add a VHD footer to ${path}: it is a block device`);
    return readVhdFooter(path) ?? append(container);
  } finally {
    container.close();
  }
}

function append({ path, header, headerPage, seal }: Container): VhdFooter {
  const end = seal === undefined ? header.end : treeGeometry(seal.sealedLength).end;
  const identity = seal === undefined ? headerPage : rootHashDigest(seal.rootHash);
  return attempt(`add a VHD footer to ${path}`, () => {
    const descriptor = openSync(path, 'r+');
    try {
      const { size } = fstatSync(descriptor);
      if (size !== end) throw corruptAt(path, end, `there are ${size - end} bytes where the container ends`);
      const footer = encodeVhdFooter(size, identity);
      writeFully(descriptor, footer, size);
      fsyncSync(descriptor);
      return decode(footer, path, size);
    } finally {
      closeSync(descriptor);
    }
  });
}

/**
 * The footer at the end of a file; undefined when there is none. One that isn't what a fixed VHD of this size has is `corrupt`, and so is
 * half a one, as only a file that isn't whole pages can end in.
 */
export function readVhdFooter(path: string): VhdFooter | undefined {
  return attempt(`read ${path}`, () => {
    const descriptor = openSync(path, 'r');
    try {
      const { size } = fstatSync(descriptor);
      if (size % 4096 === 0) return undefined;
      const offset = Math.max(0, size - VHD_FOOTER_SIZE);
      const bytes = Buffer.alloc(VHD_FOOTER_SIZE);
      const read = readSync(descriptor, bytes, 0, bytes.length, offset);
      return decode(bytes.subarray(0, read), path, offset);
    } finally {
      closeSync(descriptor);
    }
  });
}

function decode(bytes: Buffer, path: string, offset: number): VhdFooter {
  return decodeVhdFooter(bytes, offset, (position, message) => {
    throw corruptAt(path, offset + position, message);
  });
}
