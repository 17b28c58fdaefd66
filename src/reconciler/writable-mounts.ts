/** Writable Mounts: each has an active snapshot of its own, which stays as long as the Mount is wanted. */

import { posix, win32 } from 'node:path';
import { isErrorCode } from '../errors.ts';
import type { MountRequest, ScratchOptions, SnapshotRequest } from '../hosts/host.ts';
import { parseSize } from '../manifests/quantities.ts';
import type { MountResource } from '../manifests/resources.ts';
import { findIncapacity } from './derive-chain.ts';
import type { Situation } from './situation.ts';
import type { Blocked } from './types.ts';

type Obstacle = Pick<Blocked, 'code' | 'message' | 'hint'>;

/** The key of a Mount's snapshot. That of what somebody gave a name begins otherwise (src/snapshots/snapshotter.ts). */
export function mountSnapshotKey(mountName: string): string {
  return `mount/${mountName}`;
}

/** What has to be there before a writable Mount; undefined for any other. */
export function snapshotFor(
  mount: MountResource,
  { access, chain, format }: Pick<MountRequest, 'access' | 'chain' | 'format'>,
): SnapshotRequest | undefined {
  if (access === 'ReadOnly') return undefined;
  const key = mountSnapshotKey(mount.metadata.name);
  const scratch = scratchOf(mount);
  return { key, kind: 'active', chain, format, ...(scratch === undefined ? {} : { scratch }) };
}

function scratchOf({ spec }: MountResource): ScratchOptions | undefined {
  if (spec.scratch === undefined) return undefined;
  const { size, unformatted, location, shareWith, utilityVM } = spec.scratch;
  return {
    ...(size === undefined ? {} : { bytes: parseSize(size) }),
    ...(unformatted === true ? { unformatted } : {}),
    ...(utilityVM === true ? { utilityVM } : {}),
    ...(location === undefined ? {} : { location }),
    ...(shareWith === undefined ? {} : { shareWith: mountSnapshotKey(shareWith) }),
  };
}

/**
 * Why a writable Mount can't be as it is wanted. What was written fits only the chain that it was written over, and is never thrown away for a
 * change: who wants another chain or scratch has to delete the Mount first.
 */
export function findWritableObstacle(
  mount: MountResource,
  request: MountRequest,
  situation: Situation,
): Obstacle | undefined {
  if (request.access === 'ReadOnly') return undefined;
  const incapacity = findIncapacity('active', 'write to mounts', situation.observed?.capabilities);
  if (incapacity !== undefined) return incapacity;
  if (request.view === 'Extracted')
    return {
      code: 'invalid-manifest',
      message: "spec.view: an extracted view can't be written to",
      hint: 'leave spec.view out, or use access: ReadOnly',
    };
  const wanted = wantedSnapshot(mount, request);
  if ('code' in wanted) return wanted;
  const there = situation.scratches.get(wanted.key);
  if (there === undefined) return undefined;
  const differs = (what: string): Obstacle => ({
    code: 'failed-precondition',
    message: `its scratch was made ${what}, and is not given up for another`,
    hint: 'commit or copy what was written that is worth keeping, delete the Mount, and apply again',
  });
  if (there.format !== wanted.format || there.chain.join() !== wanted.chain.join())
    return differs(`over ${there.format} ${there.chain.at(-1) ?? 'nothing'}`);
  const [one, other] = [there.scratch ?? {}, wanted.scratch ?? {}];
  if (one.bytes !== other.bytes) return differs(sizeText(one.bytes));
  if (one.location !== other.location) return differs(`in ${one.location ?? 'the root'}`);
  if (one.shareWith !== other.shareWith)
    return differs(one.shareWith === undefined ? 'for itself' : `in that of ${one.shareWith}`);
  if ((one.unformatted ?? false) !== (other.unformatted ?? false))
    return differs(one.unformatted === true ? 'without a file system' : 'with a file system');
  if ((one.utilityVM ?? false) !== (other.utilityVM ?? false))
    return differs(`${one.utilityVM === true ? 'with' : 'without'} a disk for a utility VM`);
  return undefined;
}

function sizeText(bytes: number | undefined): string {
  return bytes === undefined ? 'of no particular size' : `of ${bytes} bytes`;
}

function wantedSnapshot(mount: MountResource, request: MountRequest): SnapshotRequest | Obstacle {
  const { size, location, shareWith, unformatted, utilityVM } = mount.spec.scratch ?? {};
  const refuse = (field: string, why: string): Obstacle => ({
    code: 'invalid-manifest',
    message: `spec.scratch.${field}: ${why}`,
  });
  if (location !== undefined && !posix.isAbsolute(location) && !win32.isAbsolute(location))
    return refuse('location', 'it is not absolute');
  if (shareWith === mount.metadata.name) return refuse('shareWith', 'it names the Mount itself');
  const isOwn = size !== undefined || location !== undefined || unformatted === true || utilityVM === true;
  if (shareWith !== undefined && isOwn)
    return refuse('shareWith', 'a shared scratch has the size, place and disks that it has');
  try {
    return snapshotFor(mount, request) ?? refuse('size', 'access is ReadOnly');
  } catch (error) {
    if (!isErrorCode(error, 'invalid-manifest')) throw error;
    return refuse('size', error.message);
  }
}
