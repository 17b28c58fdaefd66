/**
 * Snapshots by key: `snapshots/<the key's UUID>/`, with `snapshot.json`, what was asked for, and beside it what the host
 * keeps of it. Prefixes are those of layers' folders.
 */

import { join } from 'node:path';
import { listDirectory } from './directories.ts';
import type { SnapshotRequest } from './host.ts';
import { snapshotGuid } from './identity.ts';
import { type FolderPrefix, type Layout, snapshotPath } from './layout.ts';
import { readRecord, writeRecord } from './record-file.ts';
import { noSuchSnapshot } from './snapshot-request.ts';

export interface SnapshotRecord {
  formatVersion: 1;
  request: SnapshotRequest;
  /** Names its part of a Linux disk that it shares; none is ever named so again, since what is written stays there. */
  part?: string | undefined;
}

const RECORD = 'snapshot.json';
/** What couldn't be deleted when it was removed again has a number in the end. */
const FOLDER_NAME = /^(tmp-|rm-)?([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?:(?<=^rm-.*)~\d+)?$/;

/** Undefined for a name that no snapshot's folder has. */
export function parseSnapshotFolder(name: string): { prefix: FolderPrefix; folder: string } | undefined {
  const [, prefix = '', folder] = FOLDER_NAME.exec(name) ?? [];
  return folder === undefined ? undefined : { prefix: prefix as FolderPrefix, folder };
}

export async function readSnapshotRecord(layout: Layout, key: string): Promise<SnapshotRecord | undefined> {
  const record = await readSnapshotFolder(snapshotPath(layout, snapshotGuid(key)));
  return record?.request.key === key ? record : undefined;
}

/** Throws `not-found`. */
export async function requireSnapshot(
  layout: Layout,
  key: string,
  operation: string,
): Promise<SnapshotRecord> {
  const record = await readSnapshotRecord(layout, key);
  if (record === undefined) throw noSuchSnapshot(key, operation);
  return record;
}

export async function readSnapshotRecords(layout: Layout): Promise<SnapshotRecord[]> {
  const records: SnapshotRecord[] = [];
  for (const name of await listDirectory(layout.snapshots)) {
    if (parseSnapshotFolder(name)?.prefix !== '') continue;
    const record = await readSnapshotFolder(join(layout.snapshots, name));
    if (record !== undefined) records.push(record);
  }
  return records.sort((a, b) => (a.request.key < b.request.key ? -1 : 1));
}

/** The record in a folder, whatever prefix that has. */
export async function readSnapshotFolder(path: string): Promise<SnapshotRecord | undefined> {
  return readRecord<SnapshotRecord>(
    join(path, RECORD),
    ({ request }) => typeof request?.key === 'string' && Array.isArray(request.chain),
  );
}

/** Into a folder that isn't in place yet. */
export async function writeSnapshotRecord(
  path: string,
  request: SnapshotRequest,
  part?: string,
): Promise<void> {
  const record: SnapshotRecord = {
    formatVersion: 1,
    request: { ...request, chain: [...request.chain] },
    part,
  };
  await writeRecord(join(path, RECORD), record);
}
