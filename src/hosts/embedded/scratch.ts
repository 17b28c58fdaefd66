/**
 * Scratches: where what is written to an active snapshot goes.
 *
 *   snapshots/<id>/scratch/<id>/fs     what was written, as overlayfs keeps it (`work` beside it is overlayfs' own)
 *   snapshots/<id>/scratch.ext4        a scratch of limited size; mounted at `scratch` for as long as something is done with it
 *   snapshots/<id>/lower               where the layers below are mounted while an overlay is made of them
 *
 * A scratch with a location is in `<location>/cimlet-<UUID of root and id>` instead, since roots may share a place for them; a shared one is
 * `<own id>` in the other's.
 */

import { mkdir } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { CimletError, classify, isErrorCode } from '../../errors.ts';
import { writeEmptyExt4 } from '../../ext4/empty.ts';
import { unmount } from '../../native/linux/mount.ts';
import { mountExt4 } from '../../native/linux/overlay.ts';
import { ensureDirectory, exists, removeTree, syncDirectory } from '../directories.ts';
import type { SnapshotRequest } from '../host.ts';
import { snapshotGuid, snapshotVolumeGuid } from '../identity.ts';
import { KeyedLock } from '../keyed-lock.ts';
import { type Layout, snapshotPath } from '../layout.ts';
import { readSnapshotRecord, type SnapshotRecord } from '../snapshot-records.ts';
import { noSuchSnapshot } from '../snapshot-request.ts';
import { readMountInfo } from './mount-info.ts';
import { realLocation } from './own-mounts.ts';
import { isPathLocked, withPathLock } from './path-lock.ts';

/** A scratch's image is mounted at one place only, and for one task at a time: of this process by turns, of others by a lock on it. */
const attaching = new KeyedLock();

/** Its name in a snapshot's folder, or at its location. */
const SCRATCH_IMAGE = 'scratch.ext4';

export interface Scratch {
  /** Holds what overlayfs wants of each snapshot that is kept in it. */
  directory: string;
  /** Of limited size: what is mounted at `directory` when something is done with it. */
  image: string | undefined;
}

/** What overlayfs wants of a scratch. */
export interface ScratchPlace {
  upper: string;
  work: string;
}

/** What is where a scratch is going to be may be all that is left of an earlier one. Throws `already-exists`. */
export async function requireFreeLocation(layout: Layout, { key, scratch }: SnapshotRequest): Promise<void> {
  if (scratch?.location === undefined) return;
  const place = locatedScratch(layout, scratch.location, snapshotGuid(key));
  if (await exists(place))
    throw new CimletError('already-exists', `prepare snapshot ${JSON.stringify(key)}: there is ${place}`, {
      hint: 'it holds what was written to an earlier snapshot of that key; move or delete it',
    });
}

/** Makes the scratch of a snapshot whose folder, `home`, isn't in place yet. */
export async function makeScratch(layout: Layout, request: SnapshotRequest, home: string): Promise<void> {
  const { key, scratch = {} } = request;
  const id = snapshotGuid(key);
  if (scratch.unformatted === true)
    throw new CimletError(
      'unsupported-host',
      `prepare snapshot ${JSON.stringify(key)}: a scratch without a file system`,
      {
        hint: 'only utility VMs can use one, and they exist on Windows only',
      },
    );
  if (scratch.utilityVM === true)
    throw new CimletError(
      'unsupported-host',
      `prepare snapshot ${JSON.stringify(key)}: a disk that a utility VM boots with`,
      { hint: 'such VMs exist on Windows only' },
    );
  if (scratch.shareWith !== undefined) {
    const owner = await readSnapshotRecord(layout, scratch.shareWith);
    if (owner === undefined)
      throw noSuchSnapshot(scratch.shareWith, `prepare snapshot ${JSON.stringify(key)}`);
    await withScratch(layout, owner, (directory) => makePlace(join(directory, id)));
    return;
  }
  const place = scratch.location === undefined ? home : locatedScratch(layout, scratch.location, id);
  try {
    if (place !== home) await mkdir(place, { mode: 0o700 });
    await mkdir(join(home, 'scratch'), { mode: 0o700 });
    if (scratch.bytes === undefined) {
      const directory = join(place, 'scratch');
      if (place !== home) await mkdir(directory, { mode: 0o700 });
      await makePlace(join(directory, id));
      return;
    }
    const image = join(place, SCRATCH_IMAGE);
    const mtime = BigInt(Date.now()) * 1_000_000n;
    const directories = placeOf(id).map((each) => ({ ...each, mtime }));
    writeEmptyExt4(image, scratch.bytes, Buffer.from(id.replaceAll('-', ''), 'hex'), directories);
    await syncDirectory(place);
  } catch (error) {
    throw classify(error, `make the scratch of snapshot ${JSON.stringify(key)}`);
  }
}

