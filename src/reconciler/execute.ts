/** A plan -> the host: actions in order, each by its machine, with intent, facts, conditions and events recorded. */

import { CimletError } from '../errors.ts';
import type { Host, HostState } from '../hosts/host.ts';
import type { KeyedLock } from '../hosts/keyed-lock.ts';
import type { Clock } from '../machines/drive-machine.ts';
import { type Resource, type ResourceKey, resourceKey } from '../manifests/resources.ts';
import type { ResourceIntent } from '../state/records.ts';
import type { State } from '../state/state.ts';
import { nextConditions, type Outcome, reasonOf } from './conditions.ts';
import { performAction, type ResolveImage } from './perform.ts';
import { dependenciesOf } from './resource-graph.ts';
import { retryPolicyOf, timeoutMsOf } from './retry-policy.ts';
import { RootHashes } from './root-hashes.ts';
import { type Concurrency, DEFAULT_CONCURRENCY, runActions } from './schedule.ts';
import { settleRecords } from './settle.ts';
import { intentDigest, mayPrune } from './situation.ts';
import { indexSources } from './sources.ts';
import type { DeclaredSource, ExecutionEvent, ExecutionResult, Plan, PlannedAction, Verb } from './types.ts';

export interface ExecuteInput {
  plan: Plan;
  /** What the plan is about; empty for a deletion. */
  sources: readonly DeclaredSource[];
  observed: HostState;
}

export interface ExecuteServices {
  host: Host;
  state: State;
  resolveImage: ResolveImage;
  /** Shared by all that execute plans on this host at the same time. */
  locks: KeyedLock;
  concurrency?: Concurrency | undefined;
  clock?: Clock | undefined;
}

export interface ExecuteOptions {
  /** Aborting starts nothing more; what runs is waited for. */
  signal: AbortSignal;
  onEvent?: ((event: ExecutionEvent) => void) | undefined;
}

const DONE: Record<Verb, string> = {
  create: 'Created',
  change: 'Changed',
  replace: 'Replaced',
  repair: 'Repaired',
  delete: 'Deleted',
};

export async function executePlan(
  input: ExecuteInput,
  services: ExecuteServices,
  options: ExecuteOptions,
): Promise<ExecutionResult> {
  const { plan, observed } = input;
  const { host, state } = services;
  const { signal } = options;
  const emit = (event: ExecutionEvent) => options.onEvent?.(event);
  const resources = new Map(
    input.sources.flatMap((source) =>
      source.resources.map((resource) => [resourceKey(resource), resource] as const),
    ),
  );
  const status = createStatusWriter(input, state, resources);

  if (observed.leftovers.length > 0) await cleanLeftovers(services, signal);
  settleRecords(state, observed, plan);
  const rootHashes = new RootHashes(observed);
  rootHashes.record(state);
  status.begin();

  const run = async (action: PlannedAction): Promise<void> => {
    const started = performance.now();
    const key = ownKey(action) ?? action.neededBy;
    const resource = key === undefined ? undefined : resources.get(key);
    emit({ type: 'action.started', action });
    try {
      await performAction(action, {
        host,
        state,
        locks: services.locks,
        rootHashes,
        signal,
        clock: services.clock,
        retry: retryPolicyOf(resource),
        timeoutMs: timeoutMsOf(resource),
        resolveImage: (name, attemptSignal) => {
          const image = resources.get(`Image/${name}`);
          if (image?.kind !== 'Image')
            throw new Error(`Image/${name} is planned but not among the resources`);
          return services.resolveImage(image, attemptSignal);
        },
        onProgress: (progress) => emit({ type: 'action.progressed', action, ...progress }),
        onWarning: (message) => {
          state.recordEvent({ key: action.id, type: 'Warning', reason: 'Warned', message });
          emit({ type: 'action.warned', action, message });
        },
        onRetry: (retry) => {
          state.recordEvent({
            key: action.id,
            type: 'Warning',
            reason: 'Retrying',
            message: retry.error.message,
          });
          emit({ type: 'action.retrying', action, ...retry });
        },
      });
    } catch (thrown) {
      const error = thrown instanceof Error ? thrown : new Error(String(thrown));
      status.failed(action, error);
      emit({ type: 'action.failed', action, error });
      throw error;
    }
    status.succeeded(action);
    emit({ type: 'action.succeeded', action, durationMs: performance.now() - started });
  };
  const result = await runActions(plan.actions, {
    concurrency: services.concurrency ?? DEFAULT_CONCURRENCY,
    signal,
    run,
    onSkipped: (action, because) => {
      status.skipped(action, because);
      emit({ type: 'action.skipped', action, because });
    },
  });
  rootHashes.record(state);
  status.finish();
  return result;
}

