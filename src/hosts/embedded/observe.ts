/** Looking without touching: committed layers and their faults, mounts, paths, and what a crash left behind. */

import { lstat, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { classify, isErrorCode } from '../../errors.ts';
import { throwIfAborted } from '../abort.ts';
import { exists, listDirectory } from '../directories.ts';
import { findExportLeftovers } from '../exports.ts';
import type {
  ChainId,
  LayerFault,
  Leftover,
  MergeFault,
  ObservedLayer,
  ObservedMerge,
  ObservedMount,
  VolumeGuid,
} from '../host.ts';
import { snapshotGuid } from '../identity.ts';
import {
  isCimFileName,
  isLayerFile,
  isSpoolName,
  type Layout,
  layerFolder,
  mergeFolder,
  parseFolderName,
  parseViewName,
  snapshotPath,
} from '../layout.ts';
import { recordedView } from '../mount-records.ts';
import { sizeOf, Turns } from '../quick-look.ts';
import { type LayerRecord, type MergeRecord, type StoredFile, sourceIdentity } from '../records.ts';
import type { Running } from '../run-effect.ts';
import { parseSnapshotFolder, type SnapshotRecord } from '../snapshot-records.ts';
import { layerBuilder, MERGE_BUILDER } from './builders.ts';
import { damageFaults } from './damage.ts';
import type { MountInfoEntry } from './mount-info.ts';
import type { ViewRecord } from './own-mounts.ts';
import { mountStateOf } from './own-mounts.ts';
import { isPathLocked } from './path-lock.ts';
import { holdsScratch, isInUse, mountsBelow } from './scratch.ts';
import { layerSealFaults, mergeSealFaults } from './seal-faults.ts';

/** All that is recorded under a root. */
export interface Records {
  layers: readonly LayerRecord[];
  merges: readonly MergeRecord[];
  mounts: readonly ViewRecord[];
  snapshots: readonly SnapshotRecord[];
}

const OUTDATED: Pick<ObservedMount, 'state' | 'message'> = {
  state: 'missing',
  message: 'it still shows files from before a layer was built anew',
};

export async function observeLayers(
  layout: Layout,
  records: readonly LayerRecord[],
  signal: AbortSignal,
): Promise<ObservedLayer[]> {
  const known = new Set(records.map(({ layer }) => layerFolder(layer)));
  const layers: ObservedLayer[] = [];
  const turns = new Turns();
  for (const record of records) {
    await turns.take();
    throwIfAborted(signal, 'observe');
    const { parent, format } = record.layer;
    const faults = await layerFaults(layout, record);
    if (faults.length === 0) faults.push(...(await layerSealFaults(layout, record, signal)));
    if (parent !== undefined && !known.has(layerFolder({ chainId: parent, format })))
      faults.unshift({ code: 'parent-missing', message: `its parent ${parent} is not there` });
    layers.push({ ...record.layer, faults });
  }
  return layers;
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
    const faults = await mergeFaults(layout, record, sources);
    if (faults.every(({ code }) => code === 'source-missing'))
      faults.push(...(await mergeSealFaults(layout, topOf(record.merge.chain), record, signal)));
    observed.push({ ...record.merge, faults });
  }
  return observed;
}

/** Faults of one layer's own files, as far as they show without reading them. */
export async function layerFaults(layout: Layout, { layer, cimFiles }: LayerRecord): Promise<LayerFault[]> {
  const folder = snapshotPath(layout, layerFolder(layer));
  return [
    ...builderFaults(layer.builder, layerBuilder(layer.format)),
    ...fileFaults(layer.format === 'ForkedCIM' ? layout.cimLayers : folder, cimFiles),
    ...(await damageFaults(folder)),
  ];
}