async function makePlace(directory: string): Promise<void> {
  await removeTree(directory);
  for (const { path, mode } of placeOf(basename(directory)))
    await mkdir(join(dirname(directory), path), { mode });
}

/** The directories that a snapshot has in a scratch. */
function placeOf(id: string): { path: string; mode: number }[] {
  return [
    { path: id, mode: 0o700 },
    { path: `${id}/fs`, mode: 0o755 },
    { path: `${id}/work`, mode: 0o700 },
  ];
}

/** Whether a snapshot's folder holds what was written to it, whatever became of the record. */
export async function holdsScratch(folder: string): Promise<boolean> {
  return (await exists(join(folder, 'scratch'))) || (await exists(join(folder, SCRATCH_IMAGE)));
}

/** Does something with what was written to a snapshot; its scratch is there for as long as that takes. Throws `cancelled` while it waits for that. */
export async function withUpper<T>(
  layout: Layout,
  record: SnapshotRecord,
  signal: AbortSignal,
  task: (place: ScratchPlace) => Promise<T>,
): Promise<T> {
  const id = snapshotGuid(record.request.key);
  const operation = `open snapshot ${JSON.stringify(record.request.key)}`;
  const open = async (directory: string) => {
    const place = { upper: join(directory, id, 'fs'), work: join(directory, id, 'work') };
    if (!(await exists(place.upper)))
      throw new CimletError('failed-precondition', `${operation}: ${place.upper} is gone`, {
        hint: 'what was written to it is lost; remove it',
      });
    return withPathLock(join(directory, id), 'shared', operation, () => task(place), { signal });
  };
  return withScratch(layout, record, open, signal);
}

/** Runs what removes a snapshot once nobody, in this process or another, does anything with what was written to it. Throws `cancelled` while it waits for that. */
export async function onceIdle<T>(
  layout: Layout,
  record: SnapshotRecord,
  operation: string,
  task: () => Promise<T>,
  signal: AbortSignal,
): Promise<T> {
  const { key, kind, scratch } = record.request;
  // What is kept in another's is locked when it is removed from there.
  if (kind === 'view' || scratch?.shareWith !== undefined) return task();
  const { directory, image } = await findScratch(layout, record);
  const held = image ?? join(directory, snapshotGuid(key));
  return (await exists(held)) ? withPathLock(held, 'exclusive', operation, task, { signal }) : task();
}

/** Whether somebody, in this process or another, has the scratch of a snapshot mounted to do something with it. */
export async function isInUse(layout: Layout, record: SnapshotRecord): Promise<boolean> {
  const { kind, scratch } = record.request;
  if (kind === 'view' || scratch?.shareWith !== undefined) return false;
  const { image } = await findScratch(layout, record);
  return image !== undefined && isPathLocked(image);
}