/** The resource an action is about; layers and merged CIMs are nobody's own. */
function ownKey({ kind, name }: PlannedAction): ResourceKey | undefined {
  return kind === 'Snapshot' || kind === 'Merge' ? undefined : `${kind}/${name}`;
}

/** Leftovers hinder nothing: what can't be removed now stays listed, and the next run tries again. */
async function cleanLeftovers({ host, state }: ExecuteServices, signal: AbortSignal): Promise<void> {
  try {
    await host.cleanLeftovers({ signal });
  } catch (error) {
    if (!(error instanceof CimletError) || error.code === 'cancelled') throw error;
    state.recordEvent({ key: 'Host', type: 'Warning', reason: 'CleanupFailed', message: error.message });
  }
}

/** The one place that writes conditions. */
function createStatusWriter(
  input: ExecuteInput,
  state: State,
  resources: ReadonlyMap<ResourceKey, Resource>,
) {
  const { plan } = input;
  const sourceOf = indexSources(input.sources);
  const appliedRevision = (key: ResourceKey) => `applied ${sourceOf(key).revision}`;
  const blocked = new Map(plan.blocked.map((entry) => [entry.key, entry]));
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
  /** Whose condition a failure shows in: a chain with an action of its own is skipped and says so itself. */
  const affectedKey = (action: PlannedAction): ResourceKey | undefined =>
    ownKey(action) ??
    (action.neededBy !== undefined && borrowers.has(action.neededBy) ? action.neededBy : undefined);

  const beginOne = (key: ResourceKey, resource: Resource) => {
    const before = state.resource(key);
    const obstacle = blocked.get(key);
    const isTouched = acted.has(key) || borrowers.has(key);
    const isReady =
      before?.conditions.some(({ type, status }) => type === 'Ready' && status === 'True') ?? false;
    if (!isTouched && obstacle === undefined && before?.revision === sourceOf(key).revision && isReady)
      return;
    const record = state.intendResource(intentOf(resource, sourceOf(key)));
    if (obstacle?.code === 'suspended') {
      if (record.conditions.length === 0)
        set(key, { state: 'reconciling', reason: 'Suspended', message: obstacle.message });
    } else if (obstacle?.code === 'dependency') {
      set(key, { state: 'reconciling', reason: 'DependencyNotReady', message: obstacle.message });
    } else if (obstacle !== undefined) {
      set(key, { state: 'stalled', reason: reasonOf(obstacle.code), message: obstacle.message });
    } else if (isTouched) {
      set(key, { state: 'reconciling', reason: 'Progressing', message: 'being applied' });
    } else if (record.appliedDigest !== undefined) {
      state.recordApplied(key, record.facts);
      set(key, { state: 'ready', reason: 'Succeeded', message: appliedRevision(key) });
    }
  };

  return {
    begin: () =>
      state.transaction(() => {
        for (const [key, resource] of resources) beginOne(key, resource);
      }),
    succeeded: (action: PlannedAction) => {
      const key = ownKey(action);
      const message = action.reasons.map((reason) => reason.message).join('; ');
      state.transaction(() => {
        state.recordEvent({ key: action.id, type: 'Normal', reason: DONE[action.verb], message });
        if (key === undefined || action.verb === 'delete') return;
        set(key, { state: 'ready', reason: 'Succeeded', message: appliedRevision(key) });
      });
    },
    failed: (action: PlannedAction, error: Error) => {
      const code = error instanceof CimletError ? error.code : 'internal';
      const reason = reasonOf(code);
      state.transaction(() => {
        state.recordEvent({ key: action.id, type: 'Warning', reason, message: error.message });
        const key = affectedKey(action);
        if (key === undefined) return;
        borrowers.delete(key);
        set(key, { state: code === 'cancelled' ? 'reconciling' : 'stalled', reason, message: error.message });
      });
    },
    skipped: (action: PlannedAction, because: string) => {
      const key = affectedKey(action);
      if (key === undefined) return;
      borrowers.delete(key);
      const reason = because === 'cancelled' ? 'Cancelled' : 'DependencyNotReady';
      set(key, { state: 'reconciling', reason, message: because });
    },
    /** Those whose layers were all built are ready. */
    finish: () =>
      state.transaction(() => {
        for (const key of borrowers) {
          set(key, { state: 'ready', reason: 'Succeeded', message: appliedRevision(key) });
        }
      }),
  };
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
