/** One action: its machine, with effects that record the intent before the host is touched and the fact after. */

import { stat } from 'node:fs/promises';
import { CimletError, classify, isErrorCode } from '../errors.ts';
import type { EffectContext, Host, LayerBlob, LayerRef, Progress } from '../hosts/host.ts';
import type { KeyedLock } from '../hosts/keyed-lock.ts';
import { sumProgress } from '../images/sum-progress.ts';
import { type Clock, type DriveOptions, driveMachine } from '../machines/drive-machine.ts';
import { createImageMachine } from '../machines/image-machine.ts';
import { createMergeMachine } from '../machines/merge-machine.ts';
import { createMountMachine } from '../machines/mount-machine.ts';
import type { RetryPolicy } from '../machines/retry.ts';
import { createSnapshotMachine } from '../machines/snapshot-machine.ts';
import type { ImageResource, ResourceKey } from '../manifests/resources.ts';
import type { ChainFacts, ResourceFacts } from '../state/records.ts';
import type { State } from '../state/state.ts';
import type { Arrivals } from './arrivals.ts';
import { isShownMerged } from './derive-chain.ts';
import type { RootHashes } from './root-hashes.ts';
import { mergeId } from './situation.ts';
import type { PlannedAction, ResolvedImage, Work } from './types.ts';

export type ResolveImage = (image: ImageResource, signal: AbortSignal) => Promise<ResolvedImage>;

/** Brings a layer here that is in a registry; one that is here already, or comes from elsewhere, is left alone. */
export type FetchLayer = (blob: LayerBlob, effect: EffectContext) => Promise<void>;

/** Remembers that all layers of the image are here. */
export type RecordImage = (image: ImageResource) => Promise<void>;

/** Removes a fetched layer when its bytes are not what they should be, so that the next attempt fetches it again. */
export type DiscardDamaged = (blob: LayerBlob, signal: AbortSignal) => Promise<void>;

export interface PerformContext {
  host: Host;
  state: State;
  resolveImage: (name: string, signal: AbortSignal) => Promise<ResolvedImage>;
  fetchLayer: FetchLayer;
  recordImage: (name: string) => Promise<void>;
  /** Told of each blob that is here, before all are. */
  arrivals: Arrivals;
  discardDamaged: DiscardDamaged | undefined;
  /** Held while a chain is merged, across all runs of the engine. */
  locks: KeyedLock;
  rootHashes: RootHashes;
  retry: RetryPolicy;
  /** Of one attempt, in milliseconds. */
  timeoutMs: number | undefined;
  signal: AbortSignal;
  clock: Clock | undefined;
  onProgress: (progress: Progress) => void;
  onWarning: (message: string) => void;
  onRetry: NonNullable<DriveOptions['onRetry']>;
}

type WorkOf<Do extends Work['do']> = Extract<Work, { do: Do }>;

/** Resolves when the action's machine reached its goal; rejects with the error it stalled on. */
export async function performAction(action: PlannedAction, context: PerformContext): Promise<void> {
  const { work } = action;
  switch (work.do) {
    case 'resolveImage':
      return performImage(work, context);
    case 'buildLayer':
      return buildLayer(action, work, context);
    case 'removeLayer':
      return removeLayer(work, context);
    case 'mergeChain':
    case 'removeMerge':
      return performMerge(work, context);
    case 'mountView':
    case 'dismountView':
      return performMount(action, work, context);
    case 'recordChain':
      return recordChain(work, context);
    case 'forget':
      return context.state.forgetResource(work.key);
  }
}

function recordChain(work: WorkOf<'recordChain'>, { state, rootHashes }: PerformContext): void {
  const { chain, format, chainIds, merged } = work;
  const facts: ChainFacts = { format, chainIds, ...(merged === true ? { merged } : {}) };
  const rootHash = rootHashes.of(facts);
  state.recordApplied(`LayerChain/${chain}`, {
    chain: { ...facts, ...(rootHash === undefined ? {} : { rootHash }) },
  });
}

