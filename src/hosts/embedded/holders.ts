/** Who keeps a mount busy, as far as /proc tells this user. */

import { readdir, readFile, readlink } from 'node:fs/promises';
import { join } from 'node:path';
import { classify, isErrorCode } from '../../errors.ts';
import type { MountInfoEntry } from './mount-info.ts';

const MAX_NAMED = 5;

/** A hint naming processes with something open below `path` and mounts below it; undefined when none is found. */
export async function describeHolders(
  path: string,
  table: readonly MountInfoEntry[],
): Promise<string | undefined> {
  const below = (candidate: string): boolean => candidate === path || candidate.startsWith(`${path}/`);
  const mounts = table
    .map(({ mountPoint }) => mountPoint)
    .filter((point) => point !== path && below(point))
    .map((point) => `the mount at ${point}`);
  const processes: string[] = [];
  for (const pid of await namesIn('/proc')) {
    if (processes.length > MAX_NAMED) break;
    if (/^\d+$/.test(pid) && (await holds(pid, below)))
      processes.push(`process ${pid} (${await commandOf(pid)})`);
  }
  const holders = [...mounts, ...processes];
  if (holders.length === 0) return undefined;
  const named = holders.slice(0, MAX_NAMED).join(', ');
  return `in use by ${named}${holders.length > MAX_NAMED ? ' and others' : ''}`;
}

async function holds(pid: string, below: (path: string) => boolean): Promise<boolean> {
  const base = join('/proc', pid);
  for (const name of ['cwd', 'root', 'exe']) if (below(await targetOf(join(base, name)))) return true;
  for (const fd of await namesIn(join(base, 'fd')))
    if (below(await targetOf(join(base, 'fd', fd)))) return true;
  return false;
}

async function commandOf(pid: string): Promise<string> {
  return (
    await unlessHidden(() => readFile(`/proc/${pid}/comm`, 'utf8'), `read /proc/${pid}/comm`, '?')
  ).trim();
}

async function targetOf(link: string): Promise<string> {
  return unlessHidden(() => readlink(link), `read ${link}`, '');
}

async function namesIn(directory: string): Promise<string[]> {
  return unlessHidden(() => readdir(directory), `list ${directory}`, []);
}

/** Processes end while we look, and others' are not ours to see: neither is a failure. */
async function unlessHidden<T>(look: () => Promise<T>, operation: string, otherwise: T): Promise<T> {
  try {
    return await look();
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ESRCH' || isErrorCode(classify(error, operation), 'not-found', 'access-denied'))
      return otherwise;
    throw error;
  }
}
