/**
 * Views. Read-only: a CIM mounted as a volume, whose `Files` the bind filter shows at a path. Writable: that volume under
 * the volume of a snapshot's scratch, which is mounted at the path; of a snapshot without parents, its `Files` through the
 * bind filter. WCIFS layers Windows shows under a scratch itself; a read-only view has one of its own, shown by the bind
 * filter. What a view is made of is taken in this order and given back in reverse; the volume's GUID and the record say
 * what a dead process took.
 */

import { join, resolve } from 'node:path';
import { CimletError } from '../../errors.ts';
import { BindFlag } from '../../native/windows/bindfltapi.ts';
import { volumePath } from '../../native/windows/guid.ts';
import type { Kernel32 } from '../../native/windows/kernel32.ts';
import { ensureDirectory, missingDirectories, removeEmptyDirectories } from '../directories.ts';
import type { EffectContext, MountedView, MountRequest, SnapshotRequest } from '../host.ts';
import { shownVolumeGuid } from '../identity.ts';
import {
  changeMountRecord,
  type MountRecord,
  readMountRecord,
  readMountRecords,
  recordedView,
  removeMountRecord,
  writeMountRecord,
} from '../mount-records.ts';
import { isSameView, viewOf } from '../mounted-view.ts';
import { readSnapshotRecord } from '../snapshot-records.ts';
import { writableSnapshot } from '../snapshot-request.ts';
import { acquireAll, type Resource, releaseAll } from './acquire.ts';
import { freeScratch, refuseOpen } from './attached-scratch.ts';
import { refuseInUse } from './compute-systems.ts';
import { placesOfMount } from './in-use.ts';
import { foldPath, isWithin } from './mount-paths.ts';
import { DISK } from './scratches.ts';
import { requireChain, requireWcifsChain } from './shown-chain.ts';
import { scratchFolder, scratchPlaces } from './snapshot-scratch.ts';
import {
  isThereAnything,
  pathStateOf,
  type Sight,
  shownAs,
  showsImage,
  sourceOf,
  UNCOVER,
  type ViewRecord,
  viewState,
} from './view-state.ts';
import type { VmView } from './vm-plan.ts';
import { attachView } from './vm-views.ts';
import { identityOf, isMounted, type ShownImage } from './volumes.ts';
import { topmostFirst } from './wcifs-paths.ts';
import { scratchOver, viewScratch, viewScratchPath } from './wcifs-scratch.ts';
import type { Workshop } from './workshop.ts';

/** What showing views takes. */
export type Gallery = Workshop & Sight;

/** The caller holds the volume GUID's lock and has checked capabilities and path. */
export async function showView(
  gallery: Gallery,
  request: MountRequest,
  context: EffectContext,
): Promise<MountedView> {
  const { layout } = gallery;
  const { utilityVM } = request;
  if (utilityVM !== undefined) {
    const scratch = request.access === 'ReadWrite' ? await requireDisk(gallery, request) : undefined;
    return attachView(gallery, { ...request, utilityVM }, scratch);
  }
  const operation = `mount ${request.path}`;
  const view = viewOf(request);
  const own: ViewRecord | undefined = await readMountRecord(layout, request.volumeGuid);
  const isThere = own !== undefined && (await isShown(gallery, own, operation));
  if (isThere && !isSameView(recordedView(own), view)) throw showsOther(own, operation);
  const isExpected = request.expectedRootHash === undefined || request.expectedRootHash === own?.rootHash;
  if (isThere && isExpected) return recordedView(own);
  const scratch = await scratchFor(gallery, request);
  const shown = await requireShown(gallery, request, operation);
  if (isThere) throw showsOther(own, operation);
  const isAgain = own !== undefined && isSameView(recordedView(own), view);
  const written = request.access === 'ReadWrite' ? scratch : undefined;
  await clearWay(gallery, { own, isAgain, written }, operation, context);
  await requireFreePlace(gallery, request, operation);
  const record: ViewRecord = {
    formatVersion: 1,
    request: { ...request, chain: [...request.chain] },
    created: await missingDirectories(resolve(request.path)),
    ...(shown?.rootHash === undefined ? {} : { rootHash: shown.rootHash }),
    ...(scratch === undefined ? {} : { scratch }),
    volume: shownVolumeGuid(layout.root, request.volumeGuid),
  };
  await requireFreeVolume(record, operation);
  await writeMountRecord(layout, record);
  try {
    await acquireAll(resourcesOf(gallery, record, shown));
  } catch (error) {
    // Where not all could be given back, the record is what tells of it; the volume is what goes last.
    if (!isAgain && !(await isThereAnything(gallery, record))) await forget(gallery, record);
    throw error;
  }
  return recordedView(record);
}

/**
 * Takes away what is left of a view that is no longer whole, and detaches the scratch that is to take the writes. Throws `busy`
 * while somebody may be using either.
 */
