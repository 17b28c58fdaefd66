/** What a crash or a failure left behind under the root, found without touching it. */

import { lstat, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { classify, isErrorCode } from '../../errors.ts';
import { exists, listDirectory } from '../directories.ts';
import { findExportLeftovers } from '../exports.ts';
import type { Leftover, VolumeGuid } from '../host.ts';
import type { HostRecords } from '../host-records.ts';
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
import { type Stamp, stampOf } from '../quick-look.ts';
import type { LayerRecord } from '../records.ts';
import type { Running } from '../run-effect.ts';
import { parseSnapshotFolder, type SnapshotRecord } from '../snapshot-records.ts';
import { topOf } from './observe.ts';
import type { ViewRecord } from './own-mounts.ts';
import { isPathLocked } from './path-lock.ts';
import { holdsScratch, isInUse, mountsBelow } from './scratch.ts';

/** Everything under the root that only a crash or a failure explains. Files this host never makes are not listed. */
export async function findLeftovers(
  layout: Layout,
  { layers, merges, mounts, snapshots }: HostRecords<ViewRecord>,
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
  const folders = await listDirectory(layout.snapshots);
  for (const name of folders) {
    // What most are.
    if (committed.has(name)) continue;
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
    else found.push({ path, reason: 'a snapshot folder without a readable record' });
  }
  found.push(...(await findSnapshotLeftovers(layout, folders, snapshots, running)));
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
  folders: readonly string[],
  snapshots: readonly SnapshotRecord[],
  running: Running,
): Promise<{ path: string; reason: string; bytes?: number }[]> {
  const known = new Set(snapshots.map(({ request }) => snapshotGuid(request.key)));
  const found = [];
  for (const name of folders) {
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
  const inWork = [...running.folders].flatMap((folder) => {
    const { chainId, holds } = parseFolderName(folder) ?? {};
    return chainId !== undefined && holds === 'ForkedCIM' ? [chainId] : [];
  });
  const found = [];
  for (const name of await listStrays(layout, layers)) {
    if (inWork.some((chainId) => isLayerFile(name, chainId))) continue;
    if (inWork.length > 0 && isSpoolName(name)) continue;
    const reason = name.startsWith('tmp-')
      ? 'an unpack that was interrupted'
      : 'a file of no committed layer';
    found.push({ path: join(layout.cimLayers, name), reason });
  }
  return found;
}

/** Milliseconds after which a name that comes or goes surely gives its directory another time. */
const SETTLED_MS = 3000;

/** What was found in cim-layers, and of what. */
interface Listing {
  stamp: Stamp;
  layers: readonly LayerRecord[];
  strays: readonly string[];
}

const listedBefore = new WeakMap<Layout, Listing>();

/** This host's files in cim-layers that are of none of these layers. Thousands of names are only listed after one came or went. */
async function listStrays(layout: Layout, layers: readonly LayerRecord[]): Promise<readonly string[]> {
  const before = listedBefore.get(layout);
  const stamp = stampOf(layout.cimLayers, before?.stamp);
  if (before !== undefined && before.stamp === stamp && before.layers === layers) return before.strays;
  listedBefore.delete(layout);
  const lookedAt = Date.now();
  const forked = layers.filter(({ layer }) => layer.format === 'ForkedCIM');
  const kept = new Set(forked.flatMap(({ cimFiles }) => cimFiles.map(({ name }) => name)));
  const names = await listDirectory(layout.cimLayers);
  const strays = names.filter((name) => isCimFileName(name) && !kept.has(name));
  if (stamp !== undefined && lookedAt - stamp[2] > SETTLED_MS)
    listedBefore.set(layout, { stamp, layers, strays });
  return strays;
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
