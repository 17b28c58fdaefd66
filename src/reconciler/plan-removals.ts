/** What goes: resources that are no longer declared, and layers that nobody needs any more. */

import type { LayerRef, VolumeGuid } from '../hosts/host.ts';
import { mountVolumeGuid } from '../hosts/identity.ts';
import { type ResourceKey, resourceKey } from '../manifests/resources.ts';
import type { ChainFacts, ResourceRecord } from '../state/records.ts';
import { compareText } from './canonical.ts';
import type { Desired, DesiredChain } from './desired.ts';
import { type Situation, snapshotId } from './situation.ts';
import type { Plan, PlannedAction, Reason } from './types.ts';
import { mountSnapshotKey } from './writable-mounts.ts';

export function keyOfRecord(record: ResourceRecord): ResourceKey {
  return resourceKey({ kind: record.kind, metadata: record });
}

/**
 * Of the candidates, those that may go: not orphaned by policy, and not needed by anything that stays.
 * `dependenciesThatStay` are of resources in the manifests; records of other resources speak for themselves.
 */
export function chooseRemovals(
  candidates: readonly ResourceRecord[],
  situation: Situation,
  declared: ReadonlyMap<ResourceKey, readonly ResourceKey[]>,
): { removals: Map<ResourceKey, ResourceRecord>; notes: Plan['notes'] } {
  const removals = new Map(candidates.map((record) => [keyOfRecord(record), record]));
  const notes: Plan['notes'] = [];
  const staying: { key: ResourceKey; dependencies: readonly ResourceKey[] }[] = [];
  for (const [key, dependencies] of declared) staying.push({ key, dependencies });
  for (const [key, record] of situation.resources) {
    if (declared.has(key)) continue;
    if (!removals.has(key)) staying.push({ key, dependencies: record.dependencies });
    else if (record.deletionPolicy === 'Orphan') {
      removals.delete(key);
      notes.push({ key, message: 'kept on the host: deletionPolicy is Orphan' });
      staying.push({ key, dependencies: record.dependencies });
    } else {
      const user = computeSystemUsing(record, situation);
      if (user === undefined) continue;
      removals.delete(key);
      notes.push({ key, message: `kept: compute system ${user} uses it` });
      staying.push({ key, dependencies: record.dependencies });
    }
  }
  for (let index = 0; index < staying.length; index++) {
    const { key: user, dependencies } = staying[index] ?? { key: undefined, dependencies: [] };
    for (const key of dependencies) {
      const kept = removals.get(key);
      if (kept === undefined || user === undefined) continue;
      removals.delete(key);
      notes.push({ key, message: `kept: ${user} still needs it` });
      staying.push({ key, dependencies: kept.dependencies });
    }
  }
  return { removals, notes };
}

/** The ID of a compute system that says it uses a Mount's view. */
function computeSystemUsing({ kind, name }: ResourceRecord, { observed }: Situation): string | undefined {
  if (kind !== 'Mount') return undefined;
  const guid = mountVolumeGuid(name);
  return observed?.computeSystems?.running.find(({ uses }) => uses.mounts.includes(guid))?.id;
}

/** Dismount or forget, those that depend on others first. */
export function planResourceRemovals(
  removals: ReadonlyMap<ResourceKey, ResourceRecord>,
  reason: Reason,
  situation: Situation,
): PlannedAction[] {
  const dependants = new Map<ResourceKey, string[]>();
  for (const [key, record] of removals) {
    for (const dependency of record.dependencies) {
      if (!removals.has(dependency)) continue;
      const known = dependants.get(dependency);
      if (known === undefined) dependants.set(dependency, [key]);
      else known.push(key);
    }
  }
  return [...removals].map(([key, record]) => {
    const { mount, chain } = record.facts;
    const snapshot = mountSnapshotKey(record.name);
    const facts = mount === undefined ? describeChain(chain) : mount.path;
    return {
      id: key,
      kind: record.kind,
      name: record.name,
      verb: 'delete',
      drift: false,
      reasons: [reason],
      bytes: 0,
      detail: facts ?? record.facts.image?.digest ?? 'never applied',
      dependsOn: dependants.get(key) ?? [],
      work:
        record.kind === 'Mount'
          ? {
              do: 'dismountView',
              volumeGuid: mount?.volumeGuid ?? mountVolumeGuid(record.name),
              path: mount?.path ?? '',
              ...(situation.scratches.has(snapshot) ? { snapshot } : {}),
            }
          : { do: 'forget', key },
    };
  });
}

export function describeChain(chain: ChainFacts | undefined): string | undefined {
  if (chain === undefined) return undefined;
  const count = chain.chainIds.length;
  const merged = chain.merged === true ? ' merged' : '';
  return `${chain.format}, ${count} layer${count === 1 ? '' : 's'}${merged}, top ${chain.chainIds.at(-1)}`;
}

/** A chain some action stops using, so that its top layer may only go afterwards. */
export interface LeftChain {
  top: LayerRef;
  actionId: string;
}

export interface LayerRemovalInput {
  situation: Situation;
  /** Layers that stay; what lies below them stays too. */
  needed: Iterable<LayerRef>;
  left: readonly LeftChain[];
  /** Consider only layers of chains that were left, not everything that is recorded. */
  onlyLeft: boolean;
}

