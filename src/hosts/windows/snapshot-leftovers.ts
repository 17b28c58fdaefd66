/** What crashes left of snapshots by key. */

import { basename, join } from 'node:path';
import { volumePath } from '../../native/windows/guid.ts';
import { exists, listDirectory } from '../directories.ts';
import type { SnapshotRequest, VolumeGuid } from '../host.ts';
import { snapshotVolumeGuid } from '../identity.ts';
import type { Layout } from '../layout.ts';
import { parseSnapshotFolder, readSnapshotFolder } from '../snapshot-records.ts';
import { LOWER_FILE } from './cim-paths.ts';
import { holdsWritten } from './snapshot-scratch.ts';
import { BELOW_FOLDER, DIFF_FILE } from './snapshots.ts';
import { isMounted } from './volumes.ts';

const WHILE_LOOKED_INTO = new Set([DIFF_FILE, `${DIFF_FILE}.part`, LOWER_FILE]);

export function isSnapshotFolder(path: string): boolean {
  return parseSnapshotFolder(basename(path)) !== undefined;
}

/** Folders in place that hold what was written, and no record that says of what: somebody has to look. */
export async function lostSnapshots(layout: Layout): Promise<string[]> {
  const lost: string[] = [];
  for (const name of await listDirectory(layout.snapshots)) {
    const path = join(layout.snapshots, name);
    if (parseSnapshotFolder(name)?.prefix !== '' || (await readSnapshotFolder(path)) !== undefined) continue;
    if (await holdsWritten(path)) lost.push(path);
  }
  return lost;
}

/** What a crash left of snapshots. `snapshot` is given with the volume that showed the layers below one. */
export async function snapshotLeftovers(
  layout: Layout,
  running: ReadonlySet<string>,
): Promise<{ path: string; reason: string; volumeGuid?: VolumeGuid; snapshot?: SnapshotRequest }[]> {
  const found: Awaited<ReturnType<typeof snapshotLeftovers>> = [];
  for (const name of await listDirectory(layout.snapshots)) {
    const { prefix, folder } = parseSnapshotFolder(name) ?? {};
    if (folder === undefined || running.has(folder)) continue;
    const path = join(layout.snapshots, name);
    const snapshot = (await readSnapshotFolder(path))?.request;
    const volumeGuid = snapshotVolumeGuid(layout.root, folder);
    if (prefix === 'tmp-') found.push({ path, reason: 'a snapshot that was never finished' });
    else if (prefix === 'rm-') found.push({ path, reason: 'a removal that was interrupted' });
    else if (snapshot === undefined) {
      if (await holdsWritten(path)) continue;
      found.push({ path, reason: 'a snapshot folder without a readable record' });
    } else if (await isMounted(volumeGuid))
      found.push({
        path: volumePath(volumeGuid),
        reason: 'a volume that showed the layers below a snapshot',
        volumeGuid,
        snapshot,
      });
    for (const file of prefix === '' ? await listDirectory(path) : [])
      if (WHILE_LOOKED_INTO.has(file))
        found.push({ path: join(path, file), reason: 'made while a snapshot was looked into' });
    if (snapshot !== undefined && prefix === '' && (await exists(join(path, BELOW_FOLDER))))
      found.push({
        path: join(path, BELOW_FOLDER),
        reason: 'a scratch that showed the layers below a snapshot',
        snapshot,
      });
  }
  return found;
}
