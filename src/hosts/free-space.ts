/** Room on the disk that a root is on. */

import { statfs } from 'node:fs/promises';
import { dirname } from 'node:path';
import { classify, isErrorCode } from '../errors.ts';

/** Free bytes where `path` is or would be made; undefined where the file system doesn't say. */
export async function freeBytesAt(path: string): Promise<number | undefined> {
  for (let directory = path; ; directory = dirname(directory)) {
    try {
      const { bavail, bsize } = await statfs(directory);
      return bavail * bsize;
    } catch (error) {
      const classified = classify(error, `look at ${directory}`);
      if (!isErrorCode(classified, 'not-found', 'failed-precondition', 'access-denied')) throw classified;
      if (directory === dirname(directory)) return undefined;
    }
  }
}
