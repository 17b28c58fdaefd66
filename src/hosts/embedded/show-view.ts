/** Mounting a chain: what is there already, what has to be built, the record, then the mount itself. */

import { rename } from 'node:fs/promises';
import { openCim } from '../../cim/reader.ts';
import { CimletError, classify, describeError } from '../../errors.ts';
import { ensureDirectory, missingDirectories, removeTree, syncDirectory } from '../directories.ts';
import type { EffectContext, LayerFormat, LayerRef, MountedView, MountRequest } from '../host.ts';
import { extractedPath, type Layout, layerFolder, snapshotPath, viewPath } from '../layout.ts';
import { readMountRecord, readMountRecords, recordedView, writeMountRecord } from '../mount-records.ts';
import { isSameView, viewOf } from '../mounted-view.ts';
import { chooseDevices } from './cim-view.ts';
import type { ShownCim } from './jobs.ts';
import { mountDisks, requireDisks, type ShownDisks } from './layer-disks.ts';
import { readMountInfo } from './mount-info.ts';
import {
  linkExtractedView,
  mountKernelView,
  removeExtracted,
  removeOwnLink,
  takeAway,
  type ViewImage,
} from './mounting.ts';
import type { ViewRecord } from './own-mounts.ts';
import { mountStateOf, pathStateOf } from './own-mounts.ts';
import { withPathLock } from './path-lock.ts';
import type { EmbeddedFeatures } from './probe.ts';
import { runJob } from './run-job.ts';
import { type Lower, mountWritable, overlayName, requireWritable } from './show-writable.ts';
import { requireChain, type ShownChain } from './shown-chain.ts';
import { isViewImage, viewUuid } from './view-image.ts';

export interface ViewPlace {
  layout: Layout;
  features: EmbeddedFeatures;
  /** Runs an effect while no other works on that layer. */
  withLayer<T>(layer: LayerRef, effect: () => Promise<T>): Promise<T>;
}

/** The caller holds the volume GUID's lock and has checked capabilities and path. */
export async function showView(
  place: ViewPlace,
  request: MountRequest,
  context: EffectContext,
): Promise<MountedView> {
  const { layout, features } = place;
  const operation = `mount ${request.path}`;
  const view = viewOf(request);
  const own = await readMountRecord<ViewRecord>(layout, request.volumeGuid);
  const isThere = own !== undefined && (await isShown(own, view, operation));
  const isExpected = request.expectedRootHash === undefined || request.expectedRootHash === own?.rootHash;
  if (isThere && isExpected) return recordedView(own);
  const shown = await requireShown(layout, request, operation, context.signal);
  if (isThere)
    throw showsOther(
      own,
      `${view.chainId} with ${own.rootHash ?? 'no root hash'} at ${view.path}`,
      operation,
    );
  // Before anything is taken away: what can't be shown again stays.
  const snapshot = request.access === 'ReadOnly' ? undefined : await requireWritable(layout, request);
  const record = await planRecord(place, request, own, shown, operation);
  await requireFreePlace(layout, record, operation);
  const lower = await lowerOf(place, request, shown, context);
  try {
    await writeMountRecord(layout, record);
    if (snapshot !== undefined)
      await mountWritable(layout, record, snapshot, lower, features, context.signal);
    else if (lower !== undefined && 'disks' in lower) await mountDisks(layout, record, lower.disks);
    else if (lower !== undefined) await mountKernelView(layout, record, lower, features.canLoop);
    else if (shown !== undefined && 'cim' in shown) await extract(layout, record, shown, context);
  } catch (error) {
    await takeAway(layout, record).catch((undoing: unknown) => {
      context.warn?.(`${operation}: undoing it failed too: ${describeError(undoing)}`);
    });
    throw error;
  }
  return recordedView(record);
}

type Shown = ShownChain | ShownDisks;

/** Undefined for what has no layers. */
async function requireShown(
  layout: Layout,
  request: MountRequest,
  operation: string,
  signal: AbortSignal,
): Promise<Shown | undefined> {
  if (request.chain.length === 0) return undefined;
  if (request.format !== 'LCOW') return requireChain(layout, request, operation);
  if (request.view === 'Extracted')
    throw new CimletError('unsupported-host', `${operation}: Linux layers are not extracted`, {
      hint: 'use view: Kernel',
    });
  return requireDisks(layout, request, operation, signal);
}

/** What the kernel shows of it; undefined for what it doesn't. */
async function lowerOf(
  place: ViewPlace,
  request: MountRequest,
  shown: Shown | undefined,
  context: EffectContext,
): Promise<Lower | undefined> {
  if (shown === undefined || request.view === 'Extracted') return undefined;
  return 'disks' in shown ? shown : ensureViewImage(place, request.format, shown, context);
}

/** Whether the volume GUID shows what is asked for already, from files that are still the layers'. Throws when it shows something else, or is covered. */
async function isShown(own: ViewRecord, wanted: MountedView, operation: string): Promise<boolean> {
  const shown = viewOf(own.request);
  const { state, message } = await mountStateOf(own, readMountInfo());
  if (state === 'missing') return false;
  if (state === 'covered')
    throw new CimletError('already-exists', `${operation}: ${message ?? 'something covers it'}`, {
      hint: 'unmount that first',
    });
  if (isSameView(shown, wanted)) return own.stale !== true;
  throw showsOther(own, `${shown.chainId} at ${shown.path}`, operation);
}

