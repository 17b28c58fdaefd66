/** Folders of snapshots: filled under a temporary name, put in place by a rename, renamed again before they are deleted. */

import { join } from 'node:path';
import { describeError, isErrorCode } from '../errors.ts';
import { ensureDirectory, listDirectory, move, removeTree, syncDirectory } from './directories.ts';
import type { EffectContext } from './host.ts';
import { type Layout, snapshotPath } from './layout.ts';

/** Makes the folder anew, under its temporary name; `remove` deletes what is there. Returns its path. */
export async function beginFolder(layout: Layout, folder: string, remove = removeTree): Promise<string> {
  const path = snapshotPath(layout, folder, 'tmp-');
  await remove(path);
  await ensureDirectory(path);
  return path;
}

/** `remove` deletes the folder. */
export async function discardFolder(layout: Layout, folder: string, remove = removeTree): Promise<void> {
  await remove(snapshotPath(layout, folder, 'tmp-'));
}

/** Nothing may be in its place any more. */
export async function putInPlace(layout: Layout, folder: string): Promise<void> {
  await move(snapshotPath(layout, folder, 'tmp-'), snapshotPath(layout, folder));
  await syncDirectory(layout.snapshots);
}

/**
 * Durably takes the folder out of its place, to be deleted by `removeAside`. False when there is none; `busy` or
 * `access-denied` while something in it is open, on Windows.
 */
export async function setAside(layout: Layout, folder: string): Promise<boolean> {
  try {
    await move(snapshotPath(layout, folder), await freeAside(layout, folder));
  } catch (error) {
    if (isErrorCode(error, 'not-found')) return false;
    throw error;
  }
  await syncDirectory(layout.snapshots);
  return true;
}

/** What `remove` can't delete now is left over, and doesn't stand in the way. */
export async function removeAside(
  layout: Layout,
  folder: string,
  context: EffectContext,
  remove = removeTree,
): Promise<void> {
  for (const path of await asides(layout, folder))
    try {
      await remove(path);
    } catch (error) {
      if (!isErrorCode(error, 'busy', 'access-denied')) throw error;
      context.warn?.(`${path} cannot be deleted yet: ${error.message}`);
    }
}

/** Of removals that were interrupted, or of what couldn't be deleted, there may be several. */
async function asides(layout: Layout, folder: string): Promise<string[]> {
  const first = `rm-${folder}`;
  return (await listDirectory(layout.snapshots))
    .filter((name) => name === first || name.startsWith(`${first}~`))
    .map((name) => join(layout.snapshots, name));
}

async function freeAside(layout: Layout, folder: string): Promise<string> {
  const first = snapshotPath(layout, folder, 'rm-');
  const taken = new Set(await asides(layout, folder));
  for (let path = first, number = 2; ; path = `${first}~${number}`, number++)
    if (!taken.has(path)) return path;
}

/** Cleans up after a failure. What fails of that is a warning: why it was necessary is what has to be known. */
export async function cleanUpAfterFailure(
  context: EffectContext,
  cleanUp: () => Promise<void>,
): Promise<void> {
  try {
    await cleanUp();
  } catch (error) {
    context.warn?.(describeError(error));
  }
}
