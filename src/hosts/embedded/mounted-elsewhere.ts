/**
 * Who else can write to a snapshot: mounts of what it keeps that are no mounts of ours any more, or never were. A bind mount of its writable
 * mount or of its directories, its image in a loop device, an overlay made by hand as `snapshot mounts` describes it; here, or in another
 * mount namespace that /proc shows.
 */

import { readdir, readFile, readlink } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { classify, isErrorCode } from '../../errors.ts';
import { backingFile } from '../../native/linux/loop.ts';
import { snapshotGuid, snapshotVolumeGuid } from '../identity.ts';
import type { Layout } from '../layout.ts';
import { readSnapshotRecord, type SnapshotRecord } from '../snapshot-records.ts';
import { type MountInfoEntry, parseMountInfo, readMountInfo, topMountAt } from './mount-info.ts';
import { realLocation } from './own-mounts.ts';
import { findScratch } from './scratch.ts';

/**
 * Where such a mount is, and whose it is when it is in another namespace; undefined when there is none. What goes with our mount at `leaving`,
 * when that is unmounted, doesn't count.
 */
export async function findForeignMount(
  layout: Layout,
  record: SnapshotRecord,
  leaving?: string,
): Promise<string | undefined> {
  const { kind, scratch } = record.request;
  if (kind === 'view') return undefined;
  // With the snapshot whose scratch it shared, all that could be mounted is gone.
  const owner = scratch?.shareWith;
  if (owner !== undefined && (await readSnapshotRecord(layout, owner)) === undefined) return undefined;
  const shows = await recognize(layout, record);
  // What is mounted in there is ours, for as long as it takes to make something of it; namespaces that get our mounts get it, too.
  const own = await realLocation(layout.snapshots);
  const here = readMountInfo();
  const leaves = leaving === undefined ? () => false : leavingWith(await realLocation(leaving), here);
  const findIn = (table: readonly MountInfoEntry[]) =>
    firstOf(
      table,
      async (entry) => !isWithin(entry.mountPoint, own) && (await shows(entry)) && !leaves(entry, table),
    );
  const found = await findIn(here);
  if (found !== undefined) return `something of it is mounted at ${found.mountPoint}`;
  for await (const { pid, table } of otherNamespaces()) {
    const entry = await findIn(table);
    if (entry !== undefined)
      return `something of it is mounted at ${entry.mountPoint} in the mount namespace of process ${pid}`;
  }
  return undefined;
}

/** Tells what goes when the mount at a place is unmounted: that one, and what other mounts of the directory it is on received of it. */
function leavingWith(
  mountPoint: string,
  here: readonly MountInfoEntry[],
): (entry: MountInfoEntry, table: readonly MountInfoEntry[]) => boolean {
  const mount = topMountAt(here, mountPoint);
  if (mount === undefined) return () => false;
  const below = parentOf(mount, here);
  return (entry, table) => {
    // Their numbers are those of all namespaces.
    if (entry.id === mount.id) return true;
    const parent = parentOf(entry, table);
    if (below === undefined || parent?.receives !== true || parent.device !== below.device) return false;
    return rootAt(parent, entry.mountPoint) === rootAt(below, mount.mountPoint);
  };
}

function parentOf(
  { parentId }: MountInfoEntry,
  table: readonly MountInfoEntry[],
): MountInfoEntry | undefined {
  return table.find(({ id }) => id === parentId);
}

/** Tells a mount of something that a snapshot keeps. */
async function recognize(
  layout: Layout,
  record: SnapshotRecord,
): Promise<(entry: MountInfoEntry) => Promise<boolean>> {
  const { directory, image } = await findScratch(layout, record);
  const place = await realLocation(join(directory, snapshotGuid(record.request.key)));
  const own = image === undefined ? placeInFilesystem(place, readMountInfo()) : undefined;
  const realImage = image === undefined ? undefined : await realLocation(image);
  const name = overlaySuffix(layout, record.request.key);
  return async ({ type, source, options, device, root }) => {
    if (type === 'overlay')
      return source.endsWith(name) || options.split(',').includes(`upperdir=${join(place, 'fs')}`);
    if (own !== undefined) return device === own.device && isWithin(root, own.root);
    const loop = /^\/dev\/(loop\d+)$/.exec(source)?.[1];
    return loop !== undefined && (await backingFile(basename(loop))) === realImage;
  };
}

/** How the source of a snapshot's overlay ends, wherever it is mounted; another root's has another. */
export function overlaySuffix({ root }: Layout, key: string): string {
  return `/${snapshotVolumeGuid(root, snapshotGuid(key))}`;
}

/** A path as the mount table would show it if it were bound somewhere: its file system, and where in that it is. */
function placeInFilesystem(
  path: string,
  table: readonly MountInfoEntry[],
): { device: string; root: string } | undefined {
  const above = table.filter(({ mountPoint }) => isWithin(path, mountPoint));
  // The deepest, and of those at one place the latest.
  const mount = above.reduce<MountInfoEntry | undefined>(
    (best, each) => (best === undefined || each.mountPoint.length >= best.mountPoint.length ? each : best),
    undefined,
  );
  if (mount === undefined) return undefined;
  return { device: mount.device, root: rootAt(mount, path) };
}

/** Where in a mounted file system a path is. */
function rootAt({ root, mountPoint }: MountInfoEntry, path: string): string {
  return join(root, path.slice(mountPoint === '/' ? 0 : mountPoint.length));
}

function isWithin(path: string, directory: string): boolean {
  return path === directory || path.startsWith(directory === '/' ? '/' : `${directory}/`);
}

async function firstOf<T>(all: readonly T[], isIt: (one: T) => Promise<boolean>): Promise<T | undefined> {
  for (const one of all) if (await isIt(one)) return one;
  return undefined;
}

/** The mount tables of other namespaces than this process' own, each once, as far as this user may read them. */
async function* otherNamespaces(): AsyncGenerator<{ pid: string; table: MountInfoEntry[] }> {
  const seen = new Set([await readlink('/proc/self/ns/mnt')]);
  for (const pid of await readdir('/proc')) {
    if (!/^\d+$/.test(pid)) continue;
    try {
      const namespace = await readlink(`/proc/${pid}/ns/mnt`);
      if (seen.has(namespace)) continue;
      seen.add(namespace);
      yield { pid, table: parseMountInfo(await readFile(`/proc/${pid}/mountinfo`, 'latin1')) };
    } catch (error) {
      // Processes end meanwhile (EINVAL: one that ended and was not waited for), and others' are not ours to see.
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'ESRCH' || code === 'EINVAL') continue;
      const classified = classify(error, `look at the mounts of process ${pid}`);
      if (!isErrorCode(classified, 'not-found', 'access-denied')) throw classified;
    }
  }
}
