/** One spelling for a root, whoever gives it: volumes are named after it, and a trailing backslash fails layer calls. */

import { realpathSync } from 'node:fs';
import { resolve } from 'node:path';
import { classify, isErrorCode } from '../../errors.ts';
import { foldPath, withoutNamespace } from './mount-paths.ts';

/** Absolute, without `\\?\` or trailing backslash, and in the case that the file system has. Links stay as they are. */
export function storeRoot(root: string): string {
  const path = withoutNamespace(resolve(root));
  const absolute = path[0]?.toUpperCase() + path.slice(1);
  const real = realPathIfAny(absolute);
  return real !== undefined && foldPath(real) === foldPath(absolute) ? real : absolute;
}

function realPathIfAny(path: string): string | undefined {
  try {
    return realpathSync.native(path);
  } catch (error) {
    const classified = classify(error, `look at ${path}`);
    if (isErrorCode(classified, 'not-found', 'failed-precondition', 'access-denied', 'native'))
      return undefined;
    throw classified;
  }
}
