/**
 * The agent: follows its sources, and reconciles whenever one of them changes, something may be tried again, or it is
 * time to look for drift. Level, not edge: each round plans from what is declared, recorded and observed now.
 */

import { CimletError } from '../errors.ts';
import { type ResourceKey, resourceKey } from '../manifests/resources.ts';
import { Backoffs } from '../reconciler/backoff.ts';
import type { Engine } from '../reconciler/engine.ts';
import type { Unfinished } from '../reconciler/execute.ts';
import { abandon } from '../reconciler/schedule.ts';
import type { DeclaredSource, ExecutionEvent } from '../reconciler/types.ts';
import type { Source } from '../sources/source.ts';
import type { ResourceRecord } from '../state/records.ts';
import type { State } from '../state/state.ts';
import { type Declaration, followSource } from './follow-source.ts';
import type { AgentLog } from './log.ts';
import { findPruneObstacle } from './prune-safety.ts';
import { Wakeup } from './wakeup.ts';

export interface FollowedSource {
  source: Source;
  /** Under which what it declares is recorded. */
  id: string;
  /** Whether what it no longer declares is removed. */
  prune: boolean;
  /** Everything it declared stays as it is. */
  isSuspended: boolean;
}

export interface AgentOptions {
  engine: Engine;
  state: State;
  sources: readonly FollowedSource[];
  /** Milliseconds between looks at the host when nothing else happens. */
  resyncMs: number;
  /** The largest share of a source's resources that one revision may prune unconfirmed, from 0 to 1. */
  largestPrune: number;
  log: AgentLog;
  /** Aborting ends the agent: what runs is told and waited for; what is mounted stays mounted. */
  signal: AbortSignal;
  /** Called after each round, with how many actions it had. */
  onRound?: (actions: number) => void;
}

/** First wait after a round that failed as a whole (host can't be observed); doubled up to `resyncMs`. */
const ROUND_RETRY_MS = 1000;

/** Runs until the signal aborts. Rejects on a bug or when the state database fails; what runs has ended then too. */
export async function runAgent(options: AgentOptions): Promise<void> {
  const { engine, state, sources, log } = options;
  const stop = new AbortController();
  const signal = AbortSignal.any([options.signal, stop.signal]);
  const declared = new Map<string, Declaration>();
  let told = new Set<string>();
  const backoffs = new Backoffs();
  const wakeup = new Wakeup();
  let unfinished: Unfinished | undefined;
  let failures = 0;

  const tellNew = (warnings: readonly SourceWarning[]) => {
    for (const { source, reason, message } of warnings) {
      if (told.has(message)) continue;
      state.recordEvent({ key: `Source/${source}`, type: 'Warning', reason, message });
      log.warn({ source, reason }, message);
    }
    told = new Set(warnings.map(({ message }) => message));
  };
  const round = async () => {
    const now = collectSources(sources, declared, state.records().resources, options.largestPrune);
    tellNew(now.warnings);
    const held = backoffs.held(now.sources.flatMap(({ resources }) => resources));
    const planned = await engine.plan({ sources: now.sources, held }, signal);
    const started = performance.now();
    let alarm: NodeJS.Timeout | undefined;
    // A build may take long: what is due meanwhile, drift or a retry, doesn't wait for it.
    const setAlarm = () => {
      clearTimeout(alarm);
      const untilResync = options.resyncMs - (performance.now() - started);
      alarm = setTimeout(() => wakeup.wake(), Math.min(untilResync, backoffs.nextInMs() ?? untilResync));
    };
    setAlarm();
    try {
      const execution = await engine.apply(planned, {
        signal,
        pause: wakeup.pause,
        carriedOver: unfinished,
        backoffs,
        onEvent: (event) => {
          logEvent(event, log);
          if (event.type === 'action.failed') setAlarm();
        },
      });
      unfinished = execution.unfinished;
    } finally {
      clearTimeout(alarm);
    }
    options.onRound?.(planned.plan.actions.length);
  };
  const loop = async () => {
    while (!signal.aborted) {
      const waits = [options.resyncMs, backoffs.nextInMs(), failures > 0 ? retryMs(failures) : undefined];
      await wakeup.sleep(Math.min(...waits.filter((wait) => wait !== undefined)), signal);
      if (signal.aborted) return;
      try {
        await round();
        failures = 0;
      } catch (error) {
        if (signal.aborted) return;
        if (!(error instanceof CimletError)) throw error;
        failures++;
        state.recordEvent({ key: 'Host', type: 'Warning', reason: 'RoundFailed', message: error.message });
        log.error({ code: error.code, hint: error.hint }, error.message);
      }
    }
  };
  const retryMs = (count: number) => Math.min(options.resyncMs, ROUND_RETRY_MS * 2 ** (count - 1));
  const follow = ({ source }: FollowedSource) =>
    followSource(source, {
      signal,
      log,
      onDeclared: (declaration) => {
        declared.set(source.name, declaration);
        wakeup.wake();
      },
      onTrouble: (trouble) => noteTrouble(source.name, trouble, options),
    });

  const parts = [loop(), ...sources.map(follow)];
  try {
    await Promise.all(parts);
  } finally {
    stop.abort();
    await Promise.allSettled(parts);
    await abandon(unfinished?.running ?? []);
  }
}