/** Removes recorded layers that nobody needs, children before parents. */
export function planLayerRemovals(input: LayerRemovalInput): PlannedAction[] {
  const { situation } = input;
  const kept = new Set<string>();
  for (const ref of input.needed) addWithParents(ref, kept, situation);
  for (const [id, layer] of situation.layers) {
    if (!situation.snapshots.has(id)) addWithParents(layer, kept, situation);
  }
  for (const { uses } of situation.observed?.computeSystems?.running ?? [])
    for (const ref of uses.layers) addWithParents(ref, kept, situation);
  const reach = new Set<string>();
  if (input.onlyLeft) for (const { top } of input.left) addWithParents(top, reach, situation);

  const waitsFor = new Map<string, string[]>();
  const wait = (id: string, actionId: string) => {
    const known = waitsFor.get(id);
    if (known === undefined) waitsFor.set(id, [actionId]);
    else known.push(actionId);
  };
  for (const { top, actionId } of input.left) wait(snapshotId(top), actionId);

  const leaving = [...situation.snapshots].filter(
    ([id]) => !kept.has(id) && (!input.onlyLeft || reach.has(id)),
  );
  for (const [id, record] of leaving) {
    const parent = situation.layers.get(id)?.parent ?? record.parent;
    if (parent !== undefined) wait(snapshotId({ chainId: parent, format: record.format }), id);
  }
  return leaving.map(([id, record]) => {
    const layer = situation.layers.get(id);
    const message =
      record.state === 'removing'
        ? 'nothing needs it; an earlier removal was stopped halfway'
        : layer === undefined
          ? 'nothing needs it, and it is gone from the host'
          : 'nothing needs it any more';
    return {
      id,
      kind: 'Snapshot',
      name: record.chainId,
      verb: 'delete',
      drift: false,
      reasons: [{ code: 'unreferenced', message }],
      bytes: layer?.bytes ?? 0,
      detail: `${record.format} layer`,
      dependsOn: [...new Set(waitsFor.get(id) ?? [])].sort(compareText),
      neededBy: record.neededBy,
      work: { do: 'removeLayer', ref: { chainId: record.chainId, format: record.format } },
    };
  });
}

function addWithParents(start: LayerRef, set: Set<string>, situation: Situation): void {
  let ref: LayerRef | undefined = start;
  while (ref !== undefined) {
    const id = snapshotId(ref);
    if (set.has(id)) return;
    set.add(id);
    const parent = situation.layers.get(id)?.parent ?? situation.snapshots.get(id)?.parent;
    ref = parent === undefined ? undefined : { chainId: parent, format: ref.format };
  }
}

/** Layers of whatever stays as it is, is being made, or was begun for something that is blocked now. */
export function* layersThatStay(
  situation: Situation,
  { chains, blocked }: Needs,
  removals: ReadonlyMap<ResourceKey, ResourceRecord>,
  actions: readonly PlannedAction[],
): Generator<LayerRef> {
  yield* layersBegunFor(blocked, situation);
  for (const { format, layers } of chains.values()) {
    for (const { chainId } of layers) yield { chainId, format };
  }
  for (const [key, record] of situation.resources) {
    if (removals.has(key) || chains.has(key)) continue;
    const { chain } = record.facts;
    if (chain !== undefined) for (const chainId of chain.chainIds) yield { chainId, format: chain.format };
  }
  const handled = new Set<VolumeGuid>();
  for (const { work } of actions) {
    if (work.do === 'dismountView') handled.add(work.volumeGuid);
    if (work.do === 'mountView' && work.replaces !== undefined) handled.add(work.replaces);
  }
  for (const mount of situation.mounts.values()) if (!handled.has(mount.volumeGuid)) yield mount;
  const removed = new Set(
    actions.map(({ work }) => (work.do === 'dismountView' ? work.snapshot : undefined)),
  );
  for (const { key, chain, format } of situation.scratches.values())
    if (!removed.has(key)) for (const chainId of chain) yield { chainId, format };
  for (const { chain, format } of situation.names) for (const chainId of chain) yield { chainId, format };
}

/** What needs layers besides what the records say: chains that are wanted, and resources that can't go on at the moment. */
export interface Needs {
  chains: Desired['chains'];
  blocked: Pick<ReadonlyMap<ResourceKey, unknown>, 'has'>;
}

/** Layers made for what can't go on at the moment, so that they needn't be made again. */
export function* layersBegunFor(
  blocked: Pick<ReadonlyMap<ResourceKey, unknown>, 'has'>,
  situation: Situation,
): Generator<LayerRef> {
  for (const record of situation.snapshots.values()) {
    if (record.neededBy !== undefined && blocked.has(record.neededBy)) yield record;
  }
}

/** Chains that actions stop using: those of resources removed or replaced. */
export function findLeftChains(
  situation: Situation,
  chains: ReadonlyMap<ResourceKey, DesiredChain>,
  actions: readonly PlannedAction[],
  removals: ReadonlyMap<ResourceKey, ResourceRecord>,
): LeftChain[] {
  const left: LeftChain[] = [];
  const leave = (record: ResourceRecord, actionId: string) => {
    const chain = record.facts.chain;
    const top = chain?.chainIds.at(-1);
    if (chain !== undefined && top !== undefined)
      left.push({ top: { chainId: top, format: chain.format }, actionId });
    const guid = record.kind === 'Mount' ? mountVolumeGuid(record.name) : undefined;
    const there = guid === undefined ? undefined : situation.mounts.get(guid);
    if (there !== undefined && there.chainId !== top) left.push({ top: there, actionId });
  };
  for (const record of removals.values()) leave(record, keyOfRecord(record));
  for (const { id, verb, kind } of actions) {
    if (verb !== 'replace' || kind === 'Snapshot') continue;
    const record = situation.resources.get(id as ResourceKey);
    if (record !== undefined && chains.has(keyOfRecord(record))) leave(record, id);
  }
  return left;
}
