/**
 * The files of a snapshot and those of the chain below it, both as volumes: shown for as long as they are looked at, unless a
 * mount shows them anyway.
 */

import { join } from 'node:path';
import { CimletError } from '../../errors.ts';
import { requireLayers } from '../chain-layers.ts';
import { exists, removeTree } from '../directories.ts';
import type { EffectContext, SnapshotRequest, VolumeGuid } from '../host.ts';
import { snapshotGuid, snapshotVolumeGuid } from '../identity.ts';
import { type Layout, snapshotPath } from '../layout.ts';
import { readMountRecords } from '../mount-records.ts';
import { afterFailure, holding, type Resource, together } from './acquire.ts';
import { freeScratch, refuseOpen } from './attached-scratch.ts';
import { LOWER_FILE } from './cim-paths.ts';
import { shownLayers } from './lower-layers.ts';
import { scratchVolume } from './scratches.ts';
import { requireWcifsChain } from './shown-chain.ts';
import { scratchFolder } from './snapshot-scratch.ts';
import { BELOW_FOLDER } from './snapshots.ts';
import { soundLayer } from './store.ts';
import { shownAs, UNCOVER, viewState } from './view-state.ts';
import type { Gallery } from './views.ts';
import { filesOf, isMounted } from './volumes.ts';
import { topmostFirst } from './wcifs-paths.ts';
import { scratchOver, viewScratch } from './wcifs-scratch.ts';

/** Paths that end in a backslash. */
export interface SnapshotTrees {
  upper: string;
  /** Undefined for a snapshot without parents. */
  lower?: string | undefined;
}

/** Runs `use` with the trees. Throws `failed-precondition` when a layer below isn't sound. */
export async function withSnapshotTrees<T>(
  gallery: Gallery,
  request: SnapshotRequest,
  context: EffectContext,
  use: (trees: SnapshotTrees) => Promise<T>,
): Promise<T> {
  const folder = await scratchFolder(gallery.layout, request);
  if (request.chain.length === 0) return use({ upper: `${folder}\\` });
  await leaveSnapshot(gallery, request, context.signal);
  try {
    return await withShownTrees(gallery, request, folder, context, use);
  } catch (error) {
    // What could not be given back may be given back now.
    throw await afterFailure(error, () => leaveSnapshot(gallery, request));
  }
}

async function withShownTrees<T>(
  gallery: Gallery,
  request: SnapshotRequest,
  folder: string,
  context: EffectContext,
  use: (trees: SnapshotTrees) => Promise<T>,
): Promise<T> {
  const { layout, scratches } = gallery;
  const mounted = await mountOf(gallery, request.key);
  const operation = `look into snapshot ${request.key}`;
  if (mounted === undefined) await freeScratch(gallery, folder, operation, context);
  const upper = async () => volumeFor(await scratches.volumeOf(folder), folder, operation);
  if (request.format === 'WCIFS') {
    await requireWcifsChain(gallery, request, operation);
    const { over, below, belowPath } = wcifsResources(gallery, request, folder);
    const resources = mounted === undefined ? [below, over] : [below];
    return holding(together(resources), async () => {
      const lower = await scratchVolume(gallery.vmcompute, belowPath);
      return use({ upper: await upper(), lower: volumeFor(lower, belowPath, operation) });
    });
  }
  const guid = mounted ?? volumeOfSnapshot(layout, request);
  const lower = `${filesOf(guid)}\\`;
  if (mounted !== undefined) return use({ upper: await upper(), lower });
  const layers = await requireLayers(request, operation, (ref) => soundLayer(gallery, ref));
  const own = snapshotPath(layout, snapshotGuid(request.key));
  try {
    const shown = await shownLayers(gallery, layers, own, context);
    const resources = [gallery.volumes.resource(shown, guid), ...scratches.resources(folder, guid)];
    return await holding(together(resources), async () => use({ upper: await upper(), lower }));
  } finally {
    await removeTree(join(own, LOWER_FILE));
  }
}

/** Takes away what a run that died while it looked into a snapshot has mounted. Nothing is fine; a mount stays as it is. */
export async function leaveSnapshot(
  gallery: Gallery,
  request: SnapshotRequest,
  signal?: AbortSignal,
): Promise<void> {
  const { layout, scratches, volumes } = gallery;
  const folder = await scratchFolder(layout, request);
  const guid = volumeOfSnapshot(layout, request);
  const { over, below, belowPath } = wcifsResources(gallery, request, folder);
  const isLeft = request.format === 'WCIFS' ? await exists(belowPath) : await isMounted(guid);
  if (!isLeft) return;
  if ((await mountOf(gallery, request.key)) === undefined) {
    await refuseOpen(gallery, folder, `look into snapshot ${request.key}`, signal);
    await (request.format === 'WCIFS' ? over : together(scratches.resources(folder, guid))).release();
  }
  await (request.format === 'WCIFS' ? below.release() : volumes.dismount(guid));
}

/** Windows shows WCIFS layers under scratches only, so the chain below has one of its own meanwhile, in the snapshot's folder. */
function wcifsResources(
  { layout, vmcompute }: Pick<Gallery, 'layout' | 'vmcompute'>,
  request: SnapshotRequest,
  folder: string,
): { over: Resource; below: Resource; belowPath: string } {
  const parents = topmostFirst(layout, request.chain);
  const belowPath = join(snapshotPath(layout, snapshotGuid(request.key)), BELOW_FOLDER);
  return {
    over: scratchOver(vmcompute, folder, parents),
    below: viewScratch(vmcompute, belowPath, parents),
    belowPath,
  };
}

function volumeOfSnapshot({ root }: Layout, { key }: SnapshotRequest): VolumeGuid {
  return snapshotVolumeGuid(root, snapshotGuid(key));
}

/** The volume of the chain below a snapshot where that is mounted. Throws `busy` where that mount is covered. */
async function mountOf(gallery: Gallery, key: string): Promise<VolumeGuid | undefined> {
  for (const record of await readMountRecords(gallery.layout)) {
    if (record.request.snapshot !== key) continue;
    const { state, message } = await viewState(gallery, record);
    if (state === 'covered')
      throw new CimletError('busy', `look into snapshot ${key}: ${message}`, { hint: UNCOVER });
    if (state === 'mounted') return shownAs(record);
  }
  return undefined;
}

function volumeFor(volume: string | undefined, folder: string, operation: string): string {
  if (volume === undefined) throw new CimletError('native', `${operation}: scratch ${folder} has no volume`);
  return volume;
}
