/**
 * Chains of Linux layers: each layer's disk mounted read-only by itself, an overlay over all of them at the path. The overlay holds on to
 * the disks; their own mounts are there only while it is made.
 *
 *   extracted/tmp-<volume guid>/<n>    where the n-th disk from the top is mounted meanwhile
 *   extracted/none                     an empty directory: an overlay to look through needs two. It stays, since an overlay shows nothing
 *                                      once a directory of it is gone
 */

import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { CimletError } from '../../errors.ts';
import { unmount } from '../../native/linux/mount.ts';
import { mountExt4, mountOverlay } from '../../native/linux/overlay.ts';
import { checkRootHash, requireLayers, requireStack } from '../chain-layers.ts';
import { ensureDirectory, removeTree } from '../directories.ts';
import type { MountRequest, VolumeGuid } from '../host.ts';
import { chainRootHash } from '../identity.ts';
import { extractedPath, type Layout } from '../layout.ts';
import { layerDiskPath } from '../unpack-linux.ts';
import { soundLayer } from './layer-store.ts';
import type { ViewRecord } from './own-mounts.ts';
import { unmountBelow } from './scratch.ts';
import { layerSealFaults } from './seal-faults.ts';

/** What shows a chain of Linux layers. */
export interface ShownDisks {
  /** Topmost first. */
  disks: string[];
  /** When all layers have dm-verity. */
  rootHash: string | undefined;
}

/**
 * Throws `failed-precondition` unless all of the chain is there and sound, `corrupt` for another root hash than expected, or when a layer
 * that has dm-verity isn't what its root hash says.
 */
export async function requireDisks(
  layout: Layout,
  request: Pick<MountRequest, 'chain' | 'format' | 'expectedRootHash'>,
  operation: string,
  signal: AbortSignal,
): Promise<ShownDisks> {
  const layers = await requireLayers(request, operation, (ref) => soundLayer(layout, ref));
  requireStack(layers, operation);
  const rootHash = chainRootHash(layers.map(({ layer }) => layer.rootHash));
  checkRootHash(rootHash, request.expectedRootHash, operation);
  for (const record of layers) {
    const [fault] = await layerSealFaults(layout, record, signal);
    if (fault === undefined) continue;
    throw new CimletError('corrupt', `${operation}: ${fault.path}: ${fault.message}`, {
      hint: 'plan again: the layer is built anew',
    });
  }
  return { disks: request.chain.map((chainId) => layerDiskPath(layout, chainId)).reverse(), rootHash };
}

/** Shows a chain where the record says; on failure nothing is mounted. */
export async function mountDisks(
  layout: Layout,
  record: ViewRecord,
  disks: readonly string[],
): Promise<void> {
  const { path, volumeGuid } = record.request;
  await ensureDirectory(path);
  await withDisks(layout, volumeGuid, disks, (lowers) =>
    mountOverlay({ lowers, source: record.source, target: path }),
  );
}

/** Does something with the disks mounted; `lowers` are where, topmost first, and are two at least. */
export async function withDisks<T>(
  layout: Layout,
  volumeGuid: VolumeGuid,
  disks: readonly string[],
  task: (lowers: string[]) => Promise<T>,
): Promise<T> {
  const directory = extractedPath(layout, volumeGuid, 'tmp-');
  await discardDisks(directory);
  await ensureDirectory(layout.extracted);
  await mkdir(directory, { mode: 0o700 });
  const lowers: string[] = [];
  try {
    for (const [index, disk] of disks.entries()) {
      const lower = join(directory, String(index));
      await mkdir(lower);
      await mountExt4(disk, lower, { readOnly: true });
      lowers.push(lower);
    }
    const none = join(layout.extracted, 'none');
    await ensureDirectory(none);
    return await task(lowers.length > 1 ? lowers : [...lowers, none]);
  } finally {
    for (const lower of lowers.reverse()) await unmount(lower, { detach: true });
    await discardDisks(directory);
  }
}

/** Takes away what a crash left of it. */
async function discardDisks(directory: string): Promise<void> {
  await unmountBelow(directory);
  await removeTree(directory);
}
