/**
 * Who else can write to a snapshot: mounts of what it keeps that are no mounts of ours any more, or never were. A bind mount of its writable
 * mount or of its directories, its image in a loop device, an overlay made by hand as `snapshot mounts` describes it; here, or in another
 * mount namespace that /proc shows.
 */

import { readdir, readFile, readlink } from 'node:fs/promises';
import { join } from 'node:path';
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
  const { shows, traces } = await recognize(layout, record);
  // What is mounted in there is ours, for as long as it takes to make something of it; namespaces that get our mounts get it, too.
  const own = await realLocation(layout.snapshots);
  const here = readMountInfo();
  const leaves = leaving === undefined ? () => false : leavingWith(await realLocation(leaving), here);
  const findIn = async (table: readonly MountInfoEntry[]) => {
    for (const entry of table) {
      if (isWithin(entry.mountPoint, own)) continue;
      const shown = shows(entry);
      if ((typeof shown === 'boolean' ? shown : await shown) && !leaves(entry, table)) return entry;
    }
    return undefined;
  };
  const found = await findIn(here);
  if (found !== undefined) return `something of it is mounted at ${found.mountPoint}`;
  for await (const { pid, text } of otherNamespaces()) {
    // Hosts of many containers have hundreds of tables, with a thousand mounts each that are none of a snapshot's.
    if (!traces.some((trace) => text.includes(trace))) continue;
    const entry = await findIn(parseMountInfo(text));
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

/** Tells a mount of something that a snapshot keeps, at once unless it is a loop device's. One of `traces` is in each table that has such a mount. */
interface Recognition {
  shows(entry: MountInfoEntry): boolean | Promise<boolean>;
  traces: readonly string[];
}

async function recognize(layout: Layout, record: SnapshotRecord): Promise<Recognition> {
  const id = snapshotGuid(record.request.key);
  const { directory, image } = await findScratch(layout, record);
  const place = await realLocation(join(directory, id));
  const upper = `upperdir=${join(place, 'fs')}`;
  const name = overlaySuffix(layout, record.request.key);
  const isOverlay = ({ source, options }: MountInfoEntry) =>
    source.endsWith(name) || options.split(',').includes(upper);
  if (image === undefined) {
    const own = placeInFilesystem(place, readMountInfo());
    const isOwn = ({ device, root }: MountInfoEntry) =>
      own !== undefined && device === own.device && isWithin(root, own.root);
    return {
      shows: (entry) => (entry.type === 'overlay' ? isOverlay(entry) : isOwn(entry)),
      // Whatever somebody has mounted over it may have any name.
      traces: own?.root.endsWith(id) ? [name, id] : [''],
    };
  }
  const realImage = await realLocation(image);
  const isAttached = async (loop: string) => (await backingFile(loop)) === realImage;
  return {
    shows: (entry) => {
      if (entry.type === 'overlay') return isOverlay(entry);
      const loop = /^\/dev\/(loop\d+)$/.exec(entry.source)?.[1];
      return loop !== undefined && isAttached(loop);
    },
    traces: [name, id, '/dev/loop'],
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

/** The mount tables of other namespaces than this process' own, each once, as far as this user may read them. */
async function* otherNamespaces(): AsyncGenerator<{ pid: string; text: string }> {
  const seen = new Set([await readlink('/proc/self/ns/mnt')]);
  for (const pid of await readdir('/proc')) {
    if (!/^\d+$/.test(pid)) continue;
    try {
      const namespace = await readlink(`/proc/${pid}/ns/mnt`);
      if (seen.has(namespace)) continue;
      seen.add(namespace);
      yield { pid, text: await readFile(`/proc/${pid}/mountinfo`, 'latin1') };
    } catch (error) {
      // Processes end meanwhile (EINVAL: one that ended and was not waited for), and others' are not ours to see.
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'ESRCH' || code === 'EINVAL') continue;
      const classified = classify(error, `look at the mounts of process ${pid}`);
      if (!isErrorCode(classified, 'not-found', 'access-denied')) throw classified;
    }
  }
}
