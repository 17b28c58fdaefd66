/** Runs actions in dependency order, as many at once as each class of work allows. */

import { CimletError } from '../errors.ts';
import type { Digest, LayerBlob } from '../hosts/host.ts';
import { Arrivals } from './arrivals.ts';
import type { ExecutionResult, PlannedAction, Work } from './types.ts';

export type WorkClass = 'resolving' | 'unpacking' | 'merging' | 'mounting' | 'removing' | 'recording';

/** Actions of a class that run at the same time. */
export type Concurrency = Record<WorkClass, number>;

export const DEFAULT_CONCURRENCY: Concurrency = {
  resolving: 4,
  unpacking: 2,
  merging: 1,
  mounting: 2,
  removing: 1,
  recording: 1,
};

const CLASSES: Record<Work['do'], WorkClass> = {
  resolveImage: 'resolving',
  buildLayer: 'unpacking',
  mergeChain: 'merging',
  removeMerge: 'removing',
  recordChain: 'recording',
  mountView: 'mounting',
  dismountView: 'mounting',
  removeLayer: 'removing',
  forget: 'recording',
};

/** What only adds to the host, under names that its content determines: it may go on while another plan is made. */
const ADDITIVE: ReadonlySet<WorkClass> = new Set(['resolving', 'unpacking', 'merging']);

/** An action being done. */
export interface RunningAction {
  action: PlannedAction;
  /** Settles with the action. */
  done: Promise<void>;
  abort(): void;
  arrivals: Arrivals;
}

export interface ScheduleOptions {
  concurrency: Concurrency;
  /** Aborting starts nothing more; what runs is told, and waited for. */
  signal: AbortSignal;
  /**
   * Aborting starts nothing more, except what can start at once, and waits only for what changes or removes; what builds
   * is handed back.
   */
  pause?: AbortSignal | undefined;
  /** What a paused run handed back. What is no longer planned like that is aborted first, and waited for. */
  carriedOver?: readonly RunningAction[] | undefined;
  /** Does it; rejects when it failed. Blobs that `arrivals` is told of may be unpacked before it has ended. */
  perform: (action: PlannedAction, signal: AbortSignal, arrivals: Arrivals) => Promise<void>;
  onSucceeded: (action: PlannedAction) => void;
  onFailed: (action: PlannedAction, error: Error) => void;
  onSkipped: (action: PlannedAction, because: string) => void;
}

export interface ScheduleResult extends ExecutionResult {
  /** What still runs: something only when paused. */
  unfinished: RunningAction[];
}

/**
 * What depends on a failed action is skipped, everything else is done. A layer doesn't wait for all of its image, only
 * for its own blob.
 */