async function performImage(work: WorkOf<'resolveImage'>, context: PerformContext): Promise<void> {
  const { state } = context;
  let facts: ResourceFacts = {};
  const machine = createImageMachine({
    resolveImage: (name) =>
      attempt(context, `resolve image ${name}`, async ({ signal, progress }) => {
        progress?.({ phase: 'resolving', done: 0, total: 0 });
        const image = await context.resolveImage(name, signal);
        if (image.digest !== work.digest) {
          throw new CimletError(
            'failed-precondition',
            `resolve image ${name}: it is ${image.digest} now, the plan was made for ${work.digest}`,
            { hint: 'plan again' },
          );
        }
        facts = { image: factsOf(image) };
      }),
    fetchBlobs: (name) =>
      attempt(context, `fetch image ${name}`, async (effect) => {
        await fetchBlobs(work, context, effect);
        await context.recordImage(name);
      }),
  });
  await drive(machine, { image: work.image, retry: context.retry }, context);
  state.recordApplied(`Image/${work.image}`, facts);
}

/** All are tried, whatever happens to one: what is built of the others doesn't wait for it. */
async function fetchBlobs(
  { image, blobs }: WorkOf<'resolveImage'>,
  { fetchLayer, arrivals }: PerformContext,
  effect: EffectContext,
): Promise<void> {
  const wanted = new Map(blobs.map((blob) => [blob.digest, blob]));
  const progressOf = sumProgress([...wanted.values()], effect);
  const fetching = [...wanted.values()].map(async (blob) => {
    await fetchLayer(blob, { ...effect, progress: progressOf(blob) });
    await checkBlob(blob, image);
    arrivals.add(blob.digest);
  });
  const failed = (await Promise.allSettled(fetching)).find(({ status }) => status === 'rejected');
  if (failed?.status === 'rejected') throw failed.reason;
}

function factsOf(image: ResolvedImage): NonNullable<ResourceFacts['image']> {
  const { reference, digest, platform, bytes } = image;
  const layers = image.layers.map(({ diffId, blob }) => ({ diffId, digest: blob.digest, bytes: blob.size }));
  return { ...(reference === undefined ? {} : { reference }), digest, platform, layers, bytes };
}

async function checkBlob(blob: LayerBlob, image: string): Promise<void> {
  const operation = `find layer blob ${blob.digest} of image ${image}`;
  let size: number;
  try {
    size = (await stat(blob.file)).size;
  } catch (error) {
    throw classify(error, operation, 'fetch or copy the image again');
  }
  if (size >= blob.offset + blob.size) return;
  throw new CimletError('corrupt', `${operation}: ${blob.file} ends before the blob does`, {
    hint: 'fetch or copy the image again',
  });
}

async function buildLayer(
  action: PlannedAction,
  work: WorkOf<'buildLayer'>,
  context: PerformContext,
): Promise<void> {
  const { host, state } = context;
  const { request } = work;
  const machine = createSnapshotMachine({
    unpackLayer: (wanted) => {
      const { chainId, format, diffId, parents } = wanted;
      state.intendSnapshot({ chainId, format, diffId, parent: parents.at(-1), neededBy: action.neededBy });
      return attempt(context, `unpack layer ${chainId}`, async (effect) => {
        await context.fetchLayer(wanted.blob, effect);
        try {
          return await host.unpackLayer(wanted, effect);
        } catch (error) {
          if (isErrorCode(error, 'corrupt')) await context.discardDamaged?.(wanted.blob, effect.signal);
          throw error;
        }
      });
    },
    commitLayer: async (ref) => {
      const layer = await attempt(context, `commit layer ${ref.chainId}`, (effect) =>
        host.commitLayer(ref, effect),
      );
      state.recordSnapshot(layer);
      context.rootHashes.addLayer(layer);
      return layer;
    },
    removeLayer: (ref) => host.removeLayer(ref, context),
  });
  const observed = action.verb === 'create' ? 'absent' : 'drifted';
  await drive(machine, { goal: { state: 'committed', request }, observed, retry: context.retry }, context);
}

async function removeLayer(work: WorkOf<'removeLayer'>, context: PerformContext): Promise<void> {
  const { host, state } = context;
  const machine = createSnapshotMachine({
    unpackLayer: (request) => host.unpackLayer(request, context),
    commitLayer: (ref) => host.commitLayer(ref, context),
    removeLayer: async (ref) => {
      state.intendSnapshotRemoval(ref);
      await attempt(context, `remove layer ${ref.chainId}`, (effect) => host.removeLayer(ref, effect));
    },
  });
  const goal = { state: 'absent', ref: work.ref } as const;
  await drive(machine, { goal, observed: 'committed', retry: context.retry }, context);
  state.forgetSnapshot(work.ref);
}

