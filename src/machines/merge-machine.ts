/**
 * The merged CIM of one chain, from nothing to merged or back to nothing. Retries and cancellation: effect-machine.ts.
 *
 * | state     | trigger       | next     |
 * |-----------|---------------|----------|
 * | observing | wanted merged | merging  |
 * |           | wanted absent | removing |
 * | merging   | done          | merged   |
 * | removing  | done          | absent   |
 *
 * Its layers are committed by then: each has a machine of its own.
 */

import type { LayerRef, MergedChain, MergeRequest } from '../hosts/host.ts';
import { createEffectMachine } from './effect-machine.ts';
import type { RetryPolicy } from './retry.ts';

/** Each may be repeated after success, failure or a crash halfway. */
export interface MergeEffects {
  mergeChain(request: MergeRequest): Promise<MergedChain>;
  removeMerge(top: LayerRef): Promise<void>;
}

export type MergeGoal = { state: 'merged'; request: MergeRequest } | { state: 'absent'; top: LayerRef };

export interface MergeInput {
  goal: MergeGoal;
  retry: RetryPolicy;
}

export function createMergeMachine(effects: MergeEffects) {
  return createEffectMachine<MergeInput>({
    id: 'merge',
    subject: () => 'merge',
    start: [{ to: 'removing', when: ({ goal }) => goal.state === 'absent' }, { to: 'merging' }],
    effects: {
      merging: {
        effect: async ({ goal }) => {
          if (goal.state === 'merged') await effects.mergeChain(goal.request);
        },
        next: [{ to: 'merged' }],
      },
      removing: {
        effect: async ({ goal }) => {
          if (goal.state === 'absent') await effects.removeMerge(goal.top);
        },
        next: [{ to: 'absent' }],
      },
    },
    ends: ['merged', 'absent'],
  });
}
