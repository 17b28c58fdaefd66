/**
 * The agent: follows its sources, and reconciles whenever one of them changes, something may be tried again, or it is
 * time to look for drift. Level, not edge: each round plans from what is declared, recorded and observed now.
 */

import { CimletError, isErrorCode } from '../errors.ts';
import type { ResourceKey } from '../manifests/resources.ts';
import { Backoffs } from '../reconciler/backoff.ts';
import type { Engine, Planned, PlanRequest } from '../reconciler/engine.ts';
import type { Unfinished } from '../reconciler/execute.ts';
import type { HostLabels } from '../reconciler/host-labels.ts';
import { abandon } from '../reconciler/schedule.ts';
import type { DeclaredSource, ExecutionEvent, Plan } from '../reconciler/types.ts';
import type { SourceKey } from '../state/records.ts';
import type { State } from '../state/state.ts';
import type { FollowedSource, SourceWarning } from './declared-sources.ts';
import { type AgentLog, logEvent } from './log.ts';
import { RoundScopes } from './round-scopes.ts';
import { recordIfRoom, SourcesInForce } from './sources-in-force.ts';
import { TagIntervals } from './tag-intervals.ts';
import { Wakeup } from './wakeup.ts';

export interface AgentOptions {
  engine: Engine;
  state: State;
  sources: readonly FollowedSource[];
  /** Milliseconds between looks at the host when nothing else happens. */
  resyncMs: number;
  /** The largest share of a source's resources that one revision may prune unconfirmed, from 0 to 1. */
  largestPrune: number;
  /** Milliseconds for which a source that can't be read any more keeps what leaves others from being pruned: it may have moved there. */
  pruneHoldMs: number;
  /** Of this host. */
  labels?: HostLabels | undefined;
  /** What is looked for when, beside reconciling. */
  gc?: { intervalMs: number; collect(signal: AbortSignal): Promise<void> } | undefined;
  /** Found so before: what nobody needs goes after the first round. */
  isDiskFull?: boolean | undefined;
  log: AgentLog;
  onEvent?: ((event: ExecutionEvent) => void) | undefined;
  /** Called before what a round planned is done; `running`: IDs of actions that go on from the one before. */
  onPlanned?: ((planned: Planned, running: readonly string[]) => void) | undefined;
  /** Called after each round; without an error it is through, unless it left something to build. */
  onRound?: ((round: Round) => void) | undefined;
}

export interface Round {
  durationMs: number;
  /** Of its plan; undefined when it couldn't be made. */
  plan?: Plan | undefined;
  error?: CimletError | undefined;
}

/** First wait after a round that failed as a whole (host can't be observed); doubled up to `resyncMs`. */
const ROUND_RETRY_MS = 1000;

export class Agent {
  readonly sources: SourcesInForce;
  readonly #options: AgentOptions;
  readonly #backoffs = new Backoffs();
  readonly #wakeup = new Wakeup();
  readonly #scopes = new RoundScopes();
  readonly #tags = new TagIntervals();
  #told = new Set<string>();
  #unfinished: Unfinished | undefined;
  #collectedAt = performance.now();
  /** Something failed for it: what nobody needs goes at once. */
  #isDiskFull: boolean;
  #failures = 0;
  #rounds = 0;

  constructor(options: AgentOptions) {
    this.#options = options;
    this.#isDiskFull = options.isDiskFull ?? false;
    const { sources, state, log, pruneHoldMs } = options;
    const onChanged = () => this.#wakeup.wake();
    this.sources = new SourcesInForce({ sources, state, log, pruneHoldMs, onChanged });
  }

