/** What mounts are meant to be: written before anything of one is made, removed when all of it is gone. */

import { rm } from 'node:fs/promises';
import { basename } from 'node:path';
import { ensureDirectory, listDirectory, syncDirectory } from '../directories.ts';
import type { MountedView, MountRequest, VolumeGuid } from '../host.ts';
import { type Layout, mountRecordPath } from '../layout.ts';
import { viewOf } from '../mounted-view.ts';
import { readRecord, writeRecord } from '../records.ts';

export interface MountRecord {
  formatVersion: 1;
  request: MountRequest;
  /** Directories made for the mount, outermost first; removed with it when empty. */
  created: string[];
  /** Root hash of what is shown, when that is sealed. */
  rootHash?: string | undefined;
}

export async function readMountRecord(
  layout: Layout,
  volumeGuid: VolumeGuid,
): Promise<MountRecord | undefined> {
  return readRecord<MountRecord>(
    mountRecordPath(layout, volumeGuid),
    ({ request, created }) =>
      request?.volumeGuid === volumeGuid &&
      typeof request.path === 'string' &&
      Array.isArray(request.chain) &&
      request.chain.length > 0 &&
      Array.isArray(created),
  );
}

export async function readMountRecords(layout: Layout): Promise<MountRecord[]> {
  const records: MountRecord[] = [];
  for (const name of await listDirectory(layout.mounts)) {
    if (!/^[0-9a-f-]{36}\.json$/.test(name)) continue;
    const record = await readMountRecord(layout, basename(name, '.json') as VolumeGuid);
    if (record !== undefined) records.push(record);
  }
  return records;
}

export async function writeMountRecord(layout: Layout, record: MountRecord): Promise<void> {
  await ensureDirectory(layout.mounts);
  await writeRecord(mountRecordPath(layout, record.request.volumeGuid), record);
}

export async function removeMountRecord(layout: Layout, volumeGuid: VolumeGuid): Promise<void> {
  await rm(mountRecordPath(layout, volumeGuid), { force: true });
  await syncDirectory(layout.mounts);
}

/** What a recorded mount shows. */
export function recordedView({ request, rootHash }: MountRecord): MountedView {
  return { ...viewOf(request), ...(rootHash === undefined ? {} : { rootHash }) };
}