/** Removes what a snapshot keeps outside of its own folder, which may have been renamed. Throws `cancelled` while it waits for who uses it. */
export async function removeForeignScratch(
  layout: Layout,
  record: SnapshotRecord,
  signal?: AbortSignal,
): Promise<void> {
  const { key, scratch } = record.request;
  const id = snapshotGuid(key);
  if (scratch?.location !== undefined) {
    const place = locatedScratch(layout, scratch.location, id);
    await unmountBelow(place);
    await removeTree(place);
  }
  if (scratch?.shareWith === undefined) return;
  const owner = await readSnapshotRecord(layout, scratch.shareWith);
  if (owner === undefined) return;
  const remove = async (directory: string) => {
    const place = join(directory, id);
    if (!(await exists(place))) return;
    await withPathLock(place, 'exclusive', `remove ${place}`, () => removeTree(place), { signal });
  };
  await withScratch(layout, owner, remove, signal);
}

/** The scratch that a snapshot is kept in, its own or another's. */
export async function findScratch(layout: Layout, { request }: SnapshotRecord): Promise<Scratch> {
  const { key, scratch = {} } = request;
  if (scratch.shareWith !== undefined) {
    const owner = await readSnapshotRecord(layout, scratch.shareWith);
    if (owner === undefined) throw noSuchSnapshot(scratch.shareWith, `open snapshot ${JSON.stringify(key)}`);
    return findScratch(layout, owner);
  }
  const id = snapshotGuid(key);
  const folder = snapshotPath(layout, id);
  const place = scratch.location === undefined ? folder : locatedScratch(layout, scratch.location, id);
  if (scratch.bytes === undefined) return { directory: join(place, 'scratch'), image: undefined };
  return { directory: join(folder, 'scratch'), image: join(place, SCRATCH_IMAGE) };
}

/** Takes away what is mounted at or below a directory of a snapshot: nothing but a crash leaves it there. */
export async function unmountBelow(directory: string): Promise<void> {
  for (const point of await mountsBelow(directory)) await unmount(point, { detach: true });
}

/** Removes a directory with all in it, unless something of somebody else's is mounted there: then it throws `busy`. */
export async function removeUnmounted(directory: string): Promise<void> {
  const [point] = await mountsBelow(directory);
  if (point !== undefined)
    throw new CimletError('busy', `remove ${directory}: something is mounted at ${point}`, {
      hint: 'unmount that first',
    });
  await removeTree(directory);
}

/** What is mounted at or below a directory, the latest first. */
export async function mountsBelow(directory: string): Promise<string[]> {
  const real = await realLocation(directory);
  const points = readMountInfo().map(({ mountPoint }) => mountPoint);
  return points.filter((point) => point === real || point.startsWith(`${real}/`)).reverse();
}

async function withScratch<T>(
  layout: Layout,
  record: SnapshotRecord,
  task: (directory: string) => Promise<T>,
  signal?: AbortSignal,
): Promise<T> {
  const { directory, image } = await findScratch(layout, record);
  return image === undefined ? task(directory) : attached(image, directory, () => task(directory), signal);
}

/** An overlay that was made meanwhile holds on to the image's file system; the mount here is gone afterwards. */
async function attached<T>(
  image: string,
  directory: string,
  task: () => Promise<T>,
  signal?: AbortSignal,
): Promise<T> {
  const attach = async () => {
    await ensureDirectory(directory);
    await unmountBelow(directory);
    await mountExt4(image, directory);
    try {
      return await task();
    } finally {
      await unmountOnceIdle(directory);
    }
  };
  const locked = () => withPathLock(image, 'exclusive', `open ${image}`, attach, { signal });
  return attaching.run(image, locked, signal);
}

/** Somebody looking around may be in it. */
async function unmountOnceIdle(directory: string): Promise<void> {
  try {
    await unmount(directory);
  } catch (error) {
    if (!isErrorCode(error, 'busy')) throw error;
    await unmount(directory, { detach: true });
  }
}

function locatedScratch({ root }: Layout, location: string, id: string): string {
  return join(location, `cimlet-${snapshotVolumeGuid(root, id)}`);
}
