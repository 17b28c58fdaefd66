/** Advisory locks between processes, which the kernel lets go when their holder dies. https://man7.org/linux/man-pages/man2/flock.2.html */

import { open } from 'node:fs/promises';
import { classify } from '../../errors.ts';
import { Errno, systemError } from './errno.ts';
import { libc, outcome } from './libc.ts';

const LOCK_SHARED = 1;
const LOCK_EXCLUSIVE = 2;
const LOCK_NONBLOCKING = 4;

export type LockKind = 'shared' | 'exclusive';

export interface FileLock {
  release(): Promise<void>;
}

/** Locks a file or directory; undefined while somebody else, in this process or another, has a lock that excludes it. Throws `not-found`. */
export async function tryLock(path: string, kind: LockKind): Promise<FileLock | undefined> {
  const operation = `lock ${path}`;
  const handle = await open(path, 'r').catch((error: unknown) => {
    throw classify(error, operation);
  });
  const how = kind === 'shared' ? LOCK_SHARED : LOCK_EXCLUSIVE;
  try {
    const result = outcome(await libc.callAsync('flock', handle.fd, how | LOCK_NONBLOCKING));
    if (result >= 0) return { release: () => handle.close() };
    if (result !== -Errno.EAGAIN) throw systemError(operation, -result);
  } catch (error) {
    await handle.close();
    throw error;
  }
  await handle.close();
  return undefined;
}
