/** Directories and what is in them, with errors that say what was being done. */

import { chmod, lstat, mkdir, open, readdir, rename, rm, rmdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { classify, isErrorCode } from '../errors.ts';

/** Names in a directory, sorted; none when it doesn't exist. */
export async function listDirectory(directory: string): Promise<string[]> {
  try {
    return (await readdir(directory)).sort();
  } catch (error) {
    const classified = classify(error, `list ${directory}`);
    if (isErrorCode(classified, 'not-found')) return [];
    throw classified;
  }
}

export async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, 'r').catch((error: unknown) => {
    const classified = classify(error, `open ${directory}`);
    if (isErrorCode(classified, 'not-found')) return undefined;
    throw classified;
  });
  if (handle === undefined) return;
  try {
    await handle.sync();
  } catch (error) {
    // Windows syncs no directories: NTFS' own journal keeps renames in order.
    if ((error as NodeJS.ErrnoException).code !== 'EPERM') throw error;
  } finally {
    await handle.close();
  }
}

export async function exists(path: string): Promise<boolean> {
  try {
    await lstat(path);
    return true;
  } catch (error) {
    const classified = classify(error, `look at ${path}`);
    if (isErrorCode(classified, 'not-found')) return false;
    throw classified;
  }
}

/** Directories that must be made so that `path` exists, outermost first. */
export async function missingDirectories(path: string): Promise<string[]> {
  const missing: string[] = [];
  for (let directory = path; !(await exists(directory)); directory = dirname(directory))
    missing.unshift(directory);
  return missing;
}

/** Makes a directory and those above it. (Node's own recursive mkdir hides a read-only file system.) */
export async function ensureDirectory(path: string): Promise<void> {
  for (const directory of await missingDirectories(path))
    try {
      await mkdir(directory);
    } catch (error) {
      const classified = classify(error, `make directory ${directory}`);
      if (!isErrorCode(classified, 'already-exists')) throw classified;
    }
}

/** Removes directories, innermost first, as far as they are empty. Returns those that stay, outermost first. */
export async function removeEmptyDirectories(outermostFirst: readonly string[]): Promise<string[]> {
  for (const [index, directory] of [...outermostFirst.entries()].reverse())
    try {
      await rmdir(directory);
    } catch (error) {
      const classified = classify(error, `remove directory ${directory}`);
      if (isErrorCode(classified, 'not-found')) continue;
      // Something of somebody else's is in it, or in its place.
      if (isErrorCode(classified, 'already-exists', 'failed-precondition', 'busy'))
        return outermostFirst.slice(0, index + 1);
      throw classified;
    }
  return [];
}

/** On Windows a file can be neither renamed nor deleted for an instant while a virus scanner's filter driver looks at it. */
const ATTEMPTS = 5;
const PAUSE_MS = 100;

/** Renames a file or folder. `busy` or `access-denied` while it, or what is in it, is open to others. */
export async function move(from: string, to: string): Promise<void> {
  await patiently(`rename ${from}`, () => rename(from, to));
}

/** Deletes a file or a tree of ours, read-only directories in it included. */
export async function removeTree(path: string): Promise<void> {
  // Not rm's own retries: it makes them for a file, for its folder, and for the folder above again.
  const remove = () => rm(path, { recursive: true, force: true });
  await patiently(`remove ${path}`, async () => {
    try {
      await remove();
    } catch (error) {
      if (!isErrorCode(classify(error, `remove ${path}`), 'access-denied')) throw error;
      await makeWritable(path);
      await remove();
    }
  });
}

async function patiently(operation: string, task: () => Promise<void>): Promise<void> {
  for (let attempt = 1; ; attempt++)
    try {
      await task();
      return;
    } catch (error) {
      const classified = classify(error, operation);
      const isPassing = isErrorCode(classified, 'busy', 'access-denied', 'already-exists');
      if (!isPassing || attempt === ATTEMPTS) throw classified;
      await wait(PAUSE_MS);
    }
}

async function makeWritable(directory: string): Promise<void> {
  if (!(await lstat(directory)).isDirectory()) return;
  await chmod(directory, 0o700);
  for (const entry of await readdir(directory, { withFileTypes: true }))
    if (entry.isDirectory()) await makeWritable(join(directory, entry.name));
}
