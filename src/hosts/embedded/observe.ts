/** Looking without touching: committed layers and their faults, mounts, paths, and what a crash left behind. */

import { lstat, readdir, stat, statfs } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { CimletError, classify, isErrorCode } from '../../errors.ts';
import type { ChainId, LayerFault, Leftover, ObservedLayer, ObservedMount, VolumeGuid } from '../host.ts';
import { viewOf } from '../mounted-view.ts';
import { listDirectory } from './directories.ts';
import { isCimFileName, isLayerFile, type Layout, layerName } from './layout.ts';
import type { MountInfoEntry } from './mount-info.ts';
import { mountStateOf } from './own-mounts.ts';
import type { LayerRecord, MountRecord } from './records.ts';

/** What the host itself is doing right now, which therefore isn't left over. */
export interface Running {
  chainIds: ReadonlySet<ChainId>;
  volumeGuids: ReadonlySet<VolumeGuid>;
}

const OUTDATED: Pick<ObservedMount, 'state' | 'message'> = {
  state: 'missing',
  message: 'it still shows files from before a layer was built anew',
};

export async function observeLayers(
  layout: Layout,
  records: readonly LayerRecord[],
  builder: string,
  signal: AbortSignal,
): Promise<ObservedLayer[]> {
  const known = new Set(records.map(({ layer }) => layer.chainId));
  const layers: ObservedLayer[] = [];
  for (const record of records) {
    throwIfAborted(signal, 'observe');
    const { parent } = record.layer;
    const faults = await layerFaults(layout, record, builder);
    if (parent !== undefined && !known.has(parent))
      faults.unshift({ code: 'parent-missing', message: `its parent ${parent} is not there` });
    layers.push({ ...record.layer, faults });
  }
  return layers;
}

/** Faults of one layer's own files. */
export async function layerFaults(
  layout: Layout,
  record: LayerRecord,
  builder: string,
): Promise<LayerFault[]> {
  const faults: LayerFault[] = [];
  if (record.layer.builder !== builder)
    faults.push({
      code: 'builder-changed',
      message: `it was written by ${record.layer.builder}, this is ${builder}`,
    });
  for (const { name, size } of record.cimFiles) {
    const path = join(layout.cimLayers, name);
    const actual = await sizeOf(path);
    if (actual === undefined) faults.push({ code: 'file-missing', message: `${name} is gone`, path });
    else if (actual !== size)
      faults.push({ code: 'file-size', message: `${name} has ${actual} bytes instead of ${size}`, path });
  }
  return faults;
}

export async function observeMounts(
  records: readonly MountRecord[],
  table: readonly MountInfoEntry[],
): Promise<ObservedMount[]> {
  const mounts: ObservedMount[] = [];
  for (const record of records) {
    const state = await mountStateOf(record, table);
    const isOutdated = record.stale === true && state.state === 'mounted';
    mounts.push({ ...viewOf(record.request), ...(isOutdated ? OUTDATED : state) });
  }
  return mounts;
}

/** Everything under the root that only a crash or a failure explains. Files this host never makes are not listed. */
export async function findLeftovers(
  layout: Layout,
  layers: readonly LayerRecord[],
  mounts: readonly MountRecord[],
  running: Running,
): Promise<Leftover[]> {
  const committed = new Set(layers.map(({ layer }) => layerName(layer.chainId)));
  const inWork = new Set([...running.chainIds].map(layerName));
  const kept = new Set(layers.flatMap(({ cimFiles }) => cimFiles.map(({ name }) => name)));
  const shown = new Set(mounts.map(({ source }) => source));
  const recorded = new Set<string>(mounts.map(({ request }) => request.volumeGuid));
  for (const guid of running.volumeGuids) recorded.add(guid);

  const found: { path: string; reason: string }[] = [];
  for (const name of await listDirectory(layout.snapshots)) {
    const id = name.replace(/^(tmp|rm)-/, '');
    if (!/^[0-9a-f]{64,128}$/.test(id) || inWork.has(id)) continue;
    const path = join(layout.snapshots, name);
    if (name.startsWith('tmp-')) found.push({ path, reason: 'unpacked but never committed' });
    else if (name.startsWith('rm-')) found.push({ path, reason: 'a removal that was interrupted' });
    else if (!committed.has(id)) found.push({ path, reason: 'a snapshot folder without a readable record' });
  }
  for (const name of await listDirectory(layout.cimLayers)) {
    if (!isCimFileName(name) || kept.has(name)) continue;
    if ([...running.chainIds].some((chainId) => isLayerFile(name, chainId))) continue;
    const reason = name.startsWith('tmp-')
      ? 'an unpack that was interrupted'
      : 'a file of no committed layer';
    found.push({ path: join(layout.cimLayers, name), reason });
  }
  for (const name of await listDirectory(layout.views)) {
    const path = join(layout.views, name);
    const id = /^(?:tmp-)?([0-9a-f]{64,128})\.erofs$/.exec(name)?.[1];
    if (id === undefined || inWork.has(id) || shown.has(path)) continue;
    if (name.startsWith('tmp-')) found.push({ path, reason: 'a view that was never finished' });
    else if (!committed.has(id)) found.push({ path, reason: 'a view of no committed layer' });
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
  return Promise.all(found.map(async (entry) => ({ ...entry, bytes: await bytesUnder(entry.path) })));
}

/** Free bytes where `path` is or would be made; undefined where the file system doesn't say. */
export async function freeBytesAt(path: string): Promise<number | undefined> {
  for (let directory = path; ; directory = dirname(directory)) {
    try {
      const { bavail, bsize } = await statfs(directory);
      return bavail * bsize;
    } catch (error) {
      const classified = classify(error, `look at ${directory}`);
      if (!isErrorCode(classified, 'not-found', 'failed-precondition', 'access-denied')) throw classified;
      if (directory === dirname(directory)) return undefined;
    }
  }
}

export function throwIfAborted(signal: AbortSignal, operation: string): void {
  if (signal.aborted) throw new CimletError('cancelled', `${operation}: cancelled`, { cause: signal.reason });
}

async function sizeOf(path: string): Promise<number | undefined> {
  try {
    return (await stat(path)).size;
  } catch (error) {
    const classified = classify(error, `look at ${path}`);
    if (isErrorCode(classified, 'not-found')) return undefined;
    throw classified;
  }
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
