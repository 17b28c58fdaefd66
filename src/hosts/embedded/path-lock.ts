/**
 * Files between processes: beside the agent that mounts a snapshot, commits it or removes it, a layer may be made of it, or somebody asks how it
 * would be mounted, and the view's image is made for that.
 */

import { readFile, stat } from 'node:fs/promises';
import { setTimeout as wait } from 'node:timers/promises';
import { CimletError, classify, isErrorCode } from '../../errors.ts';
import { type FileLock, type LockKind, tryLock } from '../../native/linux/flock.ts';
import { throwIfAborted } from '../abort.ts';

/** Making a mount takes milliseconds; what takes longer is tried again later. */
const PATIENCE_MS = 5000;
const INTERVAL_MS = 25;

export interface Waiting {
  signal?: AbortSignal | undefined;
  /** Milliseconds; where what others do may take minutes, only the signal ends it. */
  patienceMs?: number;
}

/** Runs a task with a lock on a file or directory. Throws `busy`, naming who has it, when that takes too long, and `cancelled` while it waits. */
export async function withPathLock<T>(
  path: string,
  kind: LockKind,
  operation: string,
  task: () => Promise<T>,
  waiting: Waiting = {},
): Promise<T> {
  const lock = await acquire(path, kind, operation, waiting);
  try {
    return await task();
  } finally {
    await lock.release();
  }
}

/** Whether somebody has a lock on it. */
export async function isPathLocked(path: string): Promise<boolean> {
  try {
    const lock = await tryLock(path, 'exclusive');
    await lock?.release();
    return lock === undefined;
  } catch (error) {
    if (isErrorCode(error, 'not-found')) return false;
    throw error;
  }
}

async function acquire(
  path: string,
  kind: LockKind,
  operation: string,
  { signal, patienceMs = PATIENCE_MS }: Waiting,
): Promise<FileLock> {
  const end = performance.now() + patienceMs;
  for (;;) {
    const lock = await tryLock(path, kind);
    if (lock !== undefined) return lock;
    if (performance.now() > end)
      throw new CimletError('busy', `${operation}: ${path} is in use by ${await holderOf(path)}`, {
        hint: 'wait until it is done',
      });
    await wait(INTERVAL_MS);
    if (signal !== undefined) throwIfAborted(signal, `${operation}: wait for ${path}`);
  }
}

/** As /proc/locks says it, which names the device's number and the inode's. */
async function holderOf(path: string): Promise<string> {
  const unknown = 'another process';
  try {
    const { ino } = await stat(path);
    const lines = (await readFile('/proc/locks', 'latin1')).split('\n');
    const line = lines.find((each) => each.includes(' FLOCK ') && each.includes(`:${ino} `));
    const pid = line?.trim().split(/\s+/)[4];
    return pid === undefined ? unknown : `process ${pid}`;
  } catch (error) {
    const classified = classify(error, `look at ${path}`);
    if (isErrorCode(classified, 'not-found', 'access-denied')) return unknown;
    throw classified;
  }
}
