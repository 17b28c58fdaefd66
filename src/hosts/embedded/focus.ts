/** The records of a few things, however many there are. */

import type { Focus, LayerFormat } from '../host.ts';
import type { Layout } from '../layout.ts';
import { readMountRecord } from '../mount-records.ts';
import { readLayerRecord, readMergeRecord } from '../records.ts';
import { readSnapshotRecord } from '../snapshot-records.ts';
import type { Records } from './observe.ts';
import type { ViewRecord } from './own-mounts.ts';

/** That this host writes. */
const FORMATS: readonly LayerFormat[] = ['ForkedCIM', 'BlockCIM', 'LCOW'];

export async function readRecordsOf(layout: Layout, focus: Focus): Promise<Records> {
  const refs = focus.layers.flatMap((chainId) => FORMATS.map((format) => ({ chainId, format })));
  return {
    layers: await readEach(refs, (ref) => readLayerRecord(layout, ref)),
    merges: await readEach(focus.layers, (chainId) => readMergeRecord(layout, chainId)),
    mounts: await readEach(focus.mounts, (guid) => readMountRecord<ViewRecord>(layout, guid)),
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
