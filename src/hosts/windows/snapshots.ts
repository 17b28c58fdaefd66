/**
 * Snapshots by key: a folder with the record and a scratch. One without parents is a directory `Files`, as Windows' own base
 * layers have it.
 */

import { randomUUID } from 'node:crypto';
import { stat } from 'node:fs/promises';
import { isAbsolute, join, resolve } from 'node:path';
import { CimletError, classify, isErrorCode } from '../../errors.ts';
import { requireLayers, requireStack } from '../chain-layers.ts';
import { ensureDirectory, exists, listDirectory, removeTree } from '../directories.ts';
import type { EffectContext, ObservedSnapshot, SnapshotRequest } from '../host.ts';
import { snapshotGuid, snapshotVolumeGuid } from '../identity.ts';
import { type Layout, snapshotPath } from '../layout.ts';
import { readMountRecords } from '../mount-records.ts';
import { beginFolder, putInPlace, setAside } from '../snapshot-folders.ts';
import {
  parseSnapshotFolder,
  readSnapshotRecord,
  readSnapshotRecords,
  requireSnapshot,
  type SnapshotRecord,
  writeSnapshotRecord,
} from '../snapshot-records.ts';
import { checkSnapshotRequest, isSameRequest, otherSnapshot } from '../snapshot-request.ts';
import { afterFailure } from './acquire.ts';
import { runJob } from './jobs.ts';
import { foldPath, isWithin, withoutNamespace } from './mount-paths.ts';
import { DISK, type Scratches } from './scratches.ts';
import {
  deleteSnapshotFolder,
  holdsWritten,
  locatedFolder,
  partsOf,
  scratchFolder,
  sizeOf,
} from './snapshot-scratch.ts';
import { type Store, soundLayer } from './store.ts';
import { requireVmFormat } from './vm-scratch.ts';
import { topmostFirst } from './wcifs-paths.ts';

/** What a snapshot is committed from, and the merged CIM that shows the layers below it. */
export const DIFF_FILE = 'diff.tar';
/** A scratch that shows the WCIFS layers below one. */
export const BELOW_FOLDER = 'below';

export interface SnapshotStore extends Store {
  scratches: Scratches;
}

/** The caller holds the lock of the snapshot's folder. */
export async function prepareSnapshot(
  store: SnapshotStore,
  request: SnapshotRequest,
  context: EffectContext,
): Promise<void> {
  const { layout } = store;
  const operation = `prepare snapshot ${request.key}`;
  checkSnapshotRequest(request);
  const known = await readSnapshotRecord(layout, request.key);
  if (known !== undefined && isSameRequest(known.request, request)) return;
  if (known !== undefined) throw otherSnapshot(known.request);
  await refuseLost(layout, request.key, operation);
  await checkScratch(layout, request, operation);
  const layers = await requireLayers(request, operation, (ref) => soundLayer(store, ref));
  requireStack(layers, operation);
  await discardUnfinished(layout, request.key);
  const path = await beginFolder(layout, snapshotGuid(request.key));
  try {
    // The record comes first, since it says where else something of the snapshot may be.
    await writeSnapshotRecord(
      path,
      request,
      request.scratch?.shareWith === undefined ? undefined : randomUUID(),
    );
    await makeContents(store, request, path, context);
    await putInPlace(layout, snapshotGuid(request.key));
  } catch (error) {
    throw await afterFailure(error, () => discardUnfinished(layout, request.key));
  }
}

/** Throws `failed-precondition` where what was written to a snapshot lies without a readable record. */
async function refuseLost(layout: Layout, key: string, operation: string): Promise<void> {
  const path = snapshotPath(layout, snapshotGuid(key));
  if (!(await holdsWritten(path))) return;
  throw new CimletError(
    'failed-precondition',
    `${operation}: ${path} has no readable snapshot.json, but what was written to a snapshot`,
    { hint: 'copy what is needed out of it and delete it, or use the version of cimlet that made it' },
  );
}

async function makeContents(
  { layout, scratches }: SnapshotStore,
  request: SnapshotRequest,
  path: string,
  context: EffectContext,
): Promise<void> {
  const {
    kind,
    chain,
    format,
    scratch: { bytes, unformatted, location, shareWith, utilityVM } = {},
  } = request;
  if (chain.length === 0) return ensureDirectory(join(path, 'Files'));
  if (shareWith !== undefined || partsOf(request).length === 0) return;
  const folder = location === undefined ? path : locatedFolder(location, request.key, layout);
  if (location !== undefined) {
    await removeTree(folder);
    await ensureDirectory(folder);
  }
  if (format === 'LCOW') {
    const id = snapshotVolumeGuid(layout.root, snapshotGuid(request.key));
    return runJob<'linux-scratch'>(
      { kind: 'linux-scratch', file: join(folder, DISK), id, bytes, unformatted },
      context,
    );
  }
  const parents = format === 'WCIFS' ? topmostFirst(layout, chain) : [];
  const wanted = { format, parents, isView: kind === 'view', bytes, unformatted, utilityVM };
  await scratches.make(folder, wanted, context);
}

/** Refuses (`failed-precondition`) while something needs it. The caller holds the lock of the snapshot's folder. */
export async function removeSnapshot(
  { layout }: SnapshotStore,
  key: string,
  context: EffectContext,
): Promise<void> {
  await discardUnfinished(layout, key);
  if ((await readSnapshotRecord(layout, key)) !== undefined) {
    await refuseUsed(layout, key, `remove snapshot ${key}`);
    await setAside(layout, snapshotGuid(key));
  }
  for (const name of await listDirectory(layout.snapshots)) {
    const { prefix, folder } = parseSnapshotFolder(name) ?? {};
    if (prefix === 'rm-' && folder === snapshotGuid(key))
      await deleteOrLeave(layout, join(layout.snapshots, name), context);
  }
}

