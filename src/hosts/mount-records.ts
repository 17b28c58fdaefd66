/** What mounts are meant to be: written before anything of one is made, removed when all of it is gone. */

import { rm } from 'node:fs/promises';
import { basename } from 'node:path';
import { ensureDirectory, listDirectory, syncDirectory } from './directories.ts';
import type { MountedView, MountRequest, VolumeGuid } from './host.ts';
import { KeyedLock } from './keyed-lock.ts';
import { type Layout, mountRecordPath } from './layout.ts';
import { viewOf } from './mounted-view.ts';
import { readRecord, writeRecord } from './record-file.ts';

/** A host records more where it has to know more of a mount. */
export interface MountRecord {
  formatVersion: 1;
  request: MountRequest;
  /** Directories made for the mount, outermost first; removed with it when empty. */
  created: string[];
  /** Root hash of what is shown, when that is sealed. */
  rootHash?: string | undefined;
}

export async function readMountRecord<R extends MountRecord = MountRecord>(
  layout: Layout,
  volumeGuid: VolumeGuid,
): Promise<R | undefined> {
  return readRecord<R>(
    mountRecordPath(layout, volumeGuid),
    ({ request, created }) =>
      request?.volumeGuid === volumeGuid &&
      typeof request.path === 'string' &&
      Array.isArray(request.chain) &&
      (request.chain.length > 0 || request.snapshot !== undefined) &&
      Array.isArray(created),
  );
}

export async function readMountRecords<R extends MountRecord = MountRecord>(layout: Layout): Promise<R[]> {
  const records: R[] = [];
  for (const name of await listDirectory(layout.mounts)) {
    if (!/^[0-9a-f-]{36}\.json$/.test(name)) continue;
    const record = await readMountRecord<R>(layout, basename(name, '.json') as VolumeGuid);
    if (record !== undefined) records.push(record);
  }
  return records;
}

/** A mount's record is also written by others: what goes hands its directories over to what stays. */
const writing = new KeyedLock();

export async function writeMountRecord<R extends MountRecord>(layout: Layout, record: R): Promise<void> {
  await ensureDirectory(layout.mounts);
  const path = mountRecordPath(layout, record.request.volumeGuid);
  await writing.run(path, () => writeRecord(path, record));
}

/** Changes a record as it is now, if it is still there; `change` returns undefined to leave it. */
export async function changeMountRecord<R extends MountRecord = MountRecord>(
  layout: Layout,
  volumeGuid: VolumeGuid,
  change: (record: R) => R | undefined,
): Promise<void> {
  const path = mountRecordPath(layout, volumeGuid);
  await writing.run(path, async () => {
    const record = await readMountRecord<R>(layout, volumeGuid);
    const changed = record === undefined ? undefined : change(record);
    if (changed !== undefined) await writeRecord(path, changed);
  });
}

export async function removeMountRecord(layout: Layout, volumeGuid: VolumeGuid): Promise<void> {
  const path = mountRecordPath(layout, volumeGuid);
  await writing.run(path, () => rm(path, { force: true }));
  await syncDirectory(layout.mounts);
}

/** What a recorded mount shows. */
export function recordedView({ request, rootHash }: MountRecord): MountedView {
  return { ...viewOf(request), ...(rootHash === undefined ? {} : { rootHash }) };
}