async function clearWay(
  gallery: Gallery,
  left: { own: ViewRecord | undefined; isAgain: boolean; written: string | undefined },
  operation: string,
  context: EffectContext,
): Promise<void> {
  const { own, isAgain, written } = left;
  const used = [
    ...(own === undefined ? [] : placesOfMount(own)),
    ...(written === undefined ? [] : [written]),
  ];
  if (used.length > 0) await refuseInUse(gallery.computecore, used, operation, context);
  if (own?.scratch !== undefined) await refuseOpen(gallery, own.scratch, operation, context.signal);
  if (own !== undefined) await (isAgain ? hideView : takeAway)(gallery, own);
  if (written !== undefined) await freeScratch(gallery, written, operation, context);
}

/** Takes a view away with all that was made for it. Whatever is gone already is fine. */
export async function takeAway(gallery: Gallery, record: MountRecord): Promise<void> {
  await hideView(gallery, record);
  await forget(gallery, record);
}

/** Takes a view out of sight; its record stays, and what was written to it. */
export async function hideView(gallery: Gallery, record: MountRecord): Promise<void> {
  if (record.request.utilityVM !== undefined) return gallery.vms.detach(record);
  const { state, message } = await viewState(gallery, record);
  if (state === 'covered')
    throw new CimletError('busy', `dismount ${record.request.path}: ${message}`, { hint: UNCOVER });
  await releaseAll(resourcesOf(gallery, record, undefined));
}

async function forget({ layout }: Gallery, { request }: MountRecord): Promise<void> {
  await removeMountRecord(layout, request.volumeGuid);
}

/** What is needed of CIMs to show the chain; nothing for what Windows shows without. */
async function requireShown(
  gallery: Gallery,
  request: MountRequest,
  operation: string,
): Promise<ShownImage | undefined> {
  if (showsImage(request)) return requireChain(gallery, request, operation);
  if (request.chain.length > 0) await requireWcifsChain(gallery, request, operation);
  return undefined;
}

async function scratchFor(gallery: Gallery, request: MountRequest): Promise<string | undefined> {
  if (request.access === 'ReadWrite')
    return scratchFolder(gallery.layout, await requireWritable(gallery, request));
  return request.format === 'WCIFS' ? viewScratchPath(gallery.layout, request.volumeGuid) : undefined;
}

/** The disk of a VM that takes the writes, and the part of it that does. */
async function requireDisk(gallery: Gallery, request: MountRequest): Promise<VmView['scratch']> {
  const { layout } = gallery;
  const snapshot = await requireWritable(gallery, request);
  const { place } = await scratchPlaces(layout, snapshot);
  return { disk: join(await scratchFolder(layout, snapshot), DISK), place };
}

/** The snapshot that takes the writes. No other mount may have it. */
async function requireWritable({ layout }: Gallery, request: MountRequest): Promise<SnapshotRequest> {
  const { snapshot: key, path, volumeGuid } = request;
  const known = key === undefined ? undefined : await readSnapshotRecord(layout, key);
  const snapshot = writableSnapshot(request, known?.request);
  const refuse = (why: string, hint: string) =>
    new CimletError('failed-precondition', `mount ${path}: snapshot ${snapshot.key} ${why}`, { hint });
  // A Linux guest makes a file system where there is none.
  const isMade = request.utilityVM !== undefined && request.format === 'LCOW';
  if (snapshot.scratch?.unformatted === true && !isMade)
    throw refuse('has a scratch without a file system', 'leave unformatted out');
  for (const { request: other } of await readMountRecords(layout))
    if (other.snapshot === key && other.volumeGuid !== volumeGuid)
      throw refuse(`is mounted at ${other.path}`, 'prepare another on the same chain');
  return snapshot;
}

/** Throws `already-exists` for a view that is covered: shown again it would be hidden again. */
async function isShown(gallery: Gallery, own: ViewRecord, operation: string): Promise<boolean> {
  const { state, message } = await viewState(gallery, own);
  if (state === 'covered')
    throw new CimletError('already-exists', `${operation}: ${message}`, { hint: UNCOVER });
  return state === 'mounted';
}

/** `shown` is needed to take them only. */
function resourcesOf(gallery: Gallery, record: ViewRecord, shown: ShownImage | undefined): Resource[] {
  const { path, chain, access } = record.request;
  const guid = shownAs(record);
  const { volumes, scratches, vmcompute, layout } = gallery;
  const volume: Resource = {
    acquire: async () => {
      if (shown === undefined) throw new Error(`mount ${path}: nothing to show`);
      await volumes.mount(shown, guid);
    },
    release: () => volumes.dismount(guid),
  };
  const directories: Resource = {
    acquire: () => ensureDirectory(resolve(path)),
    release: () => removeDirectories(gallery, record),
  };
  if (chain.length === 0) return [directories, binding(gallery, record)];
  if (record.scratch === undefined) return [volume, directories, binding(gallery, record)];
  if (record.request.format === 'WCIFS') {
    const parents = topmostFirst(layout, chain);
    return access === 'ReadOnly'
      ? [viewScratch(vmcompute, record.scratch, parents), directories, binding(gallery, record)]
      : [scratchOver(vmcompute, record.scratch, parents), directories, mountPoint(gallery, record)];
  }
  const written = scratches.resources(record.scratch, guid);
  return [volume, ...written, directories, mountPoint(gallery, record)];
}

