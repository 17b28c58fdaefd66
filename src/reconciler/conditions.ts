/** Conditions as kstatus reads them: Ready alone, or not Ready and either Reconciling or Stalled; and how it came to them. */

import type { Condition, ConditionType, OutcomeRecord } from '../state/records.ts';

export interface Outcome {
  state: 'ready' | 'reconciling' | 'stalled';
  /** CamelCase. */
  reason: string;
  message: string;
}

const SHAPES: Record<Outcome['state'], { ready: Condition['status']; other?: ConditionType }> = {
  ready: { ready: 'True' },
  reconciling: { ready: 'False', other: 'Reconciling' },
  stalled: { ready: 'False', other: 'Stalled' },
};

/** The conditions after an outcome. A condition that keeps its status keeps its transition time. `now`: ISO 8601. */
export function nextConditions(
  previous: readonly Condition[],
  outcome: Outcome,
  generation: number,
  now: string,
): Condition[] {
  const shape = SHAPES[outcome.state];
  const make = (type: ConditionType, status: Condition['status']): Condition => {
    const known = previous.find((condition) => condition.type === type);
    return {
      type,
      status,
      reason: outcome.reason,
      message: outcome.message,
      lastTransitionTime: known?.status === status ? known.lastTransitionTime : now,
      observedGeneration: generation,
    };
  };
  const ready = make('Ready', shape.ready);
  return shape.other === undefined ? [ready] : [ready, make(shape.other, 'True')];
}

const HISTORY_KEPT = 5;

const RESULTS: Record<Outcome['state'], OutcomeRecord['result']> = {
  ready: 'Ready',
  reconciling: 'Retrying',
  stalled: 'Stalled',
};

/**
 * The history with one more outcome, the latest first; the same again counts up, unless `isAttempt` is false: then it
 * is only why nothing was attempted. `now`: ISO 8601.
 */
export function nextHistory(
  previous: readonly OutcomeRecord[],
  outcome: Outcome & { revision: string; isAttempt: boolean },
  now: string,
): readonly OutcomeRecord[] {
  const { state, reason, message, revision, isAttempt } = outcome;
  const [latest, ...older] = previous;
  const result = RESULTS[state];
  const isSame =
    latest?.result === result &&
    latest.reason === reason &&
    latest.message === message &&
    latest.revision === revision;
  if (!isSame) {
    const entry = { result, reason, message, revision, count: 1, firstTime: now, lastTime: now };
    return [entry, ...previous].slice(0, HISTORY_KEPT);
  }
  return isAttempt ? [{ ...latest, count: latest.count + 1, lastTime: now }, ...older] : previous;
}

/** `failed-precondition` -> `FailedPrecondition`. */
export function reasonOf(code: string): string {
  return code
    .split('-')
    .map((word) => word.slice(0, 1).toUpperCase() + word.slice(1))
    .join('');
}
