/** What is at a path that is none of ours, for somebody who wants to mount there. */

import { lstat, readdir, readlink } from 'node:fs/promises';
import { classify, isErrorCode } from '../errors.ts';
import type { PathState } from './host.ts';

/** `link` is what the system keeps as a symbolic link. */
export async function foreignStateOf(path: string, link = 'a symbolic link'): Promise<PathState> {
  try {
    const stats = await lstat(path);
    if (stats.isSymbolicLink()) return { kind: 'symlink', detail: `${link} to ${await readlink(path)}` };
    if (!stats.isDirectory()) return { kind: 'file', detail: `a file of ${stats.size} bytes` };
    const entries = await readdir(path);
    return entries.length === 0
      ? { kind: 'empty-directory' }
      : {
          kind: 'directory',
          detail: `a directory holding ${entries.length} ${entries.length === 1 ? 'entry' : 'entries'}`,
        };
  } catch (error) {
    const classified = classify(error, `look at ${path}`);
    if (isErrorCode(classified, 'not-found')) return { kind: 'absent' };
    if (isErrorCode(classified, 'access-denied', 'failed-precondition', 'busy'))
      return { kind: 'unreadable', detail: classified.message };
    throw classified;
  }
}
