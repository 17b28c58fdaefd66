/** What crashes left behind is removed, but for what a running compute system uses or may use. */

import { isErrorCode } from '../../errors.ts';
import type { EffectContext } from '../host.ts';
import { readSnapshotFolder } from '../snapshot-records.ts';
import { releaseScratch } from './attached-scratch.ts';
import { type ComputeSystemsSeen, nameOf, usersOf } from './compute-systems.ts';
import { removalOf } from './layer-store.ts';
import type { FoundLeftover } from './observe.ts';
import { isSnapshotFolder, lostSnapshots } from './snapshot-leftovers.ts';
import { deleteSnapshotFolder, scratchFoldersOf } from './snapshot-scratch.ts';
import { leaveSnapshot } from './snapshot-trees.ts';
import type { Gallery } from './views.ts';

/** Tells of what looks left over and is left alone. */
export async function warnOfLost({ layout }: Pick<Gallery, 'layout'>, context: EffectContext): Promise<void> {
  for (const path of await lostSnapshots(layout))
    context.warn?.(
      `${path} is left alone: it has no readable snapshot.json, but what was written to a snapshot`,
    );
}

/** Gives why it stays; undefined when it is gone. */
export async function removeLeftover(
  gallery: Gallery,
  leftover: FoundLeftover,
  seen: ComputeSystemsSeen,
  { signal }: EffectContext,
): Promise<string | undefined> {
  const { path, snapshot, volumeGuid } = leftover;
  try {
    const isSnapshot = isSnapshotFolder(path);
    const folders = isSnapshot ? await scratchFoldersOf(gallery.layout, path) : [path];
    const [user] = usersOf(seen.systems, folders);
    if (user !== undefined) return `${nameOf(user)} uses it`;
    const record = isSnapshot ? await readSnapshotFolder(path) : undefined;
    // Linux scratches are attached to VMs only.
    for (const folder of record?.request.format === 'LCOW' ? [] : folders) {
      const use = await releaseScratch(gallery, folder, seen, signal);
      if (use !== undefined) return use;
    }
    if (snapshot !== undefined) await leaveSnapshot(gallery, snapshot, signal);
    else if (volumeGuid !== undefined) await gallery.volumes.dismount(volumeGuid);
    else if (isSnapshotFolder(path)) await deleteSnapshotFolder(gallery.layout, path);
    else await removalOf(gallery, path)(path);
    return undefined;
  } catch (error) {
    if (isErrorCode(error, 'busy', 'access-denied')) return error.message;
    throw error;
  }
}
