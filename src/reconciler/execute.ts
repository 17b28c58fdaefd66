/** A plan -> the host: actions in order, each by its machine, with intent, facts, conditions and events recorded. */

import { CimletError } from '../errors.ts';
import type { Host, HostState } from '../hosts/host.ts';
import type { KeyedLock } from '../hosts/keyed-lock.ts';
import type { Clock } from '../machines/drive-machine.ts';
import { resourceKey } from '../manifests/resources.ts';
import type { State } from '../state/state.ts';
import type { Backoffs } from './backoff.ts';
import { performAction } from './perform.ts';
import type { DiscardDamaged, FetchLayer, RecordImage, ResolveImage } from './perform-context.ts';
import { retryPolicyOf, timeoutMsOf } from './retry-policy.ts';
import { RootHashes } from './root-hashes.ts';
import {
  type Concurrency,
  DEFAULT_CONCURRENCY,
  type RunningAction,
  runActions,
  type ScheduleOptions,
} from './schedule.ts';
import type { Scope } from './scope.ts';
import { settleRecords } from './settle.ts';
import { createStatusWriter, ownKey } from './status-writer.ts';
import type { DeclaredSource, ExecutionEvent, ExecutionResult, Plan, PlannedAction } from './types.ts';

export interface ExecuteInput {
  plan: Plan;
  /** What the plan is about; empty for a deletion. */
  sources: readonly DeclaredSource[];
  observed: HostState;
  /** What the plan is about; undefined for everything. */
  scope?: Scope | undefined;
}

export interface ExecuteServices {
  host: Host;
  state: State;
  resolveImage: ResolveImage;
  /** Absent where no image comes from a registry. */
  fetchLayer?: FetchLayer | undefined;
  recordImage?: RecordImage | undefined;
  discardDamaged?: DiscardDamaged | undefined;
  /** Shared by all that execute plans on this host at the same time. */
  locks: KeyedLock;
  concurrency?: Concurrency | undefined;
  clock?: Clock | undefined;
}

export interface ExecuteOptions {
  /** Aborting starts nothing more; what runs is told, and waited for. */
  signal: AbortSignal;
  onEvent?: ((event: ExecutionEvent) => void) | undefined;
  /** Aborting ends this run early: what only builds goes on, and the next run takes it over. */
  pause?: AbortSignal | undefined;
  carriedOver?: Unfinished | undefined;
  /** With it each action is attempted once, and when to try again is noted there. */
  backoffs?: Backoffs | undefined;
}

/** What a paused run left running, for the next one to take over or `abandon`. */
export interface Unfinished {
  running: readonly RunningAction[];
  rootHashes: RootHashes;
}

export interface Execution extends ExecutionResult {
  /** Only of a paused run. */
  unfinished?: Unfinished | undefined;
}

export async function executePlan(
  input: ExecuteInput,
  services: ExecuteServices,
  options: ExecuteOptions,
): Promise<Execution> {
  const { plan, observed } = input;
  const { host, state } = services;
  const { backoffs, carriedOver } = options;
  const emit = (event: ExecutionEvent) => options.onEvent?.(event);
  const resources = new Map(
    input.sources.flatMap((source) =>
      source.resources.map((resource) => [resourceKey(resource), resource] as const),
    ),
  );
  const status = createStatusWriter(plan, input.sources, state);
  const resourceOf = (action: PlannedAction) => {
    const key = ownKey(action) ?? action.neededBy;
    return key === undefined ? undefined : resources.get(key);
  };

  const imageOf = (name: string) => {
    const image = resources.get(`Image/${name}`);
    if (image?.kind !== 'Image') throw new Error(`Image/${name} is planned but not among the resources`);
    return image;
  };

  // What is being built looks like a leftover at times.
  const isBuilding = (carriedOver?.running.length ?? 0) > 0;
  if (observed.leftovers.length > 0 && !isBuilding) await cleanLeftovers(services, options.signal);
  settleRecords(state, input);
  const rootHashes = carriedOver?.rootHashes ?? new RootHashes();
  rootHashes.update(observed);
  rootHashes.record(state);
  status.begin();
  backoffs?.recovered(troubledBy(plan));

  const noteFailure = (action: PlannedAction, error: Error): boolean | undefined => {
    if (action.verb === 'delete') return backoffs?.removalFailed(action.id, error);
    const resource = resourceOf(action);
    return resource === undefined ? undefined : backoffs?.failed(resource, error);
  };
  const startedAt = new Map<string, number>();
  const perform: ScheduleOptions['perform'] = (action, signal, arrivals) => {
    const resource = resourceOf(action);
    const policy = retryPolicyOf(resource);
    startedAt.set(action.id, performance.now());
    emit({ type: 'action.started', action });
    return performAction(action, {
      host,
      state,
      locks: services.locks,
      rootHashes,
      signal,
      clock: services.clock,
      retry: backoffs === undefined ? policy : { ...policy, limit: 0 },
      timeoutMs: timeoutMsOf(resource),
      resolveImage: (name, attemptSignal) => {
        return services.resolveImage(imageOf(name), attemptSignal);
      },
      discardDamaged: services.discardDamaged,
      fetchLayer: async (blob, effect) => services.fetchLayer?.(blob, effect),
      recordImage: async (name) => services.recordImage?.(imageOf(name)),
      arrivals,
      onProgress: (progress) => emit({ type: 'action.progressed', action, ...progress }),
      onWarning: (message) => {
        state.recordEvent({ key: action.id, type: 'Warning', reason: 'Warned', message });
        emit({ type: 'action.warned', action, message });
      },
      onRetry: (retry) => {
        const { message } = retry.error;
        state.recordEvent({ key: action.id, type: 'Warning', reason: 'Retrying', message });
        emit({ type: 'action.retrying', action, ...retry });
      },
    });
  };
  const { unfinished, ...result } = await runActions(plan.actions, {
    concurrency: services.concurrency ?? DEFAULT_CONCURRENCY,
    signal: options.signal,
    pause: options.pause,
    carriedOver: carriedOver?.running,
    perform,
    onSucceeded: (action) => {
      backoffs?.release(action.id);
      status.succeeded(action);
      const started = startedAt.get(action.id) ?? performance.now();
      emit({ type: 'action.succeeded', action, durationMs: performance.now() - started });
    },
    onFailed: (action, error) => {
      status.failed(action, error, noteFailure(action, error) ?? true);
      emit({ type: 'action.failed', action, error });
    },
    onSkipped: (action, because) => {
      status.skipped(action, because);
      emit({ type: 'action.skipped', action, because });
    },
  });
  rootHashes.record(state);
  if (options.pause?.aborted !== true) status.finish();
  return unfinished.length === 0 ? result : { ...result, unfinished: { running: unfinished, rootHashes } };
}

/** What the plan does something about, or can't, and for whom. */
function troubledBy({ actions, blocked }: Plan): Set<string> {
  return new Set([
    ...blocked.map(({ key }) => key),
    ...actions.flatMap(({ id, neededBy }) => (neededBy === undefined ? [id] : [id, neededBy])),
  ]);
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
