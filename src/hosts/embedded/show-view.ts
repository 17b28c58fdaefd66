/** Mounting a chain: what is there already, what has to be built, the record, then the mount itself. */

import { rename } from 'node:fs/promises';
import { CimletError, classify, describeError } from '../../errors.ts';
import type { ChainId, CommittedLayer, EffectContext, MountedView, MountRequest } from '../host.ts';
import { isSameView, viewOf } from '../mounted-view.ts';
import { ensureDirectory, missingDirectories, removeTree, syncDirectory } from './directories.ts';
import { soundLayer } from './layer-store.ts';
import { cimPath, extractedPath, type Layout, viewPath } from './layout.ts';
import { readMountInfo } from './mount-info.ts';
import { linkExtractedView, mountKernelView, removeExtracted, removeOwnLink, takeAway } from './mounting.ts';
import { mountStateOf, pathStateOf } from './own-mounts.ts';
import type { EmbeddedFeatures } from './probe.ts';
import { type MountRecord, readMountRecord, readMountRecords, writeMountRecord } from './records.ts';
import { withRepairHint } from './repair-hint.ts';
import { runJob } from './run-job.ts';
import { deviceFilesOf } from './view-devices.ts';
import { isViewImage, viewUuid } from './view-image.ts';

export interface ViewPlace {
  layout: Layout;
  features: EmbeddedFeatures;
  /** Runs an effect while no other works on that layer. */
  withLayer(chainId: ChainId, effect: () => Promise<void>): Promise<void>;
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
  const own = await readMountRecord(layout, request.volumeGuid);
  if (own !== undefined && (await isShown(own, view, operation))) return view;
  const { builder } = await requireChain(layout, request, operation);
  const record = await planRecord(place, request, own, operation);
  await requireFreePlace(layout, record, operation);
  const uuid = viewUuid(view.chainId, builder);
  if (request.view === 'Kernel') await ensureViewImage(place, view.chainId, uuid, context);
  try {
    await writeMountRecord(layout, record);
    if (request.view === 'Kernel')
      await mountKernelView(layout, record, deviceFilesOf(cimPath(layout, view.chainId)), features.canLoop);
    else await extract(layout, record, uuid, context);
  } catch (error) {
    await takeAway(layout, record).catch((undoing: unknown) => {
      context.warn?.(`${operation}: undoing it failed too: ${describeError(undoing)}`);
    });
    throw error;
  }
  return view;
}

/** Whether the volume GUID shows what is asked for already, from files that are still the layers'. Throws when it shows something else, or is covered. */
async function isShown(own: MountRecord, wanted: MountedView, operation: string): Promise<boolean> {
  const shown = viewOf(own.request);
  const { state, message } = await mountStateOf(own, readMountInfo());
  if (state === 'missing') return false;
  if (state === 'covered')
    throw new CimletError('already-exists', `${operation}: ${message ?? 'something covers it'}`, {
      hint: 'unmount that first',
    });
  if (isSameView(shown, wanted)) return own.stale !== true;
  throw new CimletError(
    'failed-precondition',
    `${operation}: ${own.request.volumeGuid} already shows ${shown.chainId} at ${shown.path}`,
    { hint: 'dismount it first' },
  );
}

/** The top layer, when all of the chain is committed and sound. */
async function requireChain(
  layout: Layout,
  request: MountRequest,
  operation: string,
): Promise<CommittedLayer> {
  let top: CommittedLayer | undefined;
  for (const chainId of request.chain) {
    top = await soundLayer(layout, { chainId, format: request.format });
    if (top === undefined)
      throw new CimletError(
        'failed-precondition',
        `${operation}: layer ${chainId} is not committed, or damaged`,
      );
  }
  if (top === undefined) throw new CimletError('invalid-manifest', `${operation}: the chain has no layers`);
  return top;
}

/** The record to write before anything is made. Takes over from the record of a mount that has gone missing. */
async function planRecord(
  { layout, features }: ViewPlace,
  request: MountRequest,
  own: MountRecord | undefined,
  operation: string,
): Promise<MountRecord> {
  const { path, view, volumeGuid } = request;
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
    source: extracted ? extractedPath(layout, volumeGuid) : viewPath(layout, viewOf(request).chainId),
    loop: !extracted && features.loop,
    created: [...new Set([...(successor?.created ?? []), ...created])],
    replacedDirectory: extracted && (successor?.replacedDirectory === true || !missing.includes(path)),
  };
}

async function requireFreePlace(layout: Layout, record: MountRecord, operation: string): Promise<void> {
  const others = (await readMountRecords(layout)).filter(
    ({ request }) => request.volumeGuid !== record.request.volumeGuid,
  );
  const { kind, detail } = await pathStateOf(record.request.path, readMountInfo(), others);
  if (kind === 'absent' || kind === 'empty-directory') return;
  if (kind === 'unreadable') throw new CimletError('access-denied', `${operation}: ${detail ?? kind}`);
  throw new CimletError('already-exists', `${operation}: there is ${detail ?? kind} already`, {
    hint: 'move it away, or mount elsewhere',
  });
}

/** One image serves all mounts of a chain. */
async function ensureViewImage(
  { layout, withLayer }: ViewPlace,
  chainId: ChainId,
  uuid: Uint8Array,
  context: EffectContext,
): Promise<void> {
  const image = viewPath(layout, chainId);
  await withLayer(chainId, async () => {
    if (await isViewImage(image, uuid)) return;
    await ensureDirectory(layout.views);
    const cim = cimPath(layout, chainId);
    await runJob<'view'>({ kind: 'view', cim, image, uuid }, context).catch((error: unknown) => {
      throw withRepairHint(error, cim);
    });
  });
}

async function extract(
  layout: Layout,
  record: MountRecord,
  uuid: Uint8Array,
  context: EffectContext,
): Promise<void> {
  const { volumeGuid } = record.request;
  const target = extractedPath(layout, volumeGuid, 'tmp-');
  await ensureDirectory(layout.extracted);
  await removeTree(target);
  await removeExtracted(layout, volumeGuid);
  const cim = cimPath(layout, viewOf(record.request).chainId);
  try {
    const { warnings } = await runJob<'extract'>({ kind: 'extract', cim, target, uuid }, context);
    for (const warning of warnings) context.warn?.(warning);
    await rename(target, record.source);
    await syncDirectory(layout.extracted);
  } catch (error) {
    await removeTree(target);
    throw withRepairHint(error, cim);
  }
  await linkExtractedView(record);
}
