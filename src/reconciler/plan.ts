/**
 * Desired + observed + recorded -> plan. Pure: no clock, no I/O, nothing but its arguments; stable and linear (up to
 * sorting) in resources and layers.
 */

import type { CimletError } from '../errors.ts';
import type { HostState, VolumeGuid } from '../hosts/host.ts';
import { mountVolumeGuid } from '../hosts/identity.ts';
import type { ResolvedArchive } from '../images/archive.ts';
import { type Resource, type ResourceKey, resourceKey } from '../manifests/resources.ts';
import type { ResourceRecord, StateRecords } from '../state/records.ts';
import { compareText } from './canonical.ts';
import { deriveDesired, type Obstacle } from './desired.ts';
import { draftActions } from './draft-actions.ts';
import { finishPlan, orderActions } from './finish-plan.ts';
import { comparablePlace, placeOf } from './mount-paths.ts';
import { planMergeRemovals } from './plan-merges.ts';
import { assessMount, type MountChange, type MountVerdict } from './plan-mounts.ts';
import {
  chooseRemovals,
  findLeftChains,
  layersThatStay,
  type Needs,
  planLayerRemovals,
  planResourceRemovals,
} from './plan-removals.ts';
import { dependenciesOf, selectTargets } from './resource-graph.ts';
import { indexSituation, type Situation } from './situation.ts';
import { indexSources } from './sources.ts';
import type { DeclaredSource, Plan, PlannedAction, Reason, ResolvedImage } from './types.ts';
import { mountSnapshotKey } from './writable-mounts.ts';

export interface PlanInput {
  /** No two declare the same resource. */
  sources: readonly DeclaredSource[];
  /** Only these and what they need; all when omitted or empty. */
  targets?: readonly ResourceKey[] | undefined;
  /** Names of sources of which nothing was read yet: what is missed may be declared there. */
  unread?: readonly string[] | undefined;
  /** By resource or, for removals, action: what must not be tried now, and why; it and what depends on it get no action. */
  held?: ReadonlyMap<string, Obstacle> | undefined;
  /** By Image name; an Image that failed to resolve is blocked with its error. */
  resolved: ReadonlyMap<string, ResolvedImage | CimletError>;
  /** By `archiveKey`; a chain whose archive failed to resolve is blocked with its error. Default: none. */
  archives?: ReadonlyMap<string, ResolvedArchive | CimletError> | undefined;
  /** Undefined offline. */
  observed: HostState | undefined;
  /** Undefined when planning for another machine: what is there then counts as applied. */
  records: StateRecords | undefined;
  /** Used offline only; an observed host says its own. */
  root: string;
}

/** Plans what makes the host match the manifests. Throws `not-found` for a target that doesn't exist. */
export function planApply(input: PlanInput): Plan {
  const situation = indexSituation(input.observed, input.records, input.root);
  const { sources, targets = [], held = new Map<string, Obstacle>() } = input;
  const resources = sources.flatMap((source) => source.resources);
  const sourceOf = indexSources(sources);
  const selected = selectTargets(resources, targets, (key) => situation.resources.has(key));
  const invalid = sources.flatMap((source) => source.invalid ?? []);
  const declared = new Map(resources.map((resource) => [resourceKey(resource), dependenciesOf(resource)]));
  for (const { key } of invalid) declared.set(key, situation.resources.get(key)?.dependencies ?? []);
  const pruning = choosePruning(input, situation, declared);
  const leaverOf = findLeavers(selected, pruning.removals, situation);
  const obstacles = new Map(held);
  for (;;) {
    const verdicts = new Map<ResourceKey, MountVerdict>();
    const desired = deriveDesired({
      resources: selected,
      resolved: input.resolved,
      archives: input.archives ?? new Map(),
      capabilities: situation.observed?.capabilities,
      host: situation.host,
      root: situation.root,
      recordOf: (key) => situation.resources.get(key),
      elsewhere: targets.length > 0 ? [] : sources.flatMap((source) => source.elsewhere ?? []),
      unread: input.unread ?? [],
      invalid,
      obstacles,
      assessMount: (mount, chain) => {
        const sourceId = sourceOf(resourceKey(mount)).id;
        const verdict = assessMount({ mount, chain, situation, sourceId, leaverOf });
        verdicts.set(resourceKey(mount), verdict);
        return verdict.kind === 'blocked' ? verdict.obstacle : undefined;
      },
    });
    const draft = draftActions(desired, verdicts, situation, sourceOf);
    const removals = planResourceRemovals(
      pruning.removals,
      {
        code: 'removed-from-manifests',
        message: 'no longer in the manifests',
      },
      situation,
    );
    const late = findLateObstacles(verdicts, [...draft.actions, ...removals]);
    if (late.size > 0) {
      for (const [key, obstacle] of late) obstacles.set(key, obstacle);
      continue;
    }
    const unused = sources.some(({ prune }) => prune)
      ? planUnused(situation, desired, pruning.removals, draft.actions, removals, targets.length > 0)
      : [];
    return finishPlan({
      mode: 'apply',
      revision: [...new Set(sources.map(({ revision }) => revision))].join(', '),
      situation,
      actions: [...draft.actions, ...removals, ...withoutHeld(unused, held)],
      blocked: [...desired.blocked.values()],
      notes: [...desired.notes, ...draft.notes, ...pruning.notes],
      resources: [...selected.map(resourceKey), ...invalid.map(({ key }) => key)],
    });
  }
}