  /**
   * Runs until the signal aborts: what runs is told and waited for, what is mounted stays mounted. Rejects on a bug or
   * when the state database is damaged; what runs has ended then too. Once only.
   */
  async run(signal: AbortSignal): Promise<void> {
    const stop = new AbortController();
    const ended = AbortSignal.any([signal, stop.signal]);
    const { sources } = this.#options;
    const restored = sources.map((source) => this.sources.restore(source));
    const parts = [
      // What is in force of one source alone would look as if nobody else declared the same, or what it needs.
      Promise.all(restored).then(() => this.#loop(ended)),
      ...sources.map(async (source, index) => {
        await restored[index];
        return this.sources.follow(source, ended);
      }),
    ];
    try {
      await Promise.all(parts);
    } finally {
      stop.abort();
      await Promise.allSettled(parts);
      await abandon(this.#unfinished?.running ?? []);
    }
  }

  /**
   * Starts a round soon, in which this resource, or all, are looked at and tried whatever happened to them. Sources are
   * looked at too when all are, or the one that is named.
   */
  reconcile(key?: ResourceKey | SourceKey): void {
    if (key === undefined || isSourceKey(key)) {
      this.sources.look(key?.slice('Source/'.length));
      this.#scopes.requireWhole();
      if (key === undefined) this.#backoffs.release();
    } else {
      this.#backoffs.release(key);
      this.#scopes.ask(key);
    }
    this.#wakeup.wake();
  }

  /** What the next round would do. Changes nothing. Throws `unavailable` until it is ready: it would leave something out. */
  async plan(signal: AbortSignal): Promise<Plan> {
    if (!this.isReady)
      throw new CimletError('unavailable', 'the agent has not looked at all of its sources yet', {
        hint: 'ask again in a moment',
      });
    return (await this.#options.engine.plan(this.#requestOf(this.#collect().sources), signal)).plan;
  }

  /** True once every source was looked at and a round was had. */
  get isReady(): boolean {
    return this.#rounds > 0 && this.sources.wereLookedAt;
  }

  async #loop(signal: AbortSignal): Promise<void> {
    const { log, onRound } = this.#options;
    for (;;) {
      await this.#wakeup.sleep(this.#nextInMs(), signal);
      if (signal.aborted) return;
      const started = performance.now();
      try {
        const plan = await this.#round(signal);
        this.#failures = 0;
        this.#rounds++;
        const durationMs = performance.now() - started;
        log.debug({ ms: Math.round(durationMs), actions: plan.actions.length }, 'round done');
        onRound?.({ durationMs, plan });
        await this.#collectGarbage(signal);
      } catch (error) {
        if (signal.aborted) return;
        // Every round would fail the same way; the next process sets it aside.
        if (!(error instanceof CimletError) || this.#options.state.isDamaged) throw error;
        this.#failures++;
        this.#scopes.requireWhole();
        this.#warn('Host', 'RoundFailed', error.message);
        log.error({ code: error.code, hint: error.hint }, error.message);
        onRound?.({ durationMs: performance.now() - started, error });
        if (error.code !== 'no-space') continue;
        this.#isDiskFull = true;
        await this.#collectGarbage(signal);
      }
    }
  }

  /** Between rounds, when nothing is being built: what a run would need next is never taken from it. */
  async #collectGarbage(signal: AbortSignal): Promise<void> {
    const { gc, log } = this.#options;
    const isBusy = (this.#unfinished?.running.length ?? 0) > 0;
    if (gc === undefined || isBusy) return;
    const isDue = performance.now() - this.#collectedAt >= gc.intervalMs;
    if (!isDue && !this.#isDiskFull) return;
    this.#isDiskFull = false;
    this.#collectedAt = performance.now();
    try {
      await gc.collect(signal);
    } catch (error) {
      if (!(error instanceof CimletError)) throw error;
      this.#warn('Host', 'GarbageCollectionFailed', error.message);
      log.error({ code: error.code, hint: error.hint }, error.message);
    }
  }

  #nextInMs(): number {
    const { resyncMs } = this.#options;
    if (this.#failures > 0) return Math.min(resyncMs, ROUND_RETRY_MS * 2 ** (this.#failures - 1));
    return this.#nextDueInMs();
  }

  /** Until there is something to look at again: everything, what failed, or a tag. */
  #nextDueInMs(): number {
    const untilWholeMs = this.#scopes.untilWholeMs(this.#options.resyncMs);
    const others = [this.#backoffs.nextInMs(), this.#tags.nextInMs()];
    return Math.min(untilWholeMs, ...others.filter((each) => each !== undefined));
  }

  async #round(signal: AbortSignal): Promise<Plan> {
    const { engine, state, log, resyncMs } = this.#options;
    const { sources, warnings } = this.#collect();
    const resources = sources.flatMap((source) => source.resources);
    this.#tellNew(warnings);
    for (const key of this.#tags.due(resources)) this.#scopes.ask(key);
    this.#backoffs.letThrough(resources);
    const records = state.records().resources;
    const isComplete = this.sources.wereLookedAt;
    const unsettled = this.#scopes.next(sources, { records, troubled: this.#backoffs.troubled(), resyncMs });
    const planned = await engine.plan({ ...this.#requestOf(sources), unsettled }, signal);
    if (planned.scope === undefined) this.#scopes.lookedAtAll();
    this.#tags.lookedAt(planned.scope);
    this.#options.onPlanned?.(planned, this.#unfinished?.running.map(({ action }) => action.id) ?? []);
    let alarm: NodeJS.Timeout | undefined;
    // A build may take long: what is due meanwhile, drift or a retry, doesn't wait for it.
    const setAlarm = () => {
      clearTimeout(alarm);
      alarm = setTimeout(() => this.#wakeup.wake(), this.#nextDueInMs());
    };
    setAlarm();
    try {
      const execution = await engine.apply(planned, {
        signal,
        pause: this.#wakeup.pause,
        carriedOver: this.#unfinished,
        backoffs: this.#backoffs,
        onEvent: (event) => {
          logEvent(event, log);
          this.#options.onEvent?.(event);
          if (event.type !== 'action.failed') return;
          if (isErrorCode(event.error, 'no-space')) this.#isDiskFull = true;
          setAlarm();
        },
      });
      this.#unfinished = execution.unfinished;
    } finally {
      clearTimeout(alarm);
    }
    // What it left undone of layers that are to go only shows when everything is looked at.
    const isCutShort = planned.scope === undefined && this.#wakeup.pause.aborted;
    if (isCutShort || !isComplete) this.#scopes.requireWhole();
    return planned.plan;
  }

  #collect(): ReturnType<SourcesInForce['collect']> {
    return this.sources.collect(this.#options.largestPrune, this.#options.labels);
  }

  #requestOf(sources: readonly DeclaredSource[]): PlanRequest {
    return {
      sources,
      unread: this.sources.neverRead,
      held: this.#backoffs.held(sources.flatMap(({ resources }) => resources)),
    };
  }

  /** What was true in the round before as well was told then. */
  #tellNew(warnings: readonly SourceWarning[]): void {
    const { log } = this.#options;
    for (const { source, reason, message } of warnings) {
      if (this.#told.has(message)) continue;
      this.#warn(`Source/${source}`, reason, message);
      log.warn({ source, reason }, message);
    }
    this.#told = new Set(warnings.map(({ message }) => message));
  }

  #warn(key: string, reason: string, message: string): void {
    recordIfRoom(this.#options, { key, type: 'Warning', reason, message });
  }
}

function isSourceKey(key: ResourceKey | SourceKey): key is SourceKey {
  return key.startsWith('Source/');
}
