/** What crashes left behind is removed, but for what a running compute system uses or may use. */

import { join } from 'node:path';
import { isErrorCode } from '../../errors.ts';
import type { Kernel32 } from '../../native/windows/kernel32.ts';
import { exists } from '../directories.ts';
import { type ComputeSystemsSeen, nameOf, possibleUse, usersOf } from './compute-systems.ts';
import { ifAny, type LayerCalls } from './layer-calls.ts';
import { removalOf } from './layer-store.ts';
import type { FoundLeftover } from './observe.ts';
import { DISK } from './scratches.ts';
import { leaveSnapshot } from './snapshot-trees.ts';
import { deleteSnapshotFolder, isSnapshotFolder } from './snapshots.ts';
import type { Gallery } from './views.ts';

/** Gives why it stays; undefined when it is gone. */
export async function removeLeftover(
  gallery: Gallery,
  calls: LayerCalls,
  leftover: FoundLeftover,
  seen: ComputeSystemsSeen,
): Promise<string | undefined> {
  const { path, snapshot, volumeGuid } = leftover;
  const [user] = usersOf(seen.systems, [path]);
  if (user !== undefined) return `${nameOf(user)} uses it`;
  try {
    const use = await releaseScratch(gallery, calls, path, seen);
    if (use !== undefined) return use;
    if (snapshot !== undefined) await leaveSnapshot(gallery, snapshot);
    else if (volumeGuid !== undefined) await gallery.volumes.dismount(volumeGuid);
    else if (isSnapshotFolder(path)) await deleteSnapshotFolder(gallery.layout, path);
    else await removalOf(gallery, path)(path);
    return undefined;
  } catch (error) {
    if (isErrorCode(error, 'busy', 'access-denied')) return error.message;
    throw error;
  }
}

/**
 * Detaches a scratch that nobody knows any more, when its disk is still attached: its folder can't be deleted before.
 * Gives what may use it. Job containers are no compute systems, so that its volume is asked as well.
 */
async function releaseScratch(
  { scratches, kernel32 }: Gallery,
  { vmcompute, computestorage }: LayerCalls,
  folder: string,
  seen: ComputeSystemsSeen,
): Promise<string | undefined> {
  if (!(await exists(join(folder, DISK)))) return undefined;
  const volume = await scratches.volumeOf(folder);
  if (volume === undefined) return undefined;
  const use = possibleUse(seen, [folder, volume]);
  if (use !== undefined) return `its disk is attached, and ${use}`;
  if (await kernel32.isVolumeInUse(volume)) return 'its disk is attached, and something on it is open';
  for (const place of await mountPoints(kernel32, volume)) await kernel32.deleteVolumeMountPoint(place);
  const filter = { SchemaVersion: { Major: 2, Minor: 1 }, FilterType: 'UnionFS' as const };
  await ifAny(() => computestorage.detachOverlayFilter(volume, filter));
  await ifAny(() => vmcompute.unprepareLayer(folder));
  await vmcompute.deactivateLayer(folder);
  return undefined;
}

async function mountPoints(kernel32: Kernel32, volume: string): Promise<string[]> {
  try {
    return await kernel32.mountPointsOf(volume);
  } catch (error) {
    if (isErrorCode(error, 'not-found')) return [];
    throw error;
  }
}
