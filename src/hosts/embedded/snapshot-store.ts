/** Snapshots by key: prepared in a folder that is renamed into place, removed the other way round. */

import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { CimletError } from '../../errors.ts';
import { throwIfAborted } from '../abort.ts';
import { listDirectory, removeTree } from '../directories.ts';
import type { EffectContext, Leftover, SnapshotMount, SnapshotRequest } from '../host.ts';
import { snapshotGuid } from '../identity.ts';
import { type Layout, snapshotPath } from '../layout.ts';
import { beginFolder, cleanUpAfterFailure, putInPlace, setAside } from '../snapshot-folders.ts';
import {
  parseSnapshotFolder,
  readSnapshotFolder,
  readSnapshotRecord,
  readSnapshotRecords,
  type SnapshotRecord,
  writeSnapshotRecord,
} from '../snapshot-records.ts';
import { isSameRequest, otherSnapshot } from '../snapshot-request.ts';
import { readMountInfo } from './mount-info.ts';
import type { ViewImage } from './mounting.ts';
import { realLocation } from './own-mounts.ts';
import {
  findScratch,
  holdsScratch,
  makeScratch,
  onceIdle,
  removeForeignScratch,
  requireFreeLocation,
  unmountBelow,
} from './scratch.ts';

/** The chain's layers are the caller's to check. */
export async function prepareSnapshot(
  layout: Layout,
  request: SnapshotRequest,
  context: EffectContext,
): Promise<void> {
  const known = await readSnapshotRecord(layout, request.key);
  if (known !== undefined) {
    if (isSameRequest(known.request, request)) return;
    throw otherSnapshot(known.request);
  }
  const id = snapshotGuid(request.key);
  const remains = snapshotPath(layout, id);
  if (await holdsScratch(remains))
    throw new CimletError(
      'failed-precondition',
      `prepare snapshot ${JSON.stringify(request.key)}: ${remains} has no readable snapshot.json, but what was written to a snapshot`,
      { hint: 'copy what is needed out of it and delete it, or use the version of cimlet that made it' },
    );
  await discardRemains(layout, id, context.signal);
  await requireFreeLocation(layout, request);
  const folder = await beginFolder(layout, id);
  try {
    // The record comes first, since it says where else something of the snapshot may be.
    await writeSnapshotRecord(folder, request);
    await mkdir(join(folder, 'lower'));
    if (request.kind === 'active') await makeScratch(layout, request, folder);
    await putInPlace(layout, id);
  } catch (error) {
    await cleanUpAfterFailure(context, () => discardSnapshot(layout, folder));
    throw error;
  }
}

/** Nobody may need it any more. Missing is fine. */
export async function removeSnapshot(layout: Layout, key: string, signal: AbortSignal): Promise<void> {
  const id = snapshotGuid(key);
  const remove = async () => {
    await unmountBelow(snapshotPath(layout, id));
    await setAside(layout, id);
    await discardRemains(layout, id, signal);
  };
  const record = await readSnapshotRecord(layout, key);
  if (record === undefined) await remove();
  else await onceIdle(layout, record, `remove snapshot ${JSON.stringify(key)}`, remove, signal);
}

/** Deletes a snapshot's folder, whatever it is called by now, and what it keeps elsewhere. Without a signal, for who cleans up after one was aborted. */
async function discardSnapshot(layout: Layout, folder: string, signal?: AbortSignal): Promise<void> {
  await unmountBelow(folder);
  const record = await readSnapshotFolder(folder);
  if (record !== undefined) await removeForeignScratch(layout, record, signal);
  await removeTree(folder);
}

/** Deletes what is left over. What is mounted in it is only unmounted: nothing of that is ours to delete. */
export async function discardLeftovers(
  layout: Layout,
  leftovers: readonly Leftover[],
  signal: AbortSignal,
): Promise<void> {
  const mountPoints = new Set(readMountInfo().map(({ mountPoint }) => mountPoint));
  for (const { path } of leftovers) {
    throwIfAborted(signal, 'clean leftovers');
    if (mountPoints.has(await realLocation(path))) await unmountBelow(path);
    else await discardSnapshot(layout, path, signal);
  }
}

/** What is left of a snapshot that isn't in place. */
async function discardRemains(layout: Layout, id: string, signal: AbortSignal): Promise<void> {
  for (const name of await listDirectory(layout.snapshots))
    if (parseSnapshotFolder(name)?.folder === id)
      await discardSnapshot(layout, join(layout.snapshots, name), signal);
}

/** The key of a snapshot that is kept in this one's scratch. */
export async function findSharer(layout: Layout, key: string): Promise<string | undefined> {
  for (const { request } of await readSnapshotRecords(layout))
    if (request.scratch?.shareWith === key) return request.key;
  return undefined;
}

/** The mount of an image, with the files that it needs. */
export function imageMount({ image, deviceFiles }: ViewImage): SnapshotMount {
  const options = ['ro', ...deviceFiles.map((file) => `device=${file}`)];
  return { type: 'erofs', source: image, options };
}

/** No layer has a say in where a file is, and what is written says what changed by itself. */
const NO_REDIRECTS = ['redirect_dir=nofollow', 'metacopy=off'];

/** The mount of a Linux layer's disk. */
export function diskMount(disk: string): SnapshotMount {
  return { type: 'ext4', source: disk, options: ['ro', 'loop'] };
}

/**
 * As containerd says it, with its mount manager's words for what has to be mounted first (`{{ mount 0 }}` is where the first of the list is).
 * `lowers`: mounts of the layers below, topmost first.
 */
export async function describeMounts(
  layout: Layout,
  record: SnapshotRecord,
  lowers: readonly SnapshotMount[],
): Promise<SnapshotMount[]> {
  const { key, kind } = record.request;
  const mounts = [...lowers];
  const lowerdir = `lowerdir=${lowers.map((_, index) => `{{ mount ${index} }}`).join(':')}`;
  if (kind === 'view')
    return lowers.length < 2
      ? mounts
      : [
          ...mounts,
          { type: 'format/overlay', source: 'overlay', options: ['ro', ...NO_REDIRECTS, lowerdir] },
        ];
  const { directory, image } = await findScratch(layout, record);
  const id = snapshotGuid(key);
  if (image !== undefined) mounts.push({ type: 'ext4', source: image, options: ['rw', 'loop'] });
  const place = image === undefined ? directory : `{{ mount ${mounts.length - 1} }}`;
  if (lowers.length === 0) {
    const type = image === undefined ? 'bind' : 'format/bind';
    return [...mounts, { type, source: `${place}/${id}/fs`, options: ['rbind', 'rw'] }];
  }
  const own = [`workdir=${place}/${id}/work`, `upperdir=${place}/${id}/fs`, lowerdir];
  const options = ['index=off', ...NO_REDIRECTS, ...own];
  return [...mounts, { type: 'format/overlay', source: 'overlay', options }];
}
