/** Conditions as kstatus reads them: Ready alone, or not Ready and either Reconciling or Stalled. */

import type { Condition, ConditionType } from '../state/records.ts';

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

/** `failed-precondition` -> `FailedPrecondition`. */
export function reasonOf(code: string): string {
  return code
    .split('-')
    .map((word) => word.slice(0, 1).toUpperCase() + word.slice(1))
    .join('');
}
