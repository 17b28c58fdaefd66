/** Views at paths: the record first, then the directories, then the mount; and back in the opposite order. */

import { mkdir, readlink, rename, rm, rmdir, symlink } from 'node:fs/promises';
import { dirname, isAbsolute, resolve } from 'node:path';
import { CimletError, classify, isErrorCode } from '../../errors.ts';
import { mountErofs, unmount } from '../../native/linux/mount.ts';
import { ensureDirectory, exists, removeEmptyDirectories, removeTree } from '../directories.ts';
import type { VolumeGuid } from '../host.ts';
import { KeyedLock } from '../keyed-lock.ts';
import { extractedPath, type Layout } from '../layout.ts';
import {
  changeMountRecord,
  readMountRecord,
  readMountRecords,
  removeMountRecord,
  writeMountRecord,
} from '../mount-records.ts';
import { describeHolders } from './holders.ts';
import { readMountInfo } from './mount-info.ts';
import type { ViewRecord } from './own-mounts.ts';
import { mountStateOf, realLocation } from './own-mounts.ts';
import { mountsBelow } from './scratch.ts';

const leaving = new KeyedLock();

export async function checkMountPath(path: string, root: string): Promise<void> {
  const refuse = (why: string) => new CimletError('invalid-manifest', `mount ${path}: ${why}`);
  if (!isAbsolute(path)) throw refuse('the path is not absolute');
  if (resolve(path) !== path) throw refuse(`the path should be written as ${resolve(path)}`);
  const place = await realLocation(path);
  const realRoot = await realLocation(root);
  if (isWithin(place, realRoot) || isWithin(realRoot, place))
    throw refuse(`the path lies inside or above the root ${root}`);
}

/** An EROFS image, and the files that its data are in. */
export interface ViewImage {
  image: string;
  deviceFiles: readonly string[];
}

/** Mounts an image where the record says. On failure nothing is mounted; what was made before is the caller's to undo. */
export async function mountKernelView(
  layout: Layout,
  record: ViewRecord,
  { image, deviceFiles: devices }: ViewImage,
  canLoop: boolean,
): Promise<void> {
  const request = { image, devices, target: record.request.path };
  await ensureDirectory(record.request.path);
  try {
    await mountErofs({ ...request, loop: record.loop });
  } catch (error) {
    // A kernel built without file-backed mounts says so only now.
    if (record.loop || !canLoop || !isErrorCode(error, 'unsupported-host')) throw error;
    await writeMountRecord(layout, { ...record, loop: true });
    await mountErofs({ ...request, loop: true });
  }
}

/** Puts a link to the extracted tree where the path is, in place of an empty directory. */
export async function linkExtractedView(record: ViewRecord): Promise<void> {
  const { path } = record.request;
  await ensureDirectory(dirname(path));
  try {
    if (await exists(path)) await rmdir(path);
    await symlink(record.source, path);
  } catch (error) {
    throw classify(error, `mount ${path}`);
  }
}

/**
 * Takes a view away with all that was made for it. Whatever is gone already is fine. One that shows replaced files goes
 * out of sight even while in use: who uses it gets no better by waiting.
 */
export async function takeAway(layout: Layout, record: ViewRecord): Promise<void> {
  const { path, volumeGuid, view } = record.request;
  if (view === 'Kernel') await unmountKernelView(record);
  else {
    await refuseMountedBelow(layout, volumeGuid);
    await removeOwnLink(record);
    if (record.replacedDirectory && !(await exists(path))) await mkdir(path);
    await removeExtracted(layout, volumeGuid);
  }
  // One after another: two that go at once would hand the directory above both to each other.
  await leaving.run(layout.root, async () => {
    const { created } = (await readMountRecord(layout, volumeGuid)) ?? record;
    await handOver(layout, record, await removeEmptyDirectories(created));
    await removeMountRecord(layout, volumeGuid);
  });
}

/** Directories of ours that other mounts of ours still need are theirs to remove from now on. */
async function handOver(
  layout: Layout,
  { request: { volumeGuid } }: ViewRecord,
  directories: readonly string[],
): Promise<void> {
  if (directories.length === 0) return;
  for (const { request } of await readMountRecords(layout)) {
    if (request.volumeGuid === volumeGuid) continue;
    await changeMountRecord(layout, request.volumeGuid, (heir) => {
      const inherited = directories.filter((directory) => isWithin(dirname(heir.request.path), directory));
      const created = [...new Set([...inherited, ...heir.created])];
      return created.length > heir.created.length ? { ...heir, created } : undefined;
    });
  }
}

/** Removes the link at the view's path if it is ours. */
export async function removeOwnLink(record: ViewRecord): Promise<void> {
  const { path } = record.request;
  try {
    if ((await readlink(path)) === record.source) await rm(path);
  } catch (error) {
    // EINVAL: something that is no link is there, which isn't ours.
    if ((error as NodeJS.ErrnoException).code === 'EINVAL') return;
    const classified = classify(error, `remove ${path}`);
    if (!isErrorCode(classified, 'not-found', 'failed-precondition')) throw classified;
  }
}

/** Throws `busy` while somebody has something mounted in it: deleting would go on in there. */
export async function removeExtracted(layout: Layout, volumeGuid: VolumeGuid): Promise<void> {
  await refuseMountedBelow(layout, volumeGuid);
  const doomed = extractedPath(layout, volumeGuid, 'rm-');
  await removeTree(doomed);
  try {
    await rename(extractedPath(layout, volumeGuid), doomed);
  } catch (error) {
    const classified = classify(error, `remove the extracted view ${volumeGuid}`);
    if (!isErrorCode(classified, 'not-found')) throw classified;
  }
  await removeTree(doomed);
}

async function refuseMountedBelow(layout: Layout, volumeGuid: VolumeGuid): Promise<void> {
  for (const prefix of ['', 'rm-', 'tmp-'] as const) {
    const [place] = await mountsBelow(extractedPath(layout, volumeGuid, prefix));
    if (place !== undefined)
      throw new CimletError(
        'busy',
        `remove the extracted view ${volumeGuid}: something is mounted at ${place}`,
        {
          hint: 'unmount that first',
        },
      );
  }
}

async function unmountKernelView(record: ViewRecord): Promise<void> {
  const { path } = record.request;
  const table = readMountInfo();
  const { state, message } = await mountStateOf(record, table);
  if (state === 'missing') return;
  if (state === 'covered')
    throw new CimletError('busy', `dismount ${path}: ${message ?? 'something else is mounted over it'}`, {
      hint: 'unmount that first',
    });
  try {
    // What is written to must not go on being written to out of sight.
    await unmount(path, { detach: record.stale === true && record.request.access === 'ReadOnly' });
  } catch (error) {
    if (!isErrorCode(error, 'busy')) throw error;
    const holders = await describeHolders(await realLocation(path), table);
    throw new CimletError('busy', `dismount ${path}: it is in use`, {
      hint: holders ?? 'close what uses it',
      cause: error,
    });
  }
}

function isWithin(path: string, directory: string): boolean {
  return path === directory || path.startsWith(directory === '/' ? '/' : `${directory}/`);
}
