/** Writing so that it survives a crash: bytes first, then the directory that names them. */

import { closeSync, fsyncSync, openSync, rmSync, writeSync } from 'node:fs';
import { attempt } from './faults.ts';

/** Writes all of `bytes` at `position`, however many calls it takes. */
export function writeFully(descriptor: number, bytes: Uint8Array, position: number): void {
  for (let done = 0; done < bytes.length; )
    done += writeSync(descriptor, bytes, done, bytes.length - done, position + done);
}

/** Creates or replaces a file, on disk when this returns. */
export function writeDurable(path: string, bytes: Uint8Array): void {
  attempt(`write ${path}`, () => {
    const descriptor = openSync(path, 'w');
    try {
      writeFully(descriptor, bytes, 0);
      fsyncSync(descriptor);
    } finally {
      closeSync(descriptor);
    }
  });
}

/** Makes renames and removals in a directory durable. */
export function syncDirectory(directory: string): void {
  attempt(`sync ${directory}`, () => {
    const descriptor = openSync(directory, 'r');
    try {
      fsyncSync(descriptor);
    } catch (error) {
      // Windows syncs no directories: NTFS' own journal keeps renames in order.
      if ((error as NodeJS.ErrnoException).code !== 'EPERM') throw error;
    } finally {
      closeSync(descriptor);
    }
  });
}

/** Removes a file; one that isn't there is fine. */
export function removeFile(path: string): void {
  attempt(`remove ${path}`, () => rmSync(path, { force: true }));
}