function showsOther({ request }: ViewRecord, what: string, operation: string): CimletError {
  const message = `${operation}: ${request.volumeGuid} already shows ${what}`;
  return new CimletError('failed-precondition', message, { hint: 'dismount it first' });
}

/** The record to write before anything is made. Takes over from the record of a mount that has gone missing. */
async function planRecord(
  { layout, features }: ViewPlace,
  request: MountRequest,
  own: ViewRecord | undefined,
  shown: Shown | undefined,
  operation: string,
): Promise<ViewRecord> {
  const { path, view } = request;
  const isKept = own?.request.path === path && own.request.view === view && own.stale !== true;
  const successor = isKept ? own : undefined;
  if (own !== undefined && successor === undefined) await takeAway(layout, own);
  if (successor?.request.view === 'Extracted') await removeOwnLink(successor);
  const missing = await missingDirectories(path).catch((error: unknown) => {
    throw classify(error, operation);
  });
  const extracted = view === 'Extracted';
  const created = extracted ? missing.filter((directory) => directory !== path) : missing;
  return {
    formatVersion: 1,
    request: { ...request, chain: [...request.chain] },
    source: sourceOf(layout, request, shown),
    loop: !extracted && features.loop,
    created: [...new Set([...(successor?.created ?? []), ...created])],
    replacedDirectory: extracted && (successor?.replacedDirectory === true || !missing.includes(path)),
    rootHash: shown?.rootHash,
  };
}

function sourceOf(layout: Layout, request: MountRequest, shown: Shown | undefined): string {
  if (request.view === 'Extracted') return extractedPath(layout, request.volumeGuid);
  if (request.access === 'ReadWrite' || shown === undefined || 'disks' in shown)
    return overlayName(layout, request);
  return viewPath(layout, { chainId: shown.top, format: request.format });
}

async function requireFreePlace(layout: Layout, record: ViewRecord, operation: string): Promise<void> {
  const others = (await readMountRecords<ViewRecord>(layout)).filter(
    ({ request }) => request.volumeGuid !== record.request.volumeGuid,
  );
  const { kind, detail } = await pathStateOf(record.request.path, readMountInfo(), others);
  if (kind === 'absent' || kind === 'empty-directory') return;
  if (kind === 'unreadable') throw new CimletError('access-denied', `${operation}: ${detail ?? kind}`);
  throw new CimletError('already-exists', `${operation}: there is ${detail ?? kind} already`, {
    hint: 'move it away, or mount elsewhere',
  });
}

/** One image serves all mounts of a chain. Other processes may want it, too: who comes later takes what the first made. */
export async function ensureViewImage(
  { layout, withLayer }: Pick<ViewPlace, 'layout' | 'withLayer'>,
  format: LayerFormat,
  { top: chainId, cim, builder }: ShownChain,
  context: EffectContext,
): Promise<ViewImage> {
  const top = { chainId, format };
  const image = viewPath(layout, top);
  return withLayer(top, async () => {
    const uuid = viewUuid(chainId, builder);
    const known = await knownDevices(cim, image, uuid);
    if (known !== undefined) return { image, deviceFiles: known };
    const build = () => runJob<'view'>({ kind: 'view', cim, image, uuid }, context);
    const folder = snapshotPath(layout, layerFolder(top));
    const operation = `show layer ${chainId}`;
    // What another process makes there takes as long as it does, and is what is wanted here.
    const waiting = { signal: context.signal, patienceMs: Number.POSITIVE_INFINITY };
    const { deviceFiles } = await withPathLock(folder, 'exclusive', operation, build, waiting);
    return { image, deviceFiles };
  });
}

/** The files that an image needs which is there and right; undefined for any other, and for what must be verified first. */
async function knownDevices(
  { path, sources, seals }: ShownCim,
  image: string,
  uuid: Uint8Array,
): Promise<string[] | undefined> {
  if (seals.length > 0 || !(await isViewImage(image, uuid))) return undefined;
  const cim = openCim(path, { sources: sources.length === 0 ? undefined : sources });
  try {
    return chooseDevices(cim).files;
  } finally {
    cim.close();
  }
}

async function extract(
  layout: Layout,
  record: ViewRecord,
  { top, cim, builder }: ShownChain,
  context: EffectContext,
): Promise<void> {
  const uuid = viewUuid(top, builder);
  const { volumeGuid } = record.request;
  const target = extractedPath(layout, volumeGuid, 'tmp-');
  await ensureDirectory(layout.extracted);
  await removeExtracted(layout, volumeGuid);
  await removeTree(target);
  try {
    const { warnings } = await runJob<'extract'>({ kind: 'extract', cim, target, uuid }, context);
    for (const warning of warnings) context.warn?.(warning);
    await rename(target, record.source);
    await syncDirectory(layout.extracted);
  } catch (error) {
    await removeTree(target);
    throw error;
  }
  await linkExtractedView(record);
}