/** What can't be deleted now is left over. */
async function deleteOrLeave(layout: Layout, path: string, context: EffectContext): Promise<void> {
  try {
    await deleteSnapshotFolder(layout, path);
  } catch (error) {
    if (!isErrorCode(error, 'busy', 'access-denied')) throw error;
    context.warn?.(`${path} cannot be deleted yet: ${error.message}`);
  }
}

/** Throws `failed-precondition` while a mount writes to a snapshot, or another is kept in its scratch. */
export async function refuseUsed(layout: Layout, key: string, operation: string): Promise<void> {
  await refuseMounted(layout, key, operation);
  const [sharer] = await sharersOf(layout, key);
  if (sharer !== undefined) throw neededBy(`snapshot ${sharer}, which is in its scratch,`, operation);
}

/** Throws `failed-precondition` while a mount writes to a snapshot. */
export async function refuseMounted(layout: Layout, key: string, operation: string): Promise<void> {
  for (const { request } of await readMountRecords(layout))
    if (request.snapshot === key) throw neededBy(`the mount at ${request.path}`, operation);
}

/** Keys of the snapshots that are kept in another's scratch. */
export async function sharersOf(layout: Layout, key: string): Promise<string[]> {
  const records = await readSnapshotRecords(layout);
  return records.flatMap(({ request }) => (request.scratch?.shareWith === key ? [request.key] : []));
}

function neededBy(user: string, operation: string): CimletError {
  return new CimletError('failed-precondition', `${operation}: ${user} needs it`);
}

export async function observeSnapshots(
  store: SnapshotStore,
  records: readonly SnapshotRecord[],
): Promise<ObservedSnapshot[]> {
  const observed: ObservedSnapshot[] = [];
  for (const { request } of records) {
    const chain = [...request.chain];
    const fault = await faultOf(store, request);
    const { bytes, files } = await sizeOf(store.layout, request);
    observed.push({ ...request, chain, bytes, files, ...(fault === undefined ? {} : { fault }) });
  }
  return observed;
}

async function faultOf(store: SnapshotStore, request: SnapshotRequest): Promise<string | undefined> {
  const { chain, format, key } = request;
  for (const chainId of chain)
    if ((await soundLayer(store, { chainId, format })) === undefined)
      return `layer ${chainId} is not committed, or damaged`;
  const folder = await scratchFolder(store.layout, request);
  for (const path of partsOf(request).map((name) => join(folder, name)))
    if (!(await exists(path))) return `${path}, which holds what snapshot ${key} is, is gone`;
  return undefined;
}

/** Throws unless Windows can make such a scratch. */
async function checkScratch(layout: Layout, request: SnapshotRequest, operation: string): Promise<void> {
  const { chain, format, scratch } = request;
  if (chain.length === 0 && format === 'LCOW')
    throw new CimletError('unsupported-host', `${operation}: Windows has no place for the files of Linux`, {
      hint: 'give it a parent; layers from tars come from cimlet layer import',
    });
  if (scratch === undefined) return;
  const { shareWith } = scratch;
  const owner = shareWith === undefined ? undefined : await requireSnapshot(layout, shareWith, operation);
  const refuse = (why: string, hint: string) =>
    new CimletError('invalid-manifest', `${operation}: ${why}`, { hint });
  if (chain.length === 0) throw refuse('a snapshot of no layers has no scratch', 'leave the scratch out');
  if (owner !== undefined && format !== 'LCOW')
    throw new CimletError('unsupported-host', `${operation}: Windows keeps no two of them in one scratch`, {
      hint: 'leave shareWith out',
    });
  if (owner !== undefined) requireSharable(owner.request, operation);
  if (scratch.utilityVM === true) requireVmFormat(format, operation);
  if (scratch.location !== undefined) await checkLocation(layout, scratch.location, operation);
}

/** Throws `failed-precondition` for what has no Linux scratch. */
function requireSharable(request: SnapshotRequest, operation: string): void {
  if (request.format === 'LCOW' && partsOf(request).length > 0) return;
  const why = `snapshot ${request.key} has no scratch of Linux layers`;
  throw new CimletError('failed-precondition', `${operation}: ${why}`, {
    hint: 'share that of an active snapshot of Linux layers',
  });
}

async function checkLocation({ root }: Layout, location: string, operation: string): Promise<void> {
  const refuse = (why: string) =>
    new CimletError('invalid-manifest', `${operation}: its scratch's location ${location} ${why}`, {
      hint: 'name a directory that is there, outside of the root',
    });
  if (!isAbsolute(location)) throw refuse('is not absolute');
  if (isWithin(foldPath(withoutNamespace(location)), foldPath(root))) throw refuse('lies inside of the root');
  const stats = await stat(resolve(location)).catch((error: unknown) => {
    throw classify(error, `${operation}: look at ${location}`);
  });
  if (!stats.isDirectory()) throw refuse('is no directory');
}

async function discardUnfinished(layout: Layout, key: string): Promise<void> {
  await deleteSnapshotFolder(layout, snapshotPath(layout, snapshotGuid(key), 'tmp-'));
}
