/**
 * Where what is written to a snapshot is: in its folder, in `<location>/cimlet-<id>` when its scratch has a location of its
 * own, in the other's when it is shared.
 */

import { join } from 'node:path';
import { CimletError } from '../../errors.ts';
import { exists, removeTree } from '../directories.ts';
import type { SnapshotRequest } from '../host.ts';
import { snapshotGuid, snapshotVolumeGuid } from '../identity.ts';
import { type Layout, snapshotPath } from '../layout.ts';
import { readSnapshotFolder, readSnapshotRecord } from '../snapshot-records.ts';
import { DISK } from './scratches.ts';
import { type Size, sizeUnder } from './size-under.ts';
import { VM_DISK } from './vm-scratch.ts';
import { identityOf } from './volumes.ts';

/** Where a snapshot's scratch is, or its `Files`. */
export async function scratchFolder(layout: Layout, request: SnapshotRequest): Promise<string> {
  const { key, scratch } = await scratchOwner(layout, request);
  if (scratch?.location !== undefined) return locatedFolder(scratch.location, key, layout);
  return snapshotPath(layout, snapshotGuid(key));
}

/** Names the parts that a snapshot and its scratch's owner have of a Linux disk. Guests and exports find them by these. */
export async function scratchPlaces(
  layout: Layout,
  request: SnapshotRequest,
): Promise<{ place: string; owner: string }> {
  const owner = snapshotGuid((await scratchOwner(layout, request)).key);
  if (request.scratch?.shareWith === undefined) return { place: owner, owner };
  // Parts of earlier versions have no name of their own.
  const { part = snapshotGuid(request.key) } = (await readSnapshotRecord(layout, request.key)) ?? {};
  // What is left of a sharer that is gone is still known to be one's.
  return { place: `${owner}.${part}`, owner };
}

/** The snapshot whose scratch another is in, or itself. */
async function scratchOwner(layout: Layout, request: SnapshotRequest): Promise<SnapshotRequest> {
  const { shareWith } = request.scratch ?? {};
  if (shareWith === undefined) return request;
  const owner = await readSnapshotRecord(layout, shareWith);
  if (owner === undefined)
    throw new CimletError(
      'failed-precondition',
      `snapshot ${request.key}: ${shareWith}, whose scratch it is in, is gone`,
    );
  return scratchOwner(layout, owner.request);
}

/** What holds it, in the folder of its scratch. A view of Linux layers is those layers. */
export function partsOf({ kind, chain, format, scratch }: SnapshotRequest): string[] {
  if (chain.length === 0) return ['Files'];
  if (kind === 'view' && format === 'LCOW') return [];
  return scratch?.utilityVM === true ? [DISK, VM_DISK] : [DISK];
}

/** What a scratch elsewhere is called says whose it is: roots may share a place for them. */
export function locatedFolder(location: string, key: string, { root }: Layout): string {
  return join(location, `cimlet-${snapshotVolumeGuid(root, snapshotGuid(key))}`);
}

/** Whether a folder may hold the only copy of what was written to a snapshot: its scratch, or `Files`. */
export async function holdsWritten(path: string): Promise<boolean> {
  return (await exists(join(path, DISK))) || (await exists(join(path, 'Files')));
}

/**
 * The folders in which a snapshot folder that isn't in place has a scratch: itself, and where its record says, unless that
 * is another's by now: what is prepared anew gets the same place.
 */
export async function scratchFoldersOf(layout: Layout, path: string): Promise<string[]> {
  const request = (await readSnapshotFolder(path))?.request;
  const location = request?.scratch?.location;
  if (request === undefined || location === undefined) return [path];
  const located = locatedFolder(location, request.key, layout);
  return (await isAnothers(layout, request.key, path, located)) ? [path] : [path, located];
}

/** Whether a scratch elsewhere is that of the snapshot in place, or of one being prepared, or may be. */
async function isAnothers(layout: Layout, key: string, path: string, located: string): Promise<boolean> {
  for (const prefix of ['', 'tmp-'] as const) {
    const other = snapshotPath(layout, snapshotGuid(key), prefix);
    if (other === path || !(await exists(other))) continue;
    const record = await readSnapshotFolder(other);
    // Of one in place the record is lost. One being prepared has nothing elsewhere before it has a record.
    if (record === undefined && prefix === '') return true;
    const location = record?.request.scratch?.location;
    if (location === undefined) continue;
    const identity = await identityOf(locatedFolder(location, key, layout));
    if (identity !== undefined && identity === (await identityOf(located))) return true;
  }
  return false;
}

/** Deletes a folder that isn't in place, and before it what its record says is elsewhere. */
export async function deleteSnapshotFolder(layout: Layout, path: string): Promise<void> {
  for (const folder of (await scratchFoldersOf(layout, path)).toReversed()) await removeTree(folder);
}

/**
 * What a snapshot's scratch takes on disk; a disk, which isn't looked into, is one file. What is kept in another's scratch
 * can't be told apart from it, and counts as nothing.
 */
export async function sizeOf(layout: Layout, request: SnapshotRequest): Promise<Size> {
  if (request.scratch?.shareWith !== undefined) return { bytes: 0, files: 0 };
  const folder = await scratchFolder(layout, request);
  const size: Size = { bytes: 0, files: 0 };
  for (const part of partsOf(request)) {
    const { bytes, files } = await sizeUnder(join(folder, part));
    size.bytes += bytes;
    size.files += files;
  }
  return request.chain.length > 0 ? size : { ...size, files: Math.max(0, size.files - 1) };
}
