/**
 * One layer's snapshot, from nothing to committed or back to nothing. Retries and cancellation: effect-machine.ts.
 * Merging: merge-machine.ts.
 *
 * | state      | trigger                                 | next       |
 * |------------|-----------------------------------------|------------|
 * | observing  | wanted absent, is absent                | absent     |
 * |            | wanted absent, is there                 | removing   |
 * |            | wanted committed, is committed          | committed  |
 * |            | wanted committed, is damaged or absent  | unpacking  |
 * | unpacking  | done                                    | committing |
 * | committing | done                                    | committed  |
 * | removing   | done                                    | absent     |
 */

import type { CommittedLayer, LayerRef, UnpackRequest } from '../hosts/host.ts';
import { createEffectMachine } from './effect-machine.ts';
import type { RetryPolicy } from './retry.ts';

/** Each may be repeated after success, failure or a crash halfway. */
export interface SnapshotEffects {
  unpackLayer(request: UnpackRequest): Promise<void>;
  commitLayer(ref: LayerRef): Promise<CommittedLayer>;
  removeLayer(ref: LayerRef): Promise<void>;
}

export type SnapshotGoal =
  | { state: 'committed'; request: UnpackRequest }
  | { state: 'absent'; ref: LayerRef };

export interface SnapshotInput {
  goal: SnapshotGoal;
  observed: 'absent' | 'committed' | 'drifted';
  retry: RetryPolicy;
}

export function createSnapshotMachine(effects: SnapshotEffects) {
  const isWanted = ({ goal }: SnapshotInput) => goal.state === 'committed';
  return createEffectMachine<SnapshotInput>({
    id: 'snapshot',
    subject: ({ goal }) => `snapshot ${refOf(goal).chainId}`,
    start: [
      { to: 'absent', when: (input) => !isWanted(input) && input.observed === 'absent' },
      { to: 'removing', when: (input) => !isWanted(input) },
      { to: 'committed', when: ({ observed }) => observed === 'committed' },
      { to: 'unpacking' },
    ],
    effects: {
      unpacking: {
        effect: async ({ goal }) => {
          if (goal.state === 'committed') await effects.unpackLayer(goal.request);
        },
        next: [{ to: 'committing' }],
      },
      committing: { effect: ({ goal }) => effects.commitLayer(refOf(goal)), next: [{ to: 'committed' }] },
      removing: { effect: ({ goal }) => effects.removeLayer(refOf(goal)), next: [{ to: 'absent' }] },
    },
    ends: ['committed', 'absent'],
  });
}

function refOf(goal: SnapshotGoal): LayerRef {
  const { chainId, format } = goal.state === 'committed' ? goal.request : goal.ref;
  return { chainId, format };
}