/** Removes layers and merged CIMs that nobody needs any more. */
function planUnused(
  situation: Situation,
  desired: Needs,
  removals: ReadonlyMap<ResourceKey, ResourceRecord>,
  changes: readonly PlannedAction[],
  departures: readonly PlannedAction[],
  onlyLeft: boolean,
): PlannedAction[] {
  const actions = [...changes, ...departures];
  const left = findLeftChains(situation, desired.chains, changes, removals);
  const needed = layersThatStay(situation, desired, removals, actions);
  const layers = planLayerRemovals({ situation, needed, left, onlyLeft });
  const merges = planMergeRemovals({
    situation,
    desired,
    removals,
    actions: [...actions, ...layers],
    left,
    onlyLeft,
  });
  return [...layers, ...merges];
}

/** Without removals that must not be tried yet, and those that wait for one of them. */
function withoutHeld(
  removals: readonly PlannedAction[],
  held: ReadonlyMap<string, Obstacle>,
): PlannedAction[] {
  const waiting = new Set(removals.filter(({ id }) => held.has(id)).map(({ id }) => id));
  for (let known = -1; known < waiting.size; ) {
    known = waiting.size;
    for (const { id, dependsOn } of removals)
      if (dependsOn.some((each) => waiting.has(each))) waiting.add(id);
  }
  return removals.filter(({ id }) => !waiting.has(id));
}

export interface DeleteInput {
  keys: readonly ResourceKey[];
  observed: HostState;
  records: StateRecords;
  revision: string;
}

/** Plans taking away resources by name: mounts first, layers last, keeping what others still need. */
export function planDelete(input: DeleteInput): Plan {
  const situation = indexSituation(input.observed, input.records, input.observed.root);
  const keys = [...new Set(input.keys)].sort(compareText);
  const candidates = keys.flatMap((key) => situation.resources.get(key) ?? []);
  const { removals, notes } = chooseRemovals(candidates, situation, new Map());
  // What was begun for a resource that stays, and isn't there yet, is its own.
  const begun = [...situation.resources.keys()].filter((key) => !removals.has(key));
  const staying: Needs = { chains: new Map(), blocked: new Set(begun) };
  const reason: Reason = { code: 'delete-requested', message: 'deletion was asked for' };
  const actions = planResourceRemovals(removals, reason, situation);
  for (const key of keys) {
    if (situation.resources.has(key)) continue;
    const stray = dismissStray(key, situation, reason);
    if (stray === undefined) notes.push({ key, message: 'not applied on this host: nothing to delete' });
    else actions.push(stray);
  }
  return finishPlan({
    mode: 'delete',
    revision: input.revision,
    situation,
    actions: [...actions, ...planUnused(situation, staying, removals, [], actions, false)],
    blocked: [],
    notes,
    resources: keys,
  });
}

/** A view, or a scratch, that the host knows as a Mount's although the state database doesn't; undefined when it has neither. */
function dismissStray(
  key: ResourceKey,
  { mounts, scratches }: Situation,
  reason: Reason,
): PlannedAction | undefined {
  if (!key.startsWith('Mount/')) return undefined;
  const name = key.slice('Mount/'.length);
  const volumeGuid = mountVolumeGuid(name);
  const snapshot = mountSnapshotKey(name);
  const view = mounts.get(volumeGuid);
  const hasScratch = scratches.has(snapshot);
  if (view === undefined && !hasScratch) return undefined;
  return {
    id: key,
    kind: 'Mount',
    name,
    verb: 'delete',
    drift: false,
    reasons: [reason],
    bytes: 0,
    detail: view?.path ?? 'its scratch alone',
    dependsOn: [],
    work: {
      do: 'dismountView',
      volumeGuid,
      path: view?.path ?? '',
      ...(hasScratch ? { snapshot } : {}),
    },
  };
}

