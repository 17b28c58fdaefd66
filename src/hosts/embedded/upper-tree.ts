/**
 * What was written to an overlay, as its upper directory says it: files as they are now, whiteouts (character devices 0:0), and directories
 * that hide what is below them. Source: the kernel's Documentation/filesystems/overlayfs.rst. Calls block; for the worker.
 */

import { type BigIntStats, lstatSync, readdirSync } from 'node:fs';
import { getXattr, listXattrs } from '../../native/linux/xattr.ts';

/** What overlayfs keeps for itself. */
const OVERLAY_PREFIX = 'trusted.overlay.';
const OPAQUE = `${OVERLAY_PREFIX}opaque`;
const SEPARATOR = Buffer.from('/');

export type UpperKind = 'directory' | 'file' | 'symlink' | 'whiteout' | 'device' | 'fifo' | 'socket';

export interface UpperEntry {
  /** As the upper directory spells it. */
  name: Buffer;
  path: Buffer;
  kind: UpperKind;
  stats: BigIntStats;
}

/** What is in a directory, in the order of the names' bytes. */
export function readUpper(directory: Buffer): UpperEntry[] {
  const names = readdirSync(directory, { encoding: 'buffer' }) as Buffer[];
  return names.sort(Buffer.compare).map((name) => {
    const path = Buffer.concat([directory, SEPARATOR, name]);
    return { name, ...lookAtUpper(path) };
  });
}

export function lookAtUpper(path: Buffer): Omit<UpperEntry, 'name'> {
  const stats = lstatSync(path, { bigint: true });
  return { path, kind: kindOf(stats), stats };
}

/** Whether a directory hides all that lower layers have in it. */
export function isOpaque(path: Buffer): boolean {
  const value = getXattr(path, OPAQUE);
  return value !== undefined && Buffer.from(value).toString('latin1') === 'y';
}

/** Names of the attributes that are the file's own, in the order of their bytes. */
export function ownXattrs(path: Buffer): Buffer[] {
  return listXattrs(path)
    .filter((name) => !name.toString('latin1').startsWith(OVERLAY_PREFIX))
    .sort(Buffer.compare);
}

function kindOf(stats: BigIntStats): UpperKind {
  if (stats.isDirectory()) return 'directory';
  if (stats.isFile()) return 'file';
  if (stats.isSymbolicLink()) return 'symlink';
  if (stats.isFIFO()) return 'fifo';
  if (stats.isSocket()) return 'socket';
  return stats.isCharacterDevice() && stats.rdev === 0n ? 'whiteout' : 'device';
}
