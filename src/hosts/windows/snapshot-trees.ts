/**
 * The files of a snapshot and those of the chain below it, both as volumes: shown for as long as they are looked at, unless a
 * mount shows them anyway.
 */

import { join } from 'node:path';
import { CimletError } from '../../errors.ts';
import { requireLayers } from '../chain-layers.ts';
import { removeTree } from '../directories.ts';
import type { EffectContext, SnapshotRequest } from '../host.ts';
import { snapshotGuid, snapshotVolumeGuid } from '../identity.ts';
import { snapshotPath } from '../layout.ts';
import { readMountRecords } from '../mount-records.ts';
import { holding, type Resource, together } from './acquire.ts';
import { LOWER_FILE } from './cim-paths.ts';
import { shownLayers } from './lower-layers.ts';
import type { Scratches } from './scratches.ts';
import { scratchFolder } from './snapshots.ts';
import { soundLayer } from './store.ts';
import { type Gallery, viewState } from './views.ts';
import { filesOf, isMounted } from './volumes.ts';

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
  const { layout, scratches, volumes } = gallery;
  const folder = await scratchFolder(layout, request);
  if (request.chain.length === 0) return use({ upper: `${folder}\\` });
  const mounted = await mountedTrees(gallery, request.key, folder);
  if (mounted !== undefined) return use(mounted);
  const operation = `look into snapshot ${request.key}`;
  const layers = await requireLayers(request, operation, (ref) => soundLayer(gallery, ref));
  const own = snapshotPath(layout, snapshotGuid(request.key));
  await leaveSnapshot(gallery, request);
  const guid = snapshotVolumeGuid(layout.root, snapshotGuid(request.key));
  try {
    const shown = await shownLayers(gallery, layers, own, context);
    const resources = together([volumes.resource(shown, guid), ...scratches.resources(folder, guid)]);
    return await holding(resources, async () => use(await treesOf(scratches, folder, guid, operation)));
  } finally {
    await removeTree(join(own, LOWER_FILE));
  }
}

/** Takes away what a run that died while it looked into a snapshot has mounted. Nothing is fine. */
export async function leaveSnapshot(
  { layout, scratches, volumes }: Pick<Gallery, 'layout' | 'scratches' | 'volumes'>,
  request: SnapshotRequest,
): Promise<void> {
  const guid = snapshotVolumeGuid(layout.root, snapshotGuid(request.key));
  if (!(await isMounted(guid))) return;
  const volume: Resource = {
    acquire: async () => undefined,
    release: () => volumes.dismount(guid),
  };
  const folder = await scratchFolder(layout, request);
  await together([volume, ...scratches.resources(folder, guid)]).release();
}

async function mountedTrees(
  gallery: Gallery,
  key: string,
  folder: string,
): Promise<SnapshotTrees | undefined> {
  for (const record of await readMountRecords(gallery.layout)) {
    if (record.request.snapshot !== key || (await viewState(gallery, record)).state !== 'mounted') continue;
    return treesOf(gallery.scratches, folder, record.request.volumeGuid, `look into snapshot ${key}`);
  }
  return undefined;
}

async function treesOf(
  scratches: Scratches,
  folder: string,
  volumeGuid: string,
  operation: string,
): Promise<SnapshotTrees> {
  const upper = await scratches.volumeOf(folder);
  if (upper === undefined)
    throw new CimletError('native', `${operation}: its scratch ${folder} has no volume`);
  return { upper, lower: `${filesOf(volumeGuid)}\\` };
}