/** No intent is recorded: whose merged CIM it is, its topmost layer says. */
async function performMerge(
  work: WorkOf<'mergeChain' | 'removeMerge'>,
  context: PerformContext,
): Promise<void> {
  const { host } = context;
  const top: LayerRef = work.do === 'mergeChain' ? topOf(work.request) : work.top;
  const machine = createMergeMachine({
    mergeChain: async (request) => {
      const merge = await attempt(context, `merge chain ${top.chainId}`, (effect) =>
        host.mergeChain(request, effect),
      );
      context.rootHashes.addMerge(top, merge);
      return merge;
    },
    removeMerge: (ref) =>
      attempt(context, `remove merged CIM on ${ref.chainId}`, (effect) => host.removeMerge(ref, effect)),
  });
  const goal =
    work.do === 'mergeChain'
      ? ({ state: 'merged', request: work.request } as const)
      : ({ state: 'absent', top } as const);
  await context.locks.run(mergeId(top), () => drive(machine, { goal, retry: context.retry }, context));
}

function topOf({ chain, format }: WorkOf<'mergeChain'>['request']): LayerRef {
  const chainId = chain.at(-1);
  if (chainId === undefined) throw new Error('a chain without layers is to be merged');
  return { chainId, format };
}

async function performMount(
  action: PlannedAction,
  work: WorkOf<'mountView' | 'dismountView'>,
  context: PerformContext,
): Promise<void> {
  const { host, state } = context;
  const key: ResourceKey = `Mount/${action.name}`;
  const machine = createMountMachine({
    mount: async (request) => {
      const { volumeGuid, path, format, view, access } = request;
      const chainId = request.chain.at(-1);
      if (chainId === undefined) throw new Error(`${key} has no layers`);
      state.intendMount({ volumeGuid, name: action.name, path, chainId, format, view, access });
      const mounted = await attempt(context, `mount ${path}`, (effect) => host.mount(request, effect));
      const merged = isShownMerged(format, request.chain.length);
      const { rootHash } = mounted;
      const seal = rootHash === undefined ? {} : { rootHash };
      const attached = request.utilityVM === undefined ? {} : { utilityVM: request.utilityVM };
      const since = new Date().toISOString();
      state.transaction(() => {
        state.recordMount(mounted);
        state.recordApplied(key, {
          chain: { format, chainIds: [...request.chain], ...(merged ? { merged } : {}), ...seal },
          mount: { volumeGuid, path, view: mounted.view, access, ...attached, ...seal, since },
        });
      });
      return mounted;
    },
    dismount: async (volumeGuid) => {
      state.intendDismount(volumeGuid);
      await attempt(context, `dismount ${volumeGuid}`, (effect) => host.dismount(volumeGuid, effect));
      state.forgetMount(volumeGuid);
    },
    prepareSnapshot: (request) =>
      attempt(context, `prepare snapshot ${request.key}`, (effect) => host.prepareSnapshot(request, effect)),
    removeSnapshot: (snapshot) =>
      attempt(context, `remove snapshot ${snapshot}`, (effect) => host.removeSnapshot(snapshot, effect)),
  });
  const goal =
    work.do === 'mountView'
      ? ({
          state: 'mounted',
          request: work.request,
          snapshot: work.snapshot,
          replaces: work.replaces,
        } as const)
      : ({ state: 'absent', volumeGuid: work.volumeGuid, snapshot: work.snapshot } as const);
  await drive(machine, { goal, retry: context.retry }, context);
  if (work.do === 'dismountView') state.forgetResource(key);
}

/** One attempt at an effect, within the time one attempt may take. */
async function attempt<T>(
  context: PerformContext,
  operation: string,
  effect: (context: EffectContext) => Promise<T>,
): Promise<T> {
  const { timeoutMs, onProgress: progress, onWarning: warn } = context;
  if (timeoutMs === undefined) return effect({ signal: context.signal, progress, warn });
  const timeout = AbortSignal.timeout(timeoutMs);
  try {
    return await effect({ signal: AbortSignal.any([context.signal, timeout]), progress, warn });
  } catch (error) {
    if (!timeout.aborted || context.signal.aborted || !isErrorCode(error, 'cancelled')) throw error;
    throw new CimletError('unavailable', `${operation}: not done within ${timeoutMs / 1000} s`, {
      hint: 'raise spec.timeout, or leave it out',
      cause: error,
    });
  }
}

function drive<Machine extends Parameters<typeof driveMachine>[0]>(
  machine: Machine,
  input: Parameters<typeof driveMachine<Machine>>[1],
  context: PerformContext,
): Promise<void> {
  return driveMachine(machine, input, {
    signal: context.signal,
    clock: context.clock,
    onRetry: context.onRetry,
  });
}