function choosePruning(
  input: PlanInput,
  situation: Situation,
  declared: ReadonlyMap<ResourceKey, ResourceKey[]>,
): ReturnType<typeof chooseRemovals> {
  const { sources, targets = [] } = input;
  const pruned = new Set(sources.filter(({ prune }) => prune).map(({ id }) => id));
  if (pruned.size === 0) return { removals: new Map(), notes: [] };
  const targeted = new Set(targets);
  const notes: Plan['notes'] = [];
  const candidates: ResourceRecord[] = [];
  for (const [key, record] of situation.resources) {
    if (declared.has(key) || !pruned.has(record.sourceId)) continue;
    if (targets.length > 0 && !targeted.has(key)) continue;
    const obstacle = input.held?.get(key);
    if (obstacle?.code === 'suspended')
      notes.push({ key, message: 'no longer in the manifests; kept: it is suspended' });
    else if (obstacle !== undefined)
      notes.push({ key, message: `no longer in the manifests; kept for now: ${obstacle.message}` });
    else if (record.prune) candidates.push(record);
    else notes.push({ key, message: 'no longer in the manifests; kept: cimlet.dev/prune is disabled' });
  }
  const chosen = chooseRemovals(candidates, situation, declared);
  return { removals: chosen.removals, notes: [...notes, ...chosen.notes] };
}

/** Whose view leaves its path in this plan, by volume GUID: that of a Mount that is pruned or moves elsewhere. */
function findLeavers(
  selected: readonly Resource[],
  removals: ReadonlyMap<ResourceKey, ResourceRecord>,
  situation: Situation,
): (volumeGuid: VolumeGuid) => ResourceKey | undefined {
  const leavers = new Map<VolumeGuid, ResourceKey>();
  for (const [key, record] of removals) {
    if (record.kind === 'Mount') leavers.set(mountVolumeGuid(record.name), key);
  }
  for (const resource of selected) {
    if (resource.kind !== 'Mount') continue;
    const volumeGuid = mountVolumeGuid(resource.metadata.name);
    const there = situation.mounts.get(volumeGuid);
    if (there === undefined) continue;
    const place = (mount: Parameters<typeof comparablePlace>[0]) => comparablePlace(mount, situation.host);
    if (place(there) !== place(placeOf(resource))) leavers.set(volumeGuid, resourceKey(resource));
  }
  return (volumeGuid) => leavers.get(volumeGuid);
}

/**
 * Mounts that wait for a path to become free which doesn't: its owner has no action, or they wait for one another.
 */
function findLateObstacles(
  verdicts: ReadonlyMap<ResourceKey, MountVerdict>,
  actions: readonly PlannedAction[],
): Map<ResourceKey, Obstacle> {
  const late = new Map<ResourceKey, Obstacle>();
  const waiting = new Map<ResourceKey, MountChange>();
  const waiters = new Map<ResourceKey, ResourceKey[]>();
  for (const [key, verdict] of verdicts) {
    if (verdict.kind !== 'change' || verdict.occupant === undefined) continue;
    waiting.set(key, verdict);
    waiters.set(verdict.occupant, [...(waiters.get(verdict.occupant) ?? []), key]);
  }
  if (waiting.size === 0) return late;
  const byId = new Map(actions.map((action) => [action.id, action]));
  const stuck = new Set(orderActions(actions).cyclic.map(({ id }) => id));
  const blockWithWaiters = (first: ResourceKey, why: string) => {
    const pending = [{ key: first, why }];
    for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
      const path = waiting.get(next.key)?.request.path;
      if (path === undefined || late.has(next.key)) continue;
      late.set(next.key, {
        code: 'already-exists',
        message: `${path} shows another Mount, which ${next.why}`,
        hint: 'mount elsewhere first, then here',
      });
      // Its own view stays where it is, so that nobody gets its place either.
      for (const key of waiters.get(next.key) ?? []) pending.push({ key, why: 'stays' });
    }
  };
  for (const key of waiting.keys()) {
    if (byId.get(key)?.dependsOn.some((id) => !byId.has(id))) blockWithWaiters(key, 'stays');
  }
  for (const key of waiting.keys()) if (stuck.has(key)) blockWithWaiters(key, 'waits for this one');
  return late;
}
