/** What something takes on disk. */

import { lstat, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { classify, isErrorCode } from '../../errors.ts';

export interface Size {
  bytes: number;
  /** Files and directories, the outermost included. */
  files: number;
}

/** Nothing for what is gone: another process may be at work while this one only looks. */
export async function sizeUnder(path: string): Promise<Size> {
  try {
    const stats = await lstat(path);
    const size = { bytes: stats.isDirectory() ? 0 : stats.size, files: 1 };
    for (const name of stats.isDirectory() ? await readdir(path) : []) {
      const below = await sizeUnder(join(path, name));
      size.bytes += below.bytes;
      size.files += below.files;
    }
    return size;
  } catch (error) {
    const classified = classify(error, `look at ${path}`);
    if (isErrorCode(classified, 'not-found')) return { bytes: 0, files: 0 };
    throw classified;
  }
}
