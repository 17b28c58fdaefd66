/** Writable mounts: overlayfs with the layers below as its lower, and a snapshot's scratch as its upper directory. */

import { join } from 'node:path';
import { CimletError, isErrorCode } from '../../errors.ts';
import { mountErofs, unmount } from '../../native/linux/mount.ts';
import { mountOverlay } from '../../native/linux/overlay.ts';
import { ensureDirectory } from '../directories.ts';
import type { MountRequest, VolumeGuid } from '../host.ts';
import { snapshotGuid } from '../identity.ts';
import { type Layout, snapshotPath } from '../layout.ts';
import { readMountRecords } from '../mount-records.ts';
import { readSnapshotRecord, type SnapshotRecord } from '../snapshot-records.ts';
import { writableSnapshot } from '../snapshot-request.ts';
import { withDisks } from './layer-disks.ts';
import { readMountInfo } from './mount-info.ts';
import { findForeignMount, overlaySuffix } from './mounted-elsewhere.ts';
import type { ViewImage } from './mounting.ts';
import { mountStateOf, type ViewRecord } from './own-mounts.ts';
import type { EmbeddedFeatures } from './probe.ts';
import { unmountBelow, withUpper } from './scratch.ts';

/** By which the kernel's mount table shows whose an overlay is, and what is written to. */
export function overlayName(layout: Layout, { volumeGuid, snapshot }: MountRequest): string {
  return `cimlet:${volumeGuid}${snapshot === undefined ? '' : overlaySuffix(layout, snapshot)}`;
}

/**
 * The snapshot that takes a mount's writes. Throws `failed-precondition` when it isn't one, or is a mount's at another path, and `busy` while
 * something of it is mounted otherwise than at the path.
 */
export async function requireWritable(layout: Layout, request: MountRequest): Promise<SnapshotRecord> {
  const { snapshot: key = '', path, view, volumeGuid } = request;
  const record = await readSnapshotRecord(layout, key);
  writableSnapshot(request, record?.request);
  if (view === 'Extracted')
    throw new CimletError('unsupported-host', `mount ${path}: an extracted view can't be written to`, {
      hint: 'use view: Kernel, or access: ReadOnly',
    });
  const other = await findMountOf(layout, key, volumeGuid);
  if (other !== undefined)
    throw new CimletError(
      'failed-precondition',
      `mount ${path}: snapshot ${JSON.stringify(key)} is mounted at ${other}`,
      {
        hint: 'dismount it there first, or prepare another snapshot',
      },
    );
  const snapshot = record as SnapshotRecord;
  await requireNoForeignMount(layout, snapshot, `mount ${path}`, path);
  return snapshot;
}

/** Throws `busy` for a view that would be refused the writes of its snapshot once it is taken away. */
export async function requireShowableAgain(
  layout: Layout,
  { request: { snapshot: key, path } }: ViewRecord,
  operation: string,
): Promise<void> {
  const snapshot = key === undefined ? undefined : await readSnapshotRecord(layout, key);
  if (snapshot !== undefined) await requireNoForeignMount(layout, snapshot, operation, path);
}

/**
 * Throws `busy` while something of a snapshot is mounted that is no mount of ours: what goes on being written must not be lost.
 * What goes with our mount at `leaving` is no obstacle.
 */
export async function requireNoForeignMount(
  layout: Layout,
  record: SnapshotRecord,
  operation: string,
  leaving?: string,
): Promise<void> {
  const holder = await findForeignMount(layout, record, leaving);
  if (holder !== undefined)
    throw new CimletError('busy', `${operation}: ${holder}`, { hint: 'unmount that first' });
}

/** Where a snapshot is mounted, other than by `except`. */
export async function findMountOf(
  layout: Layout,
  key: string,
  except?: VolumeGuid,
): Promise<string | undefined> {
  const table = readMountInfo();
  for (const record of await readMountRecords<ViewRecord>(layout)) {
    const { snapshot, path, volumeGuid } = record.request;
    if (snapshot !== key || volumeGuid === except) continue;
    if ((await mountStateOf(record, table)).state !== 'missing') return path;
  }
  return undefined;
}

/** What a writable mount has below: an image, or disks, topmost first. */
export type Lower = ViewImage | { disks: readonly string[] };

/** What was mounted to make the overlay of is gone again afterwards: the overlay holds on to it. */
export async function mountWritable(
  layout: Layout,
  record: ViewRecord,
  snapshot: SnapshotRecord,
  below: Lower | undefined,
  features: EmbeddedFeatures,
  signal: AbortSignal,
): Promise<void> {
  const { path, volumeGuid } = record.request;
  const lower = join(snapshotPath(layout, snapshotGuid(snapshot.request.key)), 'lower');
  await ensureDirectory(lower);
  await ensureDirectory(path);
  await withUpper(layout, snapshot, signal, (writable) => {
    const mount = (lowers: readonly string[]) =>
      mountOverlay({ lowers, writable, source: record.source, target: path });
    if (below !== undefined && 'disks' in below) return withDisks(layout, volumeGuid, below.disks, mount);
    return withLower(lower, below, features, () => mount([lower]));
  });
}

async function withLower(
  directory: string,
  image: ViewImage | undefined,
  { loop, canLoop }: EmbeddedFeatures,
  task: () => Promise<void>,
): Promise<void> {
  await unmountBelow(directory);
  if (image === undefined) return task();
  const request = { image: image.image, devices: image.deviceFiles, target: directory };
  try {
    await mountErofs({ ...request, loop });
  } catch (error) {
    if (loop || !canLoop || !isErrorCode(error, 'unsupported-host')) throw error;
    await mountErofs({ ...request, loop: true });
  }
  try {
    await task();
  } finally {
    await unmount(directory, { detach: true });
  }
}
