/** Looking without touching: layers and merged CIMs with their faults, mounts, and what a crash left behind. */

import { join } from 'node:path';
import { volumePath } from '../../native/windows/guid.ts';
import { throwIfAborted } from '../abort.ts';
import { listDirectory } from '../directories.ts';
import type {
  ChainId,
  Leftover,
  ObservedLayer,
  ObservedMerge,
  ObservedMount,
  SnapshotRequest,
  VolumeGuid,
} from '../host.ts';
import { lowerVolumeGuid } from '../identity.ts';
import { layerFolder, mergeFolder, parseFolderName } from '../layout.ts';
import { type MountRecord, recordedView } from '../mount-records.ts';
import { type LayerRecord, type MergeRecord, readLayerRecords, readMergeRecords } from '../records.ts';
import type { Running } from '../run-effect.ts';
import { isForkedFile } from './cim-paths.ts';
import { exportLeftovers } from './export-layers.ts';
import { hcsStorageOf } from './hcs-storage.ts';
import { listedFiles } from './layer-store.ts';
import { sizeUnder } from './size-under.ts';
import { snapshotLeftovers } from './snapshot-leftovers.ts';
import { asWindows, layerFaults, mergeFaults, type Store } from './store.ts';
import { lookAtView, type Sight } from './view-state.ts';
import type { Gallery } from './views.ts';
import { isMounted } from './volumes.ts';
import { viewScratchLeftovers } from './wcifs-scratch.ts';

/** Something left over, and the volume it is when it is one. */
export interface FoundLeftover extends Leftover {
  volumeGuid?: VolumeGuid | undefined;
  /** The snapshot that was being looked into, when that is why it is there. */
  snapshot?: SnapshotRequest | undefined;
}

export async function observeLayers(
  store: Store,
  records: readonly LayerRecord[],
  signal: AbortSignal,
): Promise<ObservedLayer[]> {
  const layers: ObservedLayer[] = [];
  for (const record of records) {
    throwIfAborted(signal, 'observe');
    layers.push({ ...record.layer, faults: await layerFaults(store, asWindows(record)) });
  }
  return withForkFaults(layers);
}

/** What is wrong with an image is wrong with all that were forked from it: they hold on to its files, and Windows never writes the same. */
function withForkFaults(layers: ObservedLayer[]): ObservedLayer[] {
  if (layers.every(({ faults }) => faults.length === 0)) return layers;
  const known = new Map(layers.map((layer) => [layerFolder(layer), layer]));
  const damagedBelow = (layer: ObservedLayer): ChainId | undefined => {
    const { parent: chainId } = layer;
    const parent = chainId && known.get(layerFolder({ ...layer, chainId }));
    if (parent === undefined || parent.faults.length > 0) return parent?.chainId;
    return damagedBelow(parent);
  };
  return layers.map((layer) => {
    const damaged =
      layer.format === 'ForkedCIM' && layer.faults.length === 0 ? damagedBelow(layer) : undefined;
    if (damaged === undefined) return layer;
    const message = `it was forked from files of layer ${damaged}, which is damaged`;
    return { ...layer, faults: [{ code: 'parent-rebuilt', message }] };
  });
}

export async function observeMerges(
  store: Store,
  records: readonly MergeRecord[],
  signal: AbortSignal,
): Promise<ObservedMerge[]> {
  const merges: ObservedMerge[] = [];
  for (const record of records) {
    throwIfAborted(signal, 'observe');
    merges.push({ ...record.merge, faults: await mergeFaults(store, record) });
  }
  return merges;
}

export async function observeMounts(
  gallery: Sight & Pick<Gallery, 'layout' | 'vmcompute'>,
  records: readonly MountRecord[],
): Promise<ObservedMount[]> {
  const mounts: ObservedMount[] = [];
  for (const record of records) {
    const state = await lookAtView(gallery, record);
    const hcsStorage = state.state === 'mounted' ? await hcsStorageOf(gallery, record) : undefined;
    mounts.push({ ...recordedView(record), ...state, ...(hcsStorage === undefined ? {} : { hcsStorage }) });
  }
  return mounts;
}

/** Everything under the root, and the volumes of it, that only a crash or a failure explains. */
export async function findLeftovers(
  store: Store & Pick<Gallery, 'scratches'>,
  running: Running,
): Promise<FoundLeftover[]> {
  const { layout, scratches } = store;
  const found: Omit<FoundLeftover, 'bytes'>[] = [];
  const committed = new Set<string>();
  for (const { layer } of await readLayerRecords(layout)) committed.add(layerFolder(layer));
  for (const { merge } of await readMergeRecords(layout))
    for (const top of merge.chain.slice(-1)) committed.add(mergeFolder(top));
  for (const name of await listDirectory(layout.snapshots)) {
    const { prefix, holds } = parseFolderName(name) ?? {};
    const folder = name.slice(prefix?.length ?? 0);
    if (prefix === undefined || running.folders.has(folder)) continue;
    const volumeGuid = lowerVolumeGuid(layout.root, folder);
    if (prefix === 'tmp-' && (await isMounted(volumeGuid)))
      found.push({
        path: volumePath(volumeGuid),
        reason: 'a volume that showed the layers below one that was unpacked',
        volumeGuid,
      });
    const path = join(layout.snapshots, name);
    if (prefix === 'rm-') found.push({ path, reason: 'a removal that was interrupted' });
    else if (prefix === 'tmp-')
      found.push({
        path,
        reason: holds === 'merge' ? 'a merge that was interrupted' : 'unpacked but never committed',
      });
    else if (!committed.has(folder))
      found.push({ path, reason: 'a snapshot folder without a readable record' });
  }
  found.push(...(await findForkedLeftovers(store, running)));
  for (const name of await listDirectory(layout.mounts))
    if (/^tmp-[0-9a-f-]{36}\.json$/.test(name) && !running.volumeGuids.has(name.slice(4, 40) as VolumeGuid))
      found.push({ path: join(layout.mounts, name), reason: 'a record that was never finished' });
  found.push(...(await snapshotLeftovers(layout, running.folders)));
  found.push(...(await exportLeftovers(layout, running.folders)));
  found.push(...(await viewScratchLeftovers(layout, running.volumeGuids)));
  found.push(...(await scratches.leftovers()));
  const sized = found.map(async (entry) => ({
    ...entry,
    bytes: entry.volumeGuid === undefined ? (await sizeUnder(entry.path)).bytes : 0,
  }));
  return Promise.all(sized);
}

/** Files of layers that are unpacked but not committed go with those, since nothing lists them then. */
async function findForkedLeftovers(
  store: Store,
  running: Running,
): Promise<{ path: string; reason: string }[]> {
  const { layout } = store;
  const isAtWork = [...running.folders].some((folder) => parseFolderName(folder)?.holds === 'ForkedCIM');
  if (isAtWork) return [];
  const committed = await listedFiles(store, { unpacked: false });
  return (await listDirectory(layout.cimLayers))
    .filter((name) => isForkedFile(name) && !committed.has(name))
    .map((name) => ({ path: join(layout.cimLayers, name), reason: 'a file of no committed layer' }));
}
