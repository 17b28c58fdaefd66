/** One action: its machine, with effects that record the intent before the host is touched and the fact after. */

import { isErrorCode } from '../errors.ts';
import type { EffectContext, LayerRef, Progress } from '../hosts/host.ts';
import { createMergeMachine } from '../machines/merge-machine.ts';
import { createMountMachine } from '../machines/mount-machine.ts';
import { createSnapshotMachine } from '../machines/snapshot-machine.ts';
import type { ResourceKey } from '../manifests/resources.ts';
import type { ChainFacts } from '../state/records.ts';
import { isShownMerged } from './derive-chain.ts';
import { attempt, drive, type PerformContext, type WorkOf } from './perform-context.ts';
import { performImage } from './perform-image.ts';
import { mergeId } from './situation.ts';
import type { PlannedAction } from './types.ts';

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
        await context.fetchLayer(wanted.blob, { ...effect, progress: ifMissing(effect) });
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

/** A blob that is here by now, as it mostly is, is nothing to tell of. */
function ifMissing({ progress }: EffectContext): (now: Progress) => void {
  return (now) => {
    if (now.done < now.total) progress?.(now);
  };
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
    dismount: async (volumeGuid, options) => {
      state.intendDismount(volumeGuid);
      await attempt(context, `dismount ${volumeGuid}`, (effect) =>
        host.dismount(volumeGuid, effect, options),
      );
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
