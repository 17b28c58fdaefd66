/** What every host asks of snapshots by key. */

import { CimletError } from '../errors.ts';
import type { MountRequest, SnapshotRequest } from './host.ts';

/** Throws `invalid-manifest` for what no host can make. */
export function checkSnapshotRequest({ key, kind, chain, scratch }: SnapshotRequest): void {
  const refuse = (why: string, hint?: string) =>
    new CimletError('invalid-manifest', `prepare snapshot ${JSON.stringify(key)}: ${why}`, { hint });
  if (key === '' || key.includes('\0')) throw refuse('its key is empty, or has a NUL in it');
  if (kind === 'view' && chain.length === 0) throw refuse('a view of no layers', 'give it a parent');
  if (kind === 'view' && scratch !== undefined) throw refuse('a view has no scratch');
  if (scratch?.shareWith === undefined) return;
  const { bytes, location, unformatted, utilityVM } = scratch;
  if (bytes !== undefined || location !== undefined || unformatted === true || utilityVM === true)
    throw refuse(
      'a shared scratch has the size, place and disks that it has',
      'leave out what is beside shareWith',
    );
}

export function isSameRequest(a: SnapshotRequest, b: SnapshotRequest): boolean {
  const [one, other] = [a.scratch ?? {}, b.scratch ?? {}];
  return (
    a.kind === b.kind &&
    a.format === b.format &&
    a.chain.join() === b.chain.join() &&
    one.bytes === other.bytes &&
    (one.unformatted ?? false) === (other.unformatted ?? false) &&
    (one.utilityVM ?? false) === (other.utilityVM ?? false) &&
    one.location === other.location &&
    one.shareWith === other.shareWith
  );
}

export function noSuchSnapshot(key: string, operation: string): CimletError {
  return new CimletError('not-found', `${operation}: there is no snapshot ${JSON.stringify(key)}`);
}

/** Throws `already-exists`: there is one of that key, made for something else. */
export function otherSnapshot({ key, kind, chain }: SnapshotRequest): CimletError {
  const on = chain.at(-1) ?? 'nothing';
  return new CimletError(
    'already-exists',
    `prepare snapshot ${JSON.stringify(key)}: there is one, ${kind} on ${on}, made otherwise`,
    { hint: 'remove it first, or choose another key' },
  );
}

/**
 * The snapshot that takes a mount's writes. Throws `failed-precondition` when none is named, and for one that is a view or of another chain,
 * `not-found`.
 */
export function writableSnapshot<S extends SnapshotRequest>(
  { path, snapshot: key, chain, format }: MountRequest,
  found: S | undefined,
): S {
  const operation = `mount ${path}`;
  const refuse = (why: string, hint: string) =>
    new CimletError('failed-precondition', `${operation}: ${why}`, { hint });
  if (key === undefined)
    throw refuse(
      'no snapshot is named that takes the writes',
      'prepare an active snapshot on the chain first',
    );
  if (found === undefined) throw noSuchSnapshot(key, operation);
  if (found.kind !== 'active')
    throw refuse(`snapshot ${JSON.stringify(key)} is a view`, 'mount it with access: ReadOnly');
  if (found.format !== format || found.chain.join() !== chain.join())
    throw refuse(
      `snapshot ${JSON.stringify(key)} is of another chain`,
      'what was written to it fits its own only',
    );
  return found;
}