function binding(gallery: Gallery, record: ViewRecord): Resource {
  const { bindFilter } = gallery;
  const place = resolve(record.request.path);
  const flags = BindFlag.noMultipleTargets | (record.request.access === 'ReadOnly' ? BindFlag.readOnly : 0);
  return {
    acquire: async () => {
      const source = await sourceOf(gallery, record);
      if (source === undefined) throw new Error(`mount ${place}: nothing to show`);
      await bindFilter.setupFilter(place, source.endsWith('\\') ? source : `${source}\\`, flags);
    },
    // Where nothing of ours is shown, Windows has nothing to end, whatever it says then.
    release: async () => {
      const isBound = (await viewState(gallery, record)).state === 'mounted';
      try {
        await bindFilter.removeMapping(place);
      } catch (error) {
        if (isBound || !(error instanceof CimletError)) throw error;
      }
    },
  };
}

/** Mount points outlast a restart of Windows, when there is no volume any more at their end. */
function mountPoint(gallery: Gallery, record: ViewRecord): Resource {
  const { kernel32 } = gallery;
  const { request } = record;
  const place = resolve(request.path);
  return {
    acquire: async () => {
      const volume = await sourceOf(gallery, record);
      if (volume === undefined) throw new Error(`mount ${request.path}: its scratch is not active`);
      await kernel32.setVolumeMountPoint(place, volume);
    },
    // Only Windows knows mount points from directories; what isn't one it refuses to delete as such.
    release: async () => {
      const ours = await sourceOf(gallery, record);
      const there = await volumeAt(kernel32, place);
      const isOurs = there !== undefined && there.toLowerCase() === ours?.toLowerCase();
      if (!isOurs && there !== undefined && (await identityOf(there)) !== undefined) return;
      try {
        await kernel32.deleteVolumeMountPoint(place);
      } catch (error) {
        if (isOurs || !(error instanceof CimletError)) throw error;
      }
    },
  };
}

/** Undefined where no volume is mounted. */
async function volumeAt(kernel32: Kernel32, place: string): Promise<string | undefined> {
  try {
    return await kernel32.volumeAt(place);
  } catch (error) {
    if (error instanceof CimletError) return undefined;
    throw error;
  }
}

/** Directories of ours that other mounts of ours still need are theirs to remove from now on. */
async function removeDirectories({ layout }: Gallery, { request, created }: MountRecord): Promise<void> {
  const staying = await removeEmptyDirectories(created);
  if (staying.length === 0) return;
  for (const { request: other } of await readMountRecords(layout)) {
    if (other.volumeGuid === request.volumeGuid) continue;
    await changeMountRecord(layout, other.volumeGuid, (heir) => {
      const place = foldPath(heir.request.path);
      const inherited = staying.filter((directory) => isWithin(place, foldPath(directory)));
      const all = [...new Set([...inherited, ...heir.created])];
      return all.length > heir.created.length ? { ...heir, created: all } : undefined;
    });
  }
}

async function requireFreePlace(gallery: Gallery, request: MountRequest, operation: string): Promise<void> {
  const records = await readMountRecords(gallery.layout);
  const { kind, detail } = await pathStateOf(gallery, request.path, records);
  if (kind === 'absent' || kind === 'empty-directory') return;
  if (kind === 'unreadable') throw new CimletError('access-denied', `${operation}: ${detail ?? kind}`);
  throw new CimletError('already-exists', `${operation}: there is ${detail ?? kind} already`, {
    hint: 'move it away, or mount elsewhere',
  });
}

/** What was mounted there already isn't ours to take away, whatever fails. */
async function requireFreeVolume(record: ViewRecord, operation: string): Promise<void> {
  const guid = shownAs(record);
  if (!showsImage(record.request) || !(await isMounted(guid))) return;
  throw new CimletError(
    'already-exists',
    `${operation}: volume ${volumePath(guid)} is mounted already, and no record of this root tells what for`,
    { hint: 'restart Windows, which ends such volumes, or name the Mount otherwise' },
  );
}

function showsOther({ request, rootHash }: MountRecord, operation: string): CimletError {
  const hash = rootHash === undefined ? '' : ` with root hash ${rootHash}`;
  return new CimletError(
    'failed-precondition',
    `${operation}: ${request.volumeGuid} already shows ${request.chain.at(-1)}${hash} at ${request.path}`,
    { hint: 'dismount it first' },
  );
}
