/** One agent per root: a lock that the kernel lets go when its holder dies. */

import { mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { dirname, join } from 'node:path';
import { CimletError, classify, isErrorCode } from '../errors.ts';
import { type Database, openExclusive } from './database.ts';

export interface RootLock {
  release(): void;
}

export interface LockOwner {
  pid: number;
  host: string;
  /** ISO 8601. */
  since: string;
  command: string;
}

/** A database that nobody refers to is collected and closed, and its lock gone: a caller may drop its RootLock. */
const held = new Set<Database>();

const WRITE_HINT = 'choose another --root, or run with the right to write there';

/**
 * Locks `root` (made when missing) for this process until `release()` or its end. Throws `busy` naming the holder.
 * The lock is a record lock on `lock.db`: no other code of this process may open and close that file meanwhile.
 */
export function acquireRootLock(root: string, command: string): RootLock {
  try {
    makeDirectory(root);
  } catch (error) {
    throw classify(error, `make root ${root}`, WRITE_HINT);
  }
  const ownerFile = join(root, 'owner.json');
  const database = takeLock(root, ownerFile);
  const owner: LockOwner = { pid: process.pid, host: hostname(), since: new Date().toISOString(), command };
  try {
    writeFileSync(ownerFile, `${JSON.stringify(owner)}\n`);
  } catch (cause) {
    const error = classify(cause, `write ${ownerFile}`, WRITE_HINT);
    // Only who is refused wants to know it; a full disk must not keep out whoever would make room.
    if (!isErrorCode(error, 'no-space')) {
      database.close();
      throw error;
    }
  }
  held.add(database);
  return {
    release: () => {
      if (!held.delete(database)) return;
      rmSync(ownerFile, { force: true });
      database.close();
    },
  };
}

/** Node's own recursive mkdir says "no such file" on a read-only file system. */
function makeDirectory(path: string): void {
  if (statSync(path, { throwIfNoEntry: false })?.isDirectory()) return;
  if (path !== dirname(path)) makeDirectory(dirname(path));
  try {
    mkdirSync(path);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'EEXIST' || !statSync(path).isDirectory()) throw error;
  }
}

function takeLock(root: string, ownerFile: string) {
  try {
    return openExclusive(join(root, 'lock.db'));
  } catch (error) {
    if (!isErrorCode(error, 'busy')) throw error;
    const owner = readOwner(ownerFile);
    const who =
      owner === undefined
        ? 'another cimlet'
        : `cimlet ${owner.command} (pid ${owner.pid} on ${owner.host}, since ${owner.since})`;
    throw new CimletError('busy', `lock root ${root}: in use by ${who}`, {
      hint:
        owner?.command === 'agent'
          ? 'the agent does what the manifests that it follows say: change those, or stop it; plan, get and describe work beside it'
          : 'wait until it has finished, or stop it; reading commands (plan, get, describe) work meanwhile',
      cause: error,
    });
  }
}

/** The holder may be writing the file at this moment: unreadable means unknown. */
function readOwner(file: string): LockOwner | undefined {
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as LockOwner;
  } catch (error) {
    if (error instanceof SyntaxError || (error as NodeJS.ErrnoException).code !== undefined) return undefined;
    throw error;
  }
}
