/** What of a root running compute systems use: seen by observation, and kept from change. */

import { join, resolve } from 'node:path';
import type { ComputeCore } from '../../native/windows/computecore.ts';
import { volumePath } from '../../native/windows/guid.ts';
import type { ChainId, HostState, LayerRef } from '../host.ts';
import type { HostRecords } from '../host-records.ts';
import { type Layout, layerFolder, mergeFolder, snapshotPath } from '../layout.ts';
import { readLayerRecord } from '../records.ts';
import { type Places, seeComputeSystems, usersOf } from './compute-systems.ts';
import { scratchFolder } from './snapshot-scratch.ts';
import { shownAs, type ViewRecord } from './view-state.ts';

/** What they use of what is recorded, by what HCS says of them, which isn't all: see compute-systems.ts. */
export async function observeComputeSystems(
  computecore: ComputeCore,
  layout: Layout,
  records: HostRecords,
  signal: AbortSignal,
): Promise<NonNullable<HostState['computeSystems']>> {
  const seen = await seeComputeSystems(computecore, signal);
  const isAnyone = seen.systems.length > 0;
  const layers: Placed<LayerRef>[] = [];
  for (const { layer } of isAnyone ? records.layers : []) {
    const ref = { chainId: layer.chainId, format: layer.format };
    layers.push({ of: ref, places: await placesOfLayer(layout, ref) });
  }
  const snapshots: Placed<string>[] = [];
  for (const { request } of isAnyone ? records.snapshots : [])
    if (request.scratch?.shareWith === undefined)
      snapshots.push({ of: request.key, places: [await scratchFolder(layout, request)] });
  const mounted = records.mounts.map((record) => ({
    of: record.request.volumeGuid,
    places: placesOfMount(record),
  }));
  const running = seen.systems.map(({ paths, runtimeId: _, ...system }) => {
    const used = <T>(things: readonly Placed<T>[]) =>
      things.filter(({ places }) => usersOf([{ paths }], places).length > 0).map(({ of }) => of);
    return {
      ...system,
      uses: { layers: used(layers), mounts: used(mounted), snapshots: used(snapshots) },
    };
  });
  return { running, ...(seen.unknown === undefined ? {} : { unknown: seen.unknown }) };
}

interface Placed<T> {
  of: T;
  places: Places;
}

/** A layer's folder, the merged CIM's on it, and a forked layer's files. */
export async function placesOfLayer(layout: Layout, ref: LayerRef): Promise<Places> {
  const folder = snapshotPath(layout, layerFolder(ref));
  if (ref.format === 'BlockCIM') return [folder, ...placesOfMerge(layout, ref.chainId)];
  if (ref.format !== 'ForkedCIM') return [folder];
  const record = await readLayerRecord(layout, ref);
  return [folder, ...(record?.cimFiles.map(({ name }) => join(layout.cimLayers, name)) ?? [])];
}

export function placesOfMerge(layout: Layout, top: ChainId): Places {
  return [snapshotPath(layout, mergeFolder(top))];
}

/** Where it is shown, its volume, and the folder of the scratch that takes its writes. */
export function placesOfMount(record: ViewRecord): Places {
  const { request, scratch } = record;
  const places = [volumePath(shownAs(record)), ...(scratch === undefined ? [] : [scratch])];
  return request.utilityVM === undefined ? [resolve(request.path), ...places] : places;
}
