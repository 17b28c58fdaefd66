/** Folders of snapshots: filled under a temporary name, put in place by a rename, renamed again before they are deleted. */

import { rename } from 'node:fs/promises';
import { classify, describeError, isErrorCode } from '../errors.ts';
import { ensureDirectory, removeTree, syncDirectory } from './directories.ts';
import type { EffectContext } from './host.ts';
import { type Layout, snapshotPath } from './layout.ts';

/** Makes the folder anew, under its temporary name. Returns its path. */
export async function beginFolder(layout: Layout, folder: string): Promise<string> {
  const path = snapshotPath(layout, folder, 'tmp-');
  await removeTree(path);
  await ensureDirectory(path);
  return path;
}

export async function discardFolder(layout: Layout, folder: string): Promise<void> {
  await removeTree(snapshotPath(layout, folder, 'tmp-'));
}

/** Nothing may be in its place any more. */
export async function putInPlace(layout: Layout, folder: string): Promise<void> {
  const from = snapshotPath(layout, folder, 'tmp-');
  await rename(from, snapshotPath(layout, folder)).catch((error: unknown) => {
    throw classify(error, `rename ${from}`);
  });
  await syncDirectory(layout.snapshots);
}

/** Durably takes the folder out of its place, to be deleted by `removeAside`. False when there is none. */
export async function setAside(layout: Layout, folder: string): Promise<boolean> {
  const path = snapshotPath(layout, folder);
  const aside = snapshotPath(layout, folder, 'rm-');
  await removeTree(aside);
  try {
    await rename(path, aside);
  } catch (error) {
    const classified = classify(error, `remove ${path}`);
    if (isErrorCode(classified, 'not-found')) return false;
    throw classified;
  }
  await syncDirectory(layout.snapshots);
  return true;
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

export async function removeAside(layout: Layout, folder: string): Promise<void> {
  await removeTree(snapshotPath(layout, folder, 'rm-'));
}
