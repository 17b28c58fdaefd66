/**
 * Snapshots that aren't layers: `snapshots/<SHA-256 of the key>.snapshot/`, with `snapshot.json`, what was asked for, and
 * beside it what the host keeps of it. Prefixes are those of layers' folders.
 */

import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { CimletError } from '../errors.ts';
import { listDirectory } from './directories.ts';
import type { ScratchOptions, SnapshotRequest } from './host.ts';
import { type FolderPrefix, type Layout, snapshotPath } from './layout.ts';
import { readRecord, writeRecord } from './record-file.ts';

export interface SnapshotRecord {
  formatVersion: 1;
  request: SnapshotRequest;
}

const RECORD = 'snapshot.json';
const FOLDER_NAME = /^(tmp-|rm-)?([0-9a-f]{64}\.snapshot)$/;

/** The name of a snapshot's folder. */
export function snapshotFolder(key: string): string {
  return `${createHash('sha256').update(key).digest('hex')}.snapshot`;
}

/** Undefined for a name that no snapshot's folder has. */
export function parseSnapshotFolder(name: string): { prefix: FolderPrefix; folder: string } | undefined {
  const [, prefix = '', folder] = FOLDER_NAME.exec(name) ?? [];
  return folder === undefined ? undefined : { prefix: prefix as FolderPrefix, folder };
}

export async function readSnapshotRecord(layout: Layout, key: string): Promise<SnapshotRecord | undefined> {
  const record = await readSnapshotFolder(snapshotPath(layout, snapshotFolder(key)));
  return record?.request.key === key ? record : undefined;
}

/** Throws `not-found`. */
export async function requireSnapshot(
  layout: Layout,
  key: string,
  operation: string,
): Promise<SnapshotRecord> {
  const record = await readSnapshotRecord(layout, key);
  if (record === undefined) throw new CimletError('not-found', `${operation}: there is no such snapshot`);
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
export async function writeSnapshotRecord(path: string, request: SnapshotRequest): Promise<void> {
  const record: SnapshotRecord = { formatVersion: 1, request: plain(request) };
  await writeRecord(join(path, RECORD), record);
}

/** Whether two requests ask for the same. */
export function isSameRequest(a: SnapshotRequest, b: SnapshotRequest): boolean {
  return JSON.stringify(plain(a)) === JSON.stringify(plain(b));
}

/** In one order, without what is undefined or empty. */
function plain({ key, kind, chain, format, scratch }: SnapshotRequest): SnapshotRequest {
  const options = scratch === undefined ? undefined : plainScratch(scratch);
  const isDefault = options === undefined || Object.values(options).every((value) => value === undefined);
  return { key, kind, chain: [...chain], format, ...(isDefault ? {} : { scratch: options }) };
}

function plainScratch({ bytes, unformatted, location, shareWith }: ScratchOptions): ScratchOptions {
  return { bytes, unformatted: unformatted === true ? true : undefined, location, shareWith };
}