/** Faults of a merged CIM's own file and of its layers; `sources` has the identities of the sound ones, by folder. */
export async function mergeFaults(
  layout: Layout,
  { merge: { chain, format, builder }, cimFiles, sources: recorded }: MergeRecord,
  sources: ReadonlyMap<string, string>,
): Promise<MergeFault[]> {
  const folder = snapshotPath(layout, mergeFolder(topOf(chain)));
  const faults: MergeFault[] = [
    ...builderFaults(builder, MERGE_BUILDER),
    ...fileFaults(folder, cimFiles),
    ...(await damageFaults(folder)),
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

function topOf(chain: readonly ChainId[]): ChainId {
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
    const path = join(folder, name);
    const actual = sizeOf(path);
    if (actual === undefined)
      faults.push({ code: 'file-missing' as const, message: `${name} is gone`, path });
    else if (actual !== size)
      faults.push({
        code: 'file-size' as const,
        message: `${name} has ${actual} bytes instead of ${size}`,
        path,
      });
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

/** Everything under the root that only a crash or a failure explains. Files this host never makes are not listed. */
export async function findLeftovers(
  layout: Layout,
  { layers, merges, mounts, snapshots }: Records,
  running: Running,
): Promise<Leftover[]> {
  const committed = new Set([
    ...layers.map(({ layer }) => layerFolder(layer)),
    ...merges.map(({ merge }) => mergeFolder(topOf(merge.chain))),
  ]);
  const shown = new Set(mounts.map(({ source }) => source));
  const recorded = new Set<string>(mounts.map(({ request }) => request.volumeGuid));
  for (const guid of running.volumeGuids) recorded.add(guid);

  const found: { path: string; reason: string; bytes?: number }[] = [];
  found.push(...(await findSnapshotLeftovers(layout, snapshots, running)));
  for (const name of await listDirectory(layout.snapshots)) {
    const { prefix, holds } = parseFolderName(name) ?? {};
    const folder = name.slice(prefix?.length ?? 0);
    if (prefix === undefined || running.folders.has(folder)) continue;
    const path = join(layout.snapshots, name);
    if (prefix === 'tmp-')
      found.push({
        path,
        reason: holds === 'merge' ? 'a merge that was interrupted' : 'unpacked but never committed',
      });
    else if (prefix === 'rm-') found.push({ path, reason: 'a removal that was interrupted' });
    else if (!committed.has(folder))
      found.push({ path, reason: 'a snapshot folder without a readable record' });
  }
  found.push(...(await findForkedLeftovers(layout, layers, running)));
  for (const name of await listDirectory(layout.views)) {
    const path = join(layout.views, name);
    const view = parseViewName(name);
    if (view === undefined || running.folders.has(view.folder) || shown.has(path)) continue;
    if (view.isTemporary) {
      // Another process may be making it.
      if (!(await isPathLocked(snapshotPath(layout, view.folder))))
        found.push({ path, reason: 'a view that was never finished' });
    } else if (!committed.has(view.folder)) found.push({ path, reason: 'a view of no committed layer' });
  }
  for (const name of await listDirectory(layout.extracted)) {
    const guid = /^(?:tmp-|rm-)?([0-9a-f-]{36})$/.exec(name)?.[1];
    if (guid === undefined || running.volumeGuids.has(guid as VolumeGuid)) continue;
    const path = join(layout.extracted, name);
    if (name !== guid) found.push({ path, reason: 'an extraction or removal that was interrupted' });
    else if (!recorded.has(guid)) found.push({ path, reason: 'an extracted view of no recorded mount' });
  }
  for (const name of await listDirectory(layout.mounts))
    if (/^tmp-[0-9a-f-]{36}\.json$/.test(name) && !running.volumeGuids.has(name.slice(4, 40) as VolumeGuid))
      found.push({ path: join(layout.mounts, name), reason: 'a record that was never finished' });
  found.push(...(await findExportLeftovers(layout, (folder) => running.folders.has(folder))));
  return Promise.all(
    found.map(async (entry) => ({ ...entry, bytes: entry.bytes ?? (await bytesUnder(entry.path)) })),
  );
}

/** What earlier versions made layers from: in the folder of a snapshot, and as large as that. */
const COMMIT_TARS = ['diff.tar', 'diff.tar.part'];

/** Of snapshots by key. */
async function findSnapshotLeftovers(
  layout: Layout,
  snapshots: readonly SnapshotRecord[],
  running: Running,
): Promise<{ path: string; reason: string; bytes?: number }[]> {
  const known = new Set(snapshots.map(({ request }) => snapshotGuid(request.key)));
  const found = [];
  for (const name of await listDirectory(layout.snapshots)) {
    const { prefix, folder } = parseSnapshotFolder(name) ?? {};
    if (folder === undefined || running.folders.has(folder)) continue;
    const path = join(layout.snapshots, name);
    if (prefix === 'tmp-') found.push({ path, reason: 'a snapshot that was never finished' });
    else if (prefix === 'rm-') found.push({ path, reason: 'a removal that was interrupted' });
    else if (!known.has(folder)) {
      // With a scratch it may be the only copy of what was written: somebody has to look.
      if (!(await holdsScratch(path)))
        found.push({ path, reason: 'a snapshot folder without a readable record' });
    } else {
      for (const tar of COMMIT_TARS.map((file) => join(path, file)))
        if (await exists(tar)) found.push({ path: tar, reason: 'what a commit by an earlier version left' });
      const mounted = await mountsBelow(path);
      const record = snapshots.find(({ request }) => snapshotGuid(request.key) === folder);
      if (mounted.length === 0 || (record !== undefined && (await isInUse(layout, record)))) continue;
      for (const point of mounted)
        found.push({ path: point, reason: 'a mount that was interrupted', bytes: 0 });
    }
  }
  return found;
}

async function findForkedLeftovers(
  layout: Layout,
  layers: readonly LayerRecord[],
  running: Running,
): Promise<{ path: string; reason: string }[]> {
  const forked = layers.filter(({ layer }) => layer.format === 'ForkedCIM');
  const kept = new Set(forked.flatMap(({ cimFiles }) => cimFiles.map(({ name }) => name)));
  const inWork = [...running.folders].flatMap((folder) => {
    const { chainId, holds } = parseFolderName(folder) ?? {};
    return chainId !== undefined && holds === 'ForkedCIM' ? [chainId] : [];
  });
  const found = [];
  for (const name of await listDirectory(layout.cimLayers)) {
    if (!isCimFileName(name) || kept.has(name)) continue;
    if (inWork.some((chainId) => isLayerFile(name, chainId))) continue;
    if (inWork.length > 0 && isSpoolName(name)) continue;
    const reason = name.startsWith('tmp-')
      ? 'an unpack that was interrupted'
      : 'a file of no committed layer';
    found.push({ path: join(layout.cimLayers, name), reason });
  }
  return found;
}

/** 0 for what is gone: another process may be at work while this one only looks. */
async function bytesUnder(path: string): Promise<number> {
  try {
    const stats = await lstat(path);
    if (!stats.isDirectory()) return stats.size;
    let bytes = 0;
    for (const name of await readdir(path)) bytes += await bytesUnder(join(path, name));
    return bytes;
  } catch (error) {
    const classified = classify(error, `look at ${path}`);
    if (isErrorCode(classified, 'not-found')) return 0;
    throw classified;
  }
}
