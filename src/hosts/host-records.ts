/** All that is recorded under a root, or what is recorded of a few things, however many there are. */

import type { Focus, LayerFormat } from './host.ts';
import type { Layout } from './layout.ts';
import { type MountRecord, readMountRecord, readMountRecords } from './mount-records.ts';
import {
  type LayerRecord,
  type MergeRecord,
  readLayerRecord,
  readLayerRecords,
  readMergeRecord,
  readMergeRecords,
} from './records.ts';
import { readSnapshotRecord, readSnapshotRecords, type SnapshotRecord } from './snapshot-records.ts';

export interface HostRecords<M extends MountRecord = MountRecord> {
  layers: readonly LayerRecord[];
  merges: readonly MergeRecord[];
  mounts: readonly M[];
  snapshots: readonly SnapshotRecord[];
}

/** `formats`: those that the host writes. Without `focus` everything, whoever wrote it. */
export async function readRecords<M extends MountRecord>(
  layout: Layout,
  { focus, formats }: { focus?: Focus | undefined; formats: readonly LayerFormat[] },
): Promise<HostRecords<M>> {
  if (focus === undefined)
    return {
      layers: await readLayerRecords(layout),
      merges: await readMergeRecords(layout),
      mounts: await readMountRecords<M>(layout),
      snapshots: await readSnapshotRecords(layout),
    };
  const refs = focus.layers.flatMap((chainId) => formats.map((format) => ({ chainId, format })));
  return {
    layers: await readEach(refs, (ref) => readLayerRecord(layout, ref)),
    merges: await readEach(focus.layers, (chainId) => readMergeRecord(layout, chainId)),
    mounts: await readEach(focus.mounts, (guid) => readMountRecord<M>(layout, guid)),
    snapshots: await readEach(focus.snapshots, (key) => readSnapshotRecord(layout, key)),
  };
}

async function readEach<K, T>(keys: readonly K[], read: (key: K) => Promise<T | undefined>): Promise<T[]> {
  const found: T[] = [];
  for (const key of new Set(keys)) {
    const record = await read(key);
    if (record !== undefined) found.push(record);
  }
  return found;
}
