/** The one place that writes conditions: what a plan and its execution mean for each resource. */

import { CimletError } from '../errors.ts';
import {
  formatPosition,
  type InvalidResource,
  type Kind,
  type Resource,
  type ResourceKey,
  resourceKey,
} from '../manifests/resources.ts';
import type { ResourceIntent } from '../state/records.ts';
import type { State } from '../state/state.ts';
import { digestOf } from './canonical.ts';
import { nextConditions, nextHistory, type Outcome, reasonOf } from './conditions.ts';
import { dependenciesOf } from './resource-graph.ts';
import { intentDigest, mayPrune } from './situation.ts';
import { describeSuspension, suspensionNote, suspensionOfSpec } from './suspension.ts';
import type { DeclaredSource, Plan, PlannedAction, Verb } from './types.ts';
import { isSettled } from './unsettled.ts';

const DONE: Record<Verb, string> = {
  create: 'Created',
  change: 'Changed',
  replace: 'Replaced',
  repair: 'Repaired',
  delete: 'Deleted',
};

/** Of which revision is said beside it: most that come after change nothing of a resource. */
const APPLIED: Outcome = { state: 'ready', reason: 'Succeeded', message: 'applied as declared' };

export interface StatusWriter {
  /** Records what is asked for, and what is known before anything is done. */
  begin(): void;
  succeeded(action: PlannedAction): void;
  /** `isFinal`: it is not tried again by itself. */
  failed(action: PlannedAction, error: Error, isFinal: boolean): void;
  skipped(action: PlannedAction, because: string): void;
  /** Those whose layers were all built are ready. */
  finish(): void;
}

/** The resource an action is about; layers and merged CIMs are nobody's own. */
export function ownKey({ kind, name }: PlannedAction): ResourceKey | undefined {
  return kind === 'Snapshot' || kind === 'Merge' ? undefined : `${kind}/${name}`;
}

