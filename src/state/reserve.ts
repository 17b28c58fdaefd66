/**
 * Room for a start on a full disk: a file in the root that is given up then, so that the state can be opened and what
 * nobody needs be removed, and made again once there is room.
 */

import { randomFillSync } from 'node:crypto';
import { rmSync, statfsSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { classify, isErrorCode } from '../errors.ts';

/** Bytes: what the state database writes beside itself, a few rounds long. */
const SIZE = 2 ** 20;
/** It is made only where so many times its size are free. */
const SPARED = 4;

/** Gives it up when less than its size is free. */
export function useReserve(root: string): void {
  try {
    if (freeBytes(root) < SIZE) rmSync(fileOf(root), { force: true });
  } catch (error) {
    throw classify(error, `make room in ${root}`);
  }
}

/** Makes it when it is missing and there is room enough; returns whether it is there. */
export function keepReserve(root: string): boolean {
  const file = fileOf(root);
  try {
    if (statSync(file, { throwIfNoEntry: false })?.size === SIZE) return true;
    if (freeBytes(root) < SPARED * SIZE) return false;
    // A file system may store zeros in no space at all.
    writeFileSync(file, randomFillSync(Buffer.alloc(SIZE)), { mode: 0o600 });
    return true;
  } catch (error) {
    rmSync(file, { force: true });
    const known = classify(error, `reserve room in ${root}`);
    // A quota, or how the file system lays out its data, may leave less than it says is free.
    if (isErrorCode(known, 'no-space')) return false;
    throw known;
  }
}

function fileOf(root: string): string {
  return join(root, 'reserve');
}

function freeBytes(root: string): number {
  const { bavail, bsize } = statfsSync(root);
  return bavail * bsize;
}
