/** Looking without touching: committed layers, merged CIMs, their faults, and mounts. */

import { throwIfAborted } from '../abort.ts';
import type {
  ChainId,
  LayerFault,
  MergeFault,
  ObservedLayer,
  ObservedMerge,
  ObservedMount,
} from '../host.ts';
import { type Layout, layerFolder, mergeFolder, snapshotPath } from '../layout.ts';
import { recordedView } from '../mount-records.ts';
import { sizeOf, Turns } from '../quick-look.ts';
import { type LayerRecord, type MergeRecord, type StoredFile, sourceIdentity } from '../records.ts';
import { layerBuilder, MERGE_BUILDER } from './builders.ts';
import { damageFaults } from './damage.ts';
import type { MountInfoEntry } from './mount-info.ts';
import type { ViewRecord } from './own-mounts.ts';
import { mountStateOf } from './own-mounts.ts';
import { layerSealFaults, mergeSealFaults } from './seal-faults.ts';

const OUTDATED: Pick<ObservedMount, 'state' | 'message'> = {
  state: 'missing',
  message: 'it still shows files from before a layer was built anew',
};

/** A layer, and what looking at it takes that stays the same for as long as its record does. */
interface PlacedLayer {
  record: LayerRecord;
  folder: string;
  hasParent: boolean;
  /** What there is to say of it while it has no faults. */
  sound: ObservedLayer;
}

interface PlacedLayers {
  each: readonly PlacedLayer[];
  sound: readonly ObservedLayer[];
}

/** By the list of records, which is the same one until a record changes (src/hosts/records.ts). */
const placedBefore = new WeakMap<readonly LayerRecord[], PlacedLayers>();

function placeLayers(layout: Layout, records: readonly LayerRecord[]): PlacedLayers {
  const before = placedBefore.get(records);
  if (before !== undefined) return before;
  const known = new Set(records.map(({ layer }) => layerFolder(layer)));
  const each = records.map((record): PlacedLayer => {
    const { layer } = record;
    const { parent, format } = layer;
    return {
      record,
      folder: snapshotPath(layout, layerFolder(layer)),
      hasParent: parent === undefined || known.has(layerFolder({ chainId: parent, format })),
      sound: { ...layer, faults: [] },
    };
  });
  const placed = { each, sound: each.map(({ sound }) => sound) };
  placedBefore.set(records, placed);
  return placed;
}

export async function observeLayers(
  layout: Layout,
  records: readonly LayerRecord[],
  signal: AbortSignal,
): Promise<readonly ObservedLayer[]> {
  const placed = placeLayers(layout, records);
  const layers: ObservedLayer[] = [];
  let areSound = true;
  const turns = new Turns();
  for (const { record, folder, hasParent, sound } of placed.each) {
    if (turns.isOver) {
      await turns.giveWay();
      throwIfAborted(signal, 'observe');
    }
    const { layer } = record;
    const faults = ownFaults(layout, folder, record);
    if (faults.length === 0 && layer.rootHash !== undefined)
      faults.push(...(await layerSealFaults(layout, record, signal)));
    if (!hasParent)
      faults.unshift({ code: 'parent-missing', message: `its parent ${layer.parent} is not there` });
    areSound &&= faults.length === 0;
    layers.push(faults.length === 0 ? sound : { ...layer, faults });
  }
  return areSound ? placed.sound : layers;
}

/** `records` and `layers`, which was made of them, say what the layers of the merged CIMs are now. */
export async function observeMerges(
  layout: Layout,
  merges: readonly MergeRecord[],
  records: readonly LayerRecord[],
  layers: readonly ObservedLayer[],
  signal: AbortSignal,
): Promise<ObservedMerge[]> {
  const sources = new Map<string, string>();
  for (const [index, record] of records.entries())
    if (layers[index]?.faults.every(({ code }) => code === 'parent-missing') === true)
      sources.set(layerFolder(record.layer), sourceIdentity(record));
  const observed: ObservedMerge[] = [];
  for (const record of merges) {
    throwIfAborted(signal, 'observe');
    const faults = mergeFaults(layout, record, sources);
    if (faults.every(({ code }) => code === 'source-missing'))
      faults.push(...(await mergeSealFaults(layout, topOf(record.merge.chain), record, signal)));
    observed.push({ ...record.merge, faults });
  }
  return observed;
}

/** Faults of one layer's own files, as far as they show without reading them. */
export function layerFaults(layout: Layout, record: LayerRecord): LayerFault[] {
  return ownFaults(layout, snapshotPath(layout, layerFolder(record.layer)), record);
}

function ownFaults(layout: Layout, folder: string, { layer, cimFiles }: LayerRecord): LayerFault[] {
  return [
    ...builderFaults(layer.builder, layerBuilder(layer.format)),
    ...fileFaults(layer.format === 'ForkedCIM' ? layout.cimLayers : folder, cimFiles),
    ...damageFaults(folder),
  ];
}

/** Faults of a merged CIM's own file and of its layers; `sources` has the identities of the sound ones, by folder. */
export function mergeFaults(
  layout: Layout,
  { merge: { chain, format, builder }, cimFiles, sources: recorded }: MergeRecord,
  sources: ReadonlyMap<string, string>,
): MergeFault[] {
  const folder = snapshotPath(layout, mergeFolder(topOf(chain)));
  const faults: MergeFault[] = [
    ...builderFaults(builder, MERGE_BUILDER),
    ...fileFaults(folder, cimFiles),
    ...damageFaults(folder),
  ];
  for (const [index, chainId] of chain.entries()) {
    const identity = sources.get(layerFolder({ chainId, format }));
    if (identity === undefined)
      faults.push({ code: 'source-missing', message: `its layer ${chainId} is gone or damaged` });
    else if (identity !== recorded[index])
      faults.push({ code: 'source-changed', message: `its layer ${chainId} was built again otherwise` });
  }
  return faults;
}

export function topOf(chain: readonly ChainId[]): ChainId {
  const top = chain.at(-1);
  if (top === undefined) throw new Error('a merged CIM of no layers');
  return top;
}

function builderFaults(actual: string, wanted: string): { code: 'builder-changed'; message: string }[] {
  if (actual === wanted) return [];
  return [{ code: 'builder-changed', message: `it was written by ${actual}, this is ${wanted}` }];
}

function fileFaults(
  folder: string,
  files: readonly StoredFile[],
): { code: 'file-missing' | 'file-size'; message: string; path: string }[] {
  const faults = [];
  for (const { name, size } of files) {
    // Not join, which costs as much as the look itself.
    const path = `${folder}/${name}`;
    const actual = sizeOf(path);
    if (actual === size) continue;
    faults.push(
      actual === undefined
        ? { code: 'file-missing' as const, message: `${name} is gone`, path }
        : { code: 'file-size' as const, message: `${name} has ${actual} bytes instead of ${size}`, path },
    );
  }
  return faults;
}

export async function observeMounts(
  records: readonly ViewRecord[],
  table: readonly MountInfoEntry[],
): Promise<ObservedMount[]> {
  const mounts: ObservedMount[] = [];
  for (const record of records) {
    const state = await mountStateOf(record, table);
    const isOutdated = record.stale === true && state.state === 'mounted';
    mounts.push({ ...recordedView(record), ...(isOutdated ? OUTDATED : state) });
  }
  return mounts;
}