interface SourceWarning {
  source: string;
  reason: 'Duplicate' | 'PruneRefused';
  message: string;
}

/** What is planned: every source that is in force and not suspended, each resource once. */
function collectSources(
  followed: readonly FollowedSource[],
  declared: ReadonlyMap<string, Declaration>,
  records: readonly ResourceRecord[],
  largestShare: number,
): { sources: DeclaredSource[]; warnings: SourceWarning[] } {
  const owners = new Map<ResourceKey, string>();
  const sources: DeclaredSource[] = [];
  const warnings: SourceWarning[] = [];
  for (const { source, id, prune, isSuspended } of followed) {
    const declaration = declared.get(source.name);
    if (declaration === undefined || isSuspended) continue;
    const resources = declaration.resources.filter((resource) => {
      const key = resourceKey(resource);
      const owner = owners.get(key);
      if (owner === undefined) owners.set(key, source.name);
      else {
        const message = `${key} of source ${source.name} is left out: source ${owner} declares it too`;
        warnings.push({ source: source.name, reason: 'Duplicate', message });
      }
      return owner === undefined;
    });
    const obstacle = prune
      ? findPruneObstacle({ sourceId: id, resources, records, largestShare })
      : undefined;
    if (obstacle !== undefined)
      warnings.push({ source: source.name, reason: 'PruneRefused', message: obstacle });
    sources.push({ id, revision: declaration.revision, resources, prune: prune && obstacle === undefined });
  }
  return { sources, warnings };
}

function noteTrouble(name: string, trouble: CimletError | undefined, { state, log }: AgentOptions): void {
  if (trouble === undefined) return;
  const { code, hint, message } = trouble;
  state.recordEvent({ key: `Source/${name}`, type: 'Warning', reason: 'SyncFailed', message });
  log.warn({ source: name, code, hint }, message);
}

function logEvent(event: ExecutionEvent, log: AgentLog): void {
  const fields = { action: event.action.id, verb: event.action.verb };
  if (event.type === 'action.started') log.info(fields, 'started');
  else if (event.type === 'action.succeeded')
    log.info({ ...fields, ms: Math.round(event.durationMs) }, 'done');
  else if (event.type === 'action.failed') {
    const hint = event.error instanceof CimletError ? event.error.hint : undefined;
    log.error({ ...fields, hint }, event.error.message);
  } else if (event.type === 'action.warned') log.warn(fields, event.message);
  else if (event.type === 'action.skipped') log.info({ ...fields, because: event.because }, 'skipped');
}
