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
import { type MountInfoEntry, parseMountInfo, readMountInfo } from './mount-info.ts';
import { realLocation } from './own-mounts.ts';
import { findScratch } from './scratch.ts';

/** Where such a mount is, and whose it is when it is in another namespace; undefined when there is none. */
export async function findForeignMount(layout: Layout, record: SnapshotRecord): Promise<string | undefined> {
  const { kind, scratch } = record.request;
  if (kind === 'view') return undefined;
  // With the snapshot whose scratch it shared, all that could be mounted is gone.
  const owner = scratch?.shareWith;
  if (owner !== undefined && (await readSnapshotRecord(layout, owner)) === undefined) return undefined;
  const shows = await recognize(layout, record);
  // What is mounted in there is ours, for as long as it takes to make something of it; namespaces that get our mounts get it, too.
  const own = await realLocation(layout.snapshots);
  const isForeign = async (entry: MountInfoEntry) => !isWithin(entry.mountPoint, own) && shows(entry);
  const found = await firstOf(readMountInfo(), isForeign);
  if (found !== undefined) return `something of it is mounted at ${found.mountPoint}`;
  for await (const { pid, table } of otherNamespaces()) {
    const entry = await firstOf(table, isForeign);
    if (entry !== undefined)
      return `something of it is mounted at ${entry.mountPoint} in the mount namespace of process ${pid}`;
  }
  return undefined;
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
  const below = path.slice(mount.mountPoint === '/' ? 0 : mount.mountPoint.length);
  return { device: mount.device, root: join(mount.root, below) };
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