export async function runActions(
  actions: readonly PlannedAction[],
  options: ScheduleOptions,
): Promise<ScheduleResult> {
  const { signal, pause } = options;
  const adopted = await adopt(options.carriedOver ?? [], actions);
  const result: ExecutionResult = { succeeded: 0, failed: [], skipped: [] };
  const byId = new Map(actions.map((action) => [action.id, action]));
  const waiting = new Map<string, number>();
  const dependants = new Map<string, PlannedAction[]>();
  const queues = new Map<WorkClass, { ready: PlannedAction[]; next: number; running: number }>();
  const settled = new Set<string>();
  const running = new Map<string, { started: RunningAction; settling: Promise<void> }>();
  let somethingArrived = Promise.withResolvers<void>();
  let isHandedBack = false;

  const queueOf = (action: PlannedAction) => {
    const name = CLASSES[action.work.do];
    const known = queues.get(name);
    if (known !== undefined) return known;
    const queue = { ready: [], next: 0, running: 0 };
    queues.set(name, queue);
    return queue;
  };
  const skip = (first: PlannedAction, because: string) => {
    const pending = [{ action: first, because }];
    for (let entry = pending.pop(); entry !== undefined; entry = pending.pop()) {
      if (settled.has(entry.action.id) || running.has(entry.action.id)) continue;
      settled.add(entry.action.id);
      result.skipped.push(entry);
      options.onSkipped(entry.action, entry.because);
      for (const action of dependants.get(entry.action.id) ?? [])
        pending.push({ action, because: entry.because });
    }
  };
  /** One thing less that it waits for. */
  const release = (action: PlannedAction) => {
    const left = (waiting.get(action.id) ?? 0) - 1;
    waiting.set(action.id, left);
    if (left === 0 && !settled.has(action.id) && !adopted.has(action.id)) queueOf(action).ready.push(action);
  };
  const settle = async (action: PlannedAction, done: Promise<void>) => {
    const error = await done.then(
      () => undefined,
      (thrown: unknown) => (thrown instanceof Error ? thrown : new Error(String(thrown))),
    );
    if (isHandedBack) return;
    settled.add(action.id);
    if (error !== undefined) {
      result.failed.push({ action, error });
      options.onFailed(action, error);
      for (const dependant of dependants.get(action.id) ?? []) skip(dependant, `${action.id} failed`);
      return;
    }
    result.succeeded++;
    options.onSucceeded(action);
    for (const dependant of dependants.get(action.id) ?? []) release(dependant);
  };
  const arrived = (action: PlannedAction, digest: Digest) => {
    const all = dependants.get(action.id) ?? [];
    dependants.set(
      action.id,
      all.filter(({ work }) => !unpacks(work, digest)),
    );
    for (const dependant of all) if (unpacks(dependant.work, digest)) release(dependant);
    somethingArrived.resolve();
  };
  const start = (action: PlannedAction) => {
    const queue = queueOf(action);
    const started = adopted.get(action.id) ?? startAction(action, options);
    queue.running++;
    const settling = settle(action, started.done).finally(() => {
      queue.running--;
      running.delete(action.id);
    });
    running.set(action.id, { started, settling });
    started.arrivals.listen((digest) => arrived(action, digest));
  };
  const startReady = () => {
    for (const [name, queue] of queues) {
      while (queue.running < options.concurrency[name]) {
        const action = queue.ready[queue.next];
        if (action === undefined) break;
        queue.next++;
        start(action);
      }
    }
  };
  const isPaused = () => pause?.aborted === true && !signal.aborted;
  const mustWait = () =>
    [...running.values()].filter(
      ({ started }) => !isPaused() || !ADDITIVE.has(CLASSES[started.action.work.do]),
    );

  for (const action of actions) {
    const dependencies = action.dependsOn.filter((id) => byId.has(id));
    waiting.set(action.id, dependencies.length);
    for (const id of dependencies) {
      const known = dependants.get(id);
      if (known === undefined) dependants.set(id, [action]);
      else known.push(action);
    }
    if (dependencies.length === 0 && !adopted.has(action.id)) queueOf(action).ready.push(action);
  }
  for (const action of actions) if (adopted.has(action.id)) start(action);
  const paused = abortOf(pause);
  try {
    // Also when paused by now: each run starts something, however fast they follow one another.
    if (!signal.aborted) startReady();
    for (;;) {
      somethingArrived = Promise.withResolvers();
      if (!signal.aborted && !isPaused()) startReady();
      const awaited = mustWait().map(({ settling }) => settling);
      if (awaited.length === 0) break;
      const news = pause?.aborted === true ? [] : [paused.happened, somethingArrived.promise];
      await Promise.race([...awaited, ...news]);
    }
  } catch (error) {
    // Only a bug or a failing state database gets here; what is being done to the host is waited for all the same.
    await Promise.allSettled([...running.values()].map(({ settling }) => settling));
    throw error;
  } finally {
    paused.forget();
  }
  if (isPaused()) {
    isHandedBack = true;
    return { ...result, unfinished: [...running.values()].map(({ started }) => started) };
  }
  for (const action of actions) {
    if (settled.has(action.id)) continue;
    if (!signal.aborted) throw new CimletError('failed-precondition', `${action.id} waits for itself`);
    skip(action, 'cancelled');
  }
  return { ...result, unfinished: [] };
}

/** Signals tied together by hand: on Node 22 one that lives long keeps something of each `AbortSignal.any` made of it. */
function startAction(action: PlannedAction, { perform, signal }: ScheduleOptions): RunningAction {
  const own = new AbortController();
  const abort = (): void => own.abort();
  if (signal.aborted) abort();
  signal.addEventListener('abort', abort, { once: true });
  const arrivals = new Arrivals();
  const done = perform(action, own.signal, arrivals).finally(() =>
    signal.removeEventListener('abort', abort),
  );
  return { action, done, abort, arrivals };
}

function unpacks(work: Work, digest: Digest): boolean {
  return work.do === 'buildLayer' && work.request.blob.digest === digest;
}

/** Of what still runs, by id, what is planned again as it is; aborts the rest and waits until it has ended. */
async function adopt(
  carriedOver: readonly RunningAction[],
  actions: readonly PlannedAction[],
): Promise<Map<string, RunningAction>> {
  const wanted = new Map(actions.map((action) => [action.id, essenceOf(action.work)]));
  const isWanted = ({ action }: RunningAction) => wanted.get(action.id) === essenceOf(action.work);
  await abandon(carriedOver.filter((entry) => !isWanted(entry)));
  return new Map(carriedOver.filter(isWanted).map((entry) => [entry.action.id, entry]));
}

/** What a work comes to: a blob is what its digest says, wherever a new revision has put it. */
function essenceOf(work: Work): string {
  return JSON.stringify(work, (key, value: unknown) =>
    key === 'blob' || key === 'blobs' ? digestsOf(value) : value,
  );
}

function digestsOf(blobs: unknown): unknown {
  return [blobs].flat().map((blob) => (blob as LayerBlob).digest);
}

/** Aborts and waits. How they end is nobody's business any more: what is there is seen when it is next looked. */
export async function abandon(running: readonly RunningAction[]): Promise<void> {
  for (const { abort } of running) abort();
  await Promise.allSettled(running.map(({ done }) => done));
}

function abortOf(signal: AbortSignal | undefined): { happened: Promise<void>; forget(): void } {
  const { promise, resolve } = Promise.withResolvers<void>();
  const onAbort = (): void => resolve();
  signal?.addEventListener('abort', onAbort, { once: true });
  return { happened: promise, forget: () => signal?.removeEventListener('abort', onAbort) };
}
