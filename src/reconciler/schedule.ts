/** Runs actions in dependency order, as many at once as each class of work allows. */

import { CimletError } from '../errors.ts';
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

export interface ScheduleOptions {
  concurrency: Concurrency;
  /** Aborting starts nothing more; what runs is waited for. */
  signal: AbortSignal;
  /** Rejects when the action failed. */
  run: (action: PlannedAction) => Promise<void>;
  onSkipped: (action: PlannedAction, because: string) => void;
}

/** What depends on a failed action is skipped, everything else is done. */
export async function runActions(
  actions: readonly PlannedAction[],
  options: ScheduleOptions,
): Promise<ExecutionResult> {
  const result: ExecutionResult = { succeeded: 0, failed: [], skipped: [] };
  const byId = new Map(actions.map((action) => [action.id, action]));
  const waiting = new Map<string, number>();
  const dependants = new Map<string, PlannedAction[]>();
  const queues = new Map<WorkClass, { ready: PlannedAction[]; next: number; running: number }>();
  const settled = new Set<string>();
  const running = new Set<Promise<void>>();

  const enqueue = (action: PlannedAction) => {
    const name = CLASSES[action.work.do];
    const queue = queues.get(name);
    if (queue === undefined) queues.set(name, { ready: [action], next: 0, running: 0 });
    else queue.ready.push(action);
  };
  const skip = (first: PlannedAction, because: string) => {
    const pending = [{ action: first, because }];
    for (let entry = pending.pop(); entry !== undefined; entry = pending.pop()) {
      if (settled.has(entry.action.id)) continue;
      settled.add(entry.action.id);
      result.skipped.push(entry);
      options.onSkipped(entry.action, entry.because);
      for (const action of dependants.get(entry.action.id) ?? [])
        pending.push({ action, because: entry.because });
    }
  };
  const runOne = async (action: PlannedAction) => {
    try {
      await options.run(action);
    } catch (error) {
      settled.add(action.id);
      result.failed.push({ action, error: error instanceof Error ? error : new Error(String(error)) });
      for (const dependant of dependants.get(action.id) ?? []) skip(dependant, `${action.id} failed`);
      return;
    }
    settled.add(action.id);
    result.succeeded++;
    for (const dependant of dependants.get(action.id) ?? []) {
      const left = (waiting.get(dependant.id) ?? 0) - 1;
      waiting.set(dependant.id, left);
      if (left === 0 && !settled.has(dependant.id)) enqueue(dependant);
    }
  };
  const startReady = () => {
    for (const [name, queue] of queues) {
      while (queue.running < options.concurrency[name]) {
        const action = queue.ready[queue.next];
        if (action === undefined) break;
        queue.next++;
        queue.running++;
        const promise = runOne(action).finally(() => {
          queue.running--;
          running.delete(promise);
        });
        running.add(promise);
      }
    }
  };

  for (const action of actions) {
    const dependencies = action.dependsOn.filter((id) => byId.has(id));
    waiting.set(action.id, dependencies.length);
    for (const id of dependencies) {
      const known = dependants.get(id);
      if (known === undefined) dependants.set(id, [action]);
      else known.push(action);
    }
    if (dependencies.length === 0) enqueue(action);
  }
  for (;;) {
    if (!options.signal.aborted) startReady();
    if (running.size === 0) break;
    try {
      await Promise.race(running);
    } catch (error) {
      // Only a bug or a failing state database gets here; what is being done to the host is waited for all the same.
      await Promise.allSettled(running);
      throw error;
    }
  }
  for (const action of actions) {
    if (settled.has(action.id)) continue;
    if (!options.signal.aborted)
      throw new CimletError('failed-precondition', `${action.id} waits for itself`);
    skip(action, 'cancelled');
  }
  return result;
}
