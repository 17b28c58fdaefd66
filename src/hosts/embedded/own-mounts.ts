/** Our mounts as they are: the records, held against the kernel's mount table. */

import { lstat, readdir, readlink, realpath, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { classify, isErrorCode } from '../../errors.ts';
import { backingFile } from '../../native/linux/loop.ts';
import { foreignStateOf } from '../foreign-path.ts';
import type { ObservedMount, PathState } from '../host.ts';
import type { MountRecord } from '../mount-records.ts';
import { type MountInfoEntry, topMountAt } from './mount-info.ts';

/** Longer sources are given to the kernel as an open file (src/native/linux/mount.ts). */
const LONGEST_SOURCE = 255;

/** What this host has to know of a mount besides. */
export interface ViewRecord extends MountRecord {
  /** The EROFS image mounted, the overlay's name, or the tree the path links to. */
  source: string;
  /** Whether the kernel was given a loop device over `source`. */
  loop: boolean;
  /** Whether an extracted view's link stands where an empty directory was. */
  replacedDirectory: boolean;
  /** A layer was built anew under the view: the kernel still reads the files that were replaced. */
  stale?: boolean | undefined;
}

export type MountState = Pick<ObservedMount, 'state' | 'message'>;

/** Where a recorded mount stands. A mount is ours when it shows our source at our path. */
export async function mountStateOf(
  record: ViewRecord,
  table: readonly MountInfoEntry[],
): Promise<MountState> {
  return record.request.view === 'Extracted' ? linkState(record) : kernelState(record, table);
}

/** What is at `path`, for somebody who wants to mount there. */
export async function pathStateOf(
  path: string,
  table: readonly MountInfoEntry[],
  records: readonly ViewRecord[],
): Promise<PathState> {
  for (const record of records) {
    if (record.request.path !== path) continue;
    const { state } = await mountStateOf(record, table);
    if (state === 'mounted' || (await isOwnLink(record)))
      return { kind: 'own-mount', detail: `our view of ${record.request.chain.at(-1)}` };
  }
  const mount = topMountAt(table, await realLocation(path));
  if (mount !== undefined)
    return { kind: 'foreign-mount', detail: `${mount.type} file system of ${mount.source}` };
  return foreignStateOf(path);
}

/** Whether an extracted view's link is there, though what it leads to may be gone. */
async function isOwnLink({ request: { view, path }, source }: ViewRecord): Promise<boolean> {
  if (view !== 'Extracted') return false;
  try {
    return (await readlink(path)) === source;
  } catch (error) {
    // EINVAL: what is there is no link.
    if ((error as NodeJS.ErrnoException).code === 'EINVAL') return false;
    const classified = classify(error, `look at ${path}`);
    if (isErrorCode(classified, 'not-found', 'failed-precondition', 'access-denied')) return false;
    throw classified;
  }
}

/** `path` as the kernel's mount table spells it: links in what exists above it resolved, its own name kept. */
export async function realLocation(path: string): Promise<string> {
  const parent = dirname(path);
  if (parent === path) return path;
  try {
    return join(await realpath(parent), basename(path));
  } catch (error) {
    const classified = classify(error, `look at ${parent}`);
    if (isErrorCode(classified, 'not-found')) return join(await realLocation(parent), basename(path));
    if (isErrorCode(classified, 'failed-precondition', 'access-denied')) return path;
    throw classified;
  }
}

async function kernelState(record: ViewRecord, table: readonly MountInfoEntry[]): Promise<MountState> {
  const { path } = record.request;
  const mountPoint = await realLocation(path);
  const top = topMountAt(table, mountPoint);
  if (top === undefined) return { state: 'missing', message: `nothing is mounted at ${path}` };
  if (!(await showsOurs(top, record))) {
    for (const entry of table)
      if (entry.mountPoint === mountPoint && (await showsOurs(entry, record)))
        return { state: 'covered', message: `${top.type} of ${top.source} is mounted over it` };
    return { state: 'missing', message: `${top.type} of ${top.source} is mounted at ${path} instead` };
  }
  const visible = await deviceOf(path);
  return visible === top.device
    ? { state: 'mounted' }
    : { state: 'covered', message: `a mount on a directory above ${path} hides it` };
}

async function linkState(record: ViewRecord): Promise<MountState> {
  const { path } = record.request;
  try {
    const stats = await lstat(path);
    if (stats.isSymbolicLink() && (await readlink(path)) === record.source) {
      await stat(record.source);
      return { state: 'mounted' };
    }
    if (stats.isDirectory() && (await readdir(path)).length === 0)
      return { state: 'missing', message: `${path} is an empty directory` };
    return { state: 'missing', message: `${path} is something else now` };
  } catch (error) {
    const classified = classify(error, `look at ${path}`);
    if (isErrorCode(classified, 'not-found'))
      return { state: 'missing', message: `${path} or ${record.source} is gone` };
    if (isErrorCode(classified, 'failed-precondition', 'access-denied'))
      return { state: 'missing', message: classified.message };
    throw classified;
  }
}

async function showsOurs(entry: MountInfoEntry, record: ViewRecord): Promise<boolean> {
  const { access, format } = record.request;
  if (access === 'ReadWrite' || format === 'LCOW')
    return entry.type === 'overlay' && entry.source === record.source;
  if (entry.type !== 'erofs') return false;
  if (!record.loop)
    return Buffer.byteLength(record.source) > LONGEST_SOURCE
      ? entry.source.startsWith('/proc/self/fd/')
      : entry.source === record.source;
  if (!/^\/dev\/loop\d+$/.test(entry.source)) return false;
  return (await backingFile(basename(entry.source))) === record.source;
}

/** "major:minor" of what `path` resolves to now, or undefined when it can't be reached. */
async function deviceOf(path: string): Promise<string | undefined> {
  try {
    const { dev } = await stat(path);
    const major = ((dev >>> 8) & 0xfff) | 0;
    const minor = (dev & 0xff) | ((dev >>> 12) & 0xfff00);
    return `${major}:${minor}`;
  } catch (error) {
    const classified = classify(error, `look at ${path}`);
    if (isErrorCode(classified, 'not-found', 'failed-precondition', 'access-denied')) return undefined;
    throw classified;
  }
}