export function createStatusWriter(
  plan: Plan,
  sources: readonly DeclaredSource[],
  state: State,
): StatusWriter {
  const blocked = new Map(plan.blocked.map((entry) => [entry.key, entry]));
  const drifts = new Map<ResourceKey, string>();
  for (const { key, message, drift } of plan.notes) {
    if (key === undefined || drift !== true) continue;
    const known = drifts.get(key);
    drifts.set(key, known === undefined ? message : `${known}; ${message}`);
  }
  const acted = new Set<string>(plan.actions.map(({ id }) => id));
  /** Resources that have no action of their own but layers being built. */
  const borrowers = new Set<ResourceKey>();
  for (const { neededBy, verb } of plan.actions) {
    if (neededBy !== undefined && verb !== 'delete' && !acted.has(neededBy)) borrowers.add(neededBy);
  }

  const set = (key: ResourceKey, outcome: Outcome) => {
    const record = state.resource(key);
    if (record === undefined) return;
    const now = new Date().toISOString();
    state.setConditions(key, nextConditions(record.conditions, outcome, record.generation, now));
  };
  /** Notes in its history how it ended. `isAttempt`: it was tried, and not only found to be so. */
  const remember = (key: ResourceKey, outcome: Outcome, isAttempt: boolean) => {
    const record = state.resource(key);
    if (record === undefined) return;
    const ended = { ...outcome, revision: record.revision, isAttempt };
    state.setHistory(key, nextHistory(record.history, ended, new Date().toISOString()));
  };
  /** Why it can't go on, with an event when that is news. */
  const report = (key: ResourceKey, outcome: Outcome) => {
    const { reason, message } = outcome;
    const isKnown = state
      .resource(key)
      ?.conditions.some((known) => known.reason === reason && known.message === message);
    if (isKnown !== true) state.recordEvent({ key, type: 'Warning', reason, message });
    set(key, outcome);
    remember(key, outcome, false);
  };
  /** Whose condition a failure shows in: a chain with an action of its own is skipped and says so itself. */
  const affectedKey = (action: PlannedAction): ResourceKey | undefined =>
    ownKey(action) ??
    (action.verb !== 'delete' && action.neededBy !== undefined && borrowers.has(action.neededBy)
      ? action.neededBy
      : undefined);

  /** What is declared as it was applied: most, often thousands. */
  const unchanged: ResourceKey[] = [];
  const outdated = () =>
    sources.flatMap(({ id, revision }) => {
      const keys = unchanged.filter((key) => {
        const record = state.resource(key);
        return record?.sourceId === id && record.revision !== revision;
      });
      return keys.length === 0 ? [] : [{ revision, keys }];
    });

  const beginOne = (key: ResourceKey, resource: Resource, source: DeclaredSource) => {
    const obstacle = blocked.get(key);
    const isTouched = acted.has(key) || borrowers.has(key);
    const drift = isTouched ? undefined : drifts.get(key);
    if (
      !isTouched &&
      (obstacle ?? drift) === undefined &&
      isSettled(state.resource(key), resource, source.id)
    ) {
      unchanged.push(key);
      return;
    }
    tellSuspension(key, resource);
    const record = state.intendResource(intentOf(resource, source));
    if (obstacle?.code === 'suspended') {
      if (record.conditions.length === 0)
        set(key, { state: 'reconciling', reason: 'Suspended', message: obstacle.message });
    } else if (obstacle?.code === 'dependency') {
      set(key, { state: 'reconciling', reason: 'DependencyNotReady', message: obstacle.message });
    } else if (obstacle !== undefined) {
      const { code, message, retryAt } = obstacle;
      const state = retryAt === undefined ? 'stalled' : 'reconciling';
      report(key, { state, reason: reasonOf(code), message });
    } else if (drift !== undefined) {
      report(key, { state: 'stalled', reason: 'Drifted', message: drift });
    } else if (isTouched) {
      set(key, { state: 'reconciling', reason: 'Progressing', message: 'being applied' });
    } else if (record.appliedDigest !== undefined) {
      state.recordApplied(key, record.facts);
      set(key, APPLIED);
      if ((record.history[0]?.result ?? 'Ready') === 'Ready') return;
      const message = `applied ${source.revision}`;
      state.recordEvent({ key, type: 'Normal', reason: 'Recovered', message });
      remember(key, { state: 'ready', reason: 'Recovered', message }, false);
    }
  };

  /** What its manifest says of it, when that is news. */
  const tellSuspension = (key: ResourceKey, resource: Resource) => {
    const before = suspensionOfSpec(state.resource(key)?.spec);
    const after = suspensionNote(resource.spec.suspend);
    const [told, message] = [before, after].map((note) => note && describeSuspension(note));
    if (message !== undefined && message !== told)
      state.recordEvent({ key, type: 'Normal', reason: 'Suspended', message });
    if (message === undefined && told !== undefined)
      state.recordEvent({
        key,
        type: 'Normal',
        reason: 'Resumed',
        message: 'its manifest suspends it no more',
      });
  };

  const stall = ({ key, position, message }: InvalidResource, source: DeclaredSource) => {
    const record = state.resource(key) ?? state.intendResource(nothingOf(key, source));
    // Who waits for this revision learns that it stalls in it.
    if (record.sourceId === source.id) state.intendResource({ ...record, revision: source.revision });
    const where = formatPosition(position);
    report(key, {
      state: 'stalled',
      reason: reasonOf('invalid-manifest'),
      message: `${where}: ${message}`,
    });
  };

  return {
    begin: () => {
      state.transaction(() => {
        for (const source of sources) {
          for (const resource of source.resources) beginOne(resourceKey(resource), resource, source);
          for (const resource of source.invalid ?? []) stall(resource, source);
        }
      });
      for (const { revision, keys } of outdated()) state.recordUnchanged(keys, revision);
    },
    succeeded: (action) => {
      const key = ownKey(action);
      const message = action.reasons.map((reason) => reason.message).join('; ');
      state.transaction(() => {
        state.recordEvent({ key: action.id, type: 'Normal', reason: DONE[action.verb], message });
        if (key === undefined || action.verb === 'delete') return;
        set(key, APPLIED);
        remember(key, { state: 'ready', reason: DONE[action.verb], message }, true);
      });
    },
    failed: (action, error, isFinal) => {
      const code = error instanceof CimletError ? error.code : 'internal';
      const reason = reasonOf(code);
      state.transaction(() => {
        state.recordEvent({ key: action.id, type: 'Warning', reason, message: error.message });
        const key = affectedKey(action);
        if (key === undefined) return;
        borrowers.delete(key);
        const isStalled = isFinal && code !== 'cancelled';
        const outcome: Outcome = {
          state: isStalled ? 'stalled' : 'reconciling',
          reason,
          message: error.message,
        };
        set(key, outcome);
        if (code !== 'cancelled') remember(key, outcome, true);
      });
    },
    skipped: (action, because) => {
      const key = affectedKey(action);
      if (key === undefined) return;
      borrowers.delete(key);
      const reason = because === 'cancelled' ? 'Cancelled' : 'DependencyNotReady';
      set(key, { state: 'reconciling', reason, message: because });
    },
    finish: () =>
      state.transaction(() => {
        for (const key of borrowers) {
          set(key, APPLIED);
          remember(
            key,
            { state: 'ready', reason: DONE.repair, message: 'its layers were built again' },
            true,
          );
        }
      }),
  };
}

/** For a resource that never was declared validly. */
function nothingOf(key: ResourceKey, source: DeclaredSource): ResourceIntent {
  const [kind, name] = key.split('/') as [Kind, string];
  const { id: sourceId, revision } = source;
  const spec = {};
  const intent = { kind, name, sourceId, spec, specDigest: digestOf(spec), dependencies: [], revision };
  return { ...intent, prune: true, deletionPolicy: 'Delete' };
}

function intentOf(resource: Resource, source: DeclaredSource): ResourceIntent {
  return {
    kind: resource.kind,
    name: resource.metadata.name,
    sourceId: source.id,
    spec: resource.spec,
    specDigest: intentDigest(resource),
    dependencies: dependenciesOf(resource),
    revision: source.revision,
    prune: mayPrune(resource),
    deletionPolicy: resource.spec.deletionPolicy ?? 'Delete',
  };
}
