/** Looking at snapshots by key: what they hold, and why they can't be used. */

import { lstat, open, readdir, stat } from 'node:fs/promises';
import { classify, isErrorCode } from '../../errors.ts';
import { throwIfAborted } from '../abort.ts';
import { exists } from '../directories.ts';
import type { ObservedLayer, ObservedSnapshot, SnapshotUsage } from '../host.ts';
import { snapshotGuid } from '../identity.ts';
import { type Layout, layerFolder } from '../layout.ts';
import type { SnapshotRecord } from '../snapshot-records.ts';
import { findScratch, withUpper } from './scratch.ts';

/**
 * Of a scratch of limited size what the image takes and how many files its superblock counts, which a mount brings up to date now and then;
 * snapshots that share it are counted with it.
 */
export async function observeSnapshots(
  layout: Layout,
  records: readonly SnapshotRecord[],
  layers: readonly ObservedLayer[],
  signal: AbortSignal,
): Promise<ObservedSnapshot[]> {
  const sound = new Set(layers.filter(({ faults }) => faults.length === 0).map(layerFolder));
  const observed: ObservedSnapshot[] = [];
  for (const record of records) {
    const { chain, format } = record.request;
    const lost = chain.find((chainId) => !sound.has(layerFolder({ chainId, format })));
    const { bytes, files, fault } = await look(layout, record, signal);
    const why = lost === undefined ? fault : `its layer ${lost} is gone or damaged`;
    const snapshot = { ...record.request, chain: [...chain], bytes, files };
    observed.push(why === undefined ? snapshot : { ...snapshot, fault: why });
  }
  return observed;
}

/** Of what is in an image, too, which takes a mount of it. */
export async function countWritten(
  layout: Layout,
  record: SnapshotRecord,
  signal: AbortSignal,
): Promise<SnapshotUsage> {
  const found = { bytes: 0, files: 0 };
  if (record.request.kind === 'view') return found;
  await withUpper(layout, record, signal, ({ upper }) =>
    addTree(Buffer.from(upper), { found, seen: new Set(), signal }),
  );
  return found;
}

async function look(
  layout: Layout,
  record: SnapshotRecord,
  signal: AbortSignal,
): Promise<SnapshotUsage & { fault?: string }> {
  const { key, kind, scratch } = record.request;
  const nothing = { bytes: 0, files: 0 };
  if (kind === 'view') return nothing;
  try {
    const { directory, image } = await findScratch(layout, record);
    if (image !== undefined) return scratch?.shareWith === undefined ? await lookAtImage(image) : nothing;
    const upper = Buffer.from(`${directory}/${snapshotGuid(key)}/fs`);
    if (!(await exists(upper.toString()))) return { ...nothing, fault: 'its scratch is gone' };
    const found = { ...nothing };
    await addTree(upper, { found, seen: new Set(), signal });
    return found;
  } catch (error) {
    const classified = classify(error, `look at snapshot ${key}`);
    if (isErrorCode(classified, 'not-found', 'access-denied', 'failed-precondition'))
      return { ...nothing, fault: `its scratch is gone or can't be read: ${classified.message}` };
    throw classified;
  }
}

interface Count {
  found: SnapshotUsage;
  /** Inodes that have several names. */
  seen: Set<number>;
  signal: AbortSignal;
}

/** Adds what lies below a directory; what has several names counts once. Somebody may be writing: what is gone meanwhile doesn't count. */
async function addTree(directory: Buffer, count: Count): Promise<void> {
  const { found, seen, signal } = count;
  throwIfAborted(signal, `count what is in ${directory}`);
  for (const name of (await readdir(directory, { encoding: 'buffer' })) as Buffer[]) {
    const path = Buffer.concat([directory, Buffer.from('/'), name]);
    const stats = await unlessGone(lstat(path));
    if (stats === undefined) continue;
    if (stats.nlink > 1 && !stats.isDirectory()) {
      if (seen.has(stats.ino)) continue;
      seen.add(stats.ino);
    }
    found.bytes += stats.blocks * 512;
    found.files++;
    if (stats.isDirectory()) await unlessGone(addTree(path, count));
  }
}

async function unlessGone<T>(look: Promise<T>): Promise<T | undefined> {
  try {
    return await look;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    return undefined;
  }
}

/** The root, lost+found and the reserved inodes; a snapshot's own directories are `<id>`, `fs`, `work` and overlayfs' `work/work`. */
const INODES_OF_NONE = 11;
const INODES_OF_SNAPSHOT = 4;
const SUPERBLOCK_AT = 1024;

async function lookAtImage(image: string): Promise<SnapshotUsage> {
  const { blocks } = await stat(image);
  const handle = await open(image, 'r');
  try {
    const superblock = Buffer.alloc(1024);
    await handle.read(superblock, 0, superblock.length, SUPERBLOCK_AT);
    const inodes = superblock.readUInt32LE(0) - superblock.readUInt32LE(0x10);
    return { bytes: blocks * 512, files: Math.max(0, inodes - INODES_OF_NONE - INODES_OF_SNAPSHOT) };
  } finally {
    await handle.close();
  }
}
