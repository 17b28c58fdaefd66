/**
 * One Mount's view, from nothing to mounted, from one view to the next, or back to nothing. Retries and cancellation:
 * effect-machine.ts.
 *
 * | state       | trigger                           | next        |
 * |-------------|-----------------------------------|-------------|
 * | observing   | something of ours has to go first | dismounting |
 * |             | otherwise                         | mounting    |
 * | dismounting | done, wanted absent               | absent      |
 * |             | done, wanted mounted              | mounting    |
 * | mounting    | done                              | mounted     |
 *
 * A failure while mounting keeps what dismounting did: the retry resumes halfway.
 */

import type { MountedView, MountRequest, VolumeGuid } from '../hosts/host.ts';
import { createEffectMachine } from './effect-machine.ts';
import type { RetryPolicy } from './retry.ts';

/** Each may be repeated after success, failure or a crash halfway. */
export interface MountEffects {
  mount(request: MountRequest): Promise<MountedView>;
  dismount(volumeGuid: VolumeGuid): Promise<void>;
}

export type MountGoal =
  | { state: 'mounted'; request: MountRequest; replaces?: VolumeGuid | undefined }
  | { state: 'absent'; volumeGuid: VolumeGuid };

export interface MountInput {
  goal: MountGoal;
  retry: RetryPolicy;
}

export function createMountMachine(effects: MountEffects) {
  return createEffectMachine<MountInput>({
    id: 'mount',
    subject: () => 'mount',
    start: [{ to: 'dismounting', when: ({ goal }) => leaverOf(goal) !== undefined }, { to: 'mounting' }],
    effects: {
      dismounting: {
        effect: async ({ goal }) => {
          const volumeGuid = leaverOf(goal);
          if (volumeGuid !== undefined) await effects.dismount(volumeGuid);
        },
        next: [{ to: 'absent', when: ({ goal }) => goal.state === 'absent' }, { to: 'mounting' }],
      },
      mounting: {
        effect: async ({ goal }) => {
          if (goal.state === 'mounted') await effects.mount(goal.request);
        },
        next: [{ to: 'mounted' }],
      },
    },
    ends: ['mounted', 'absent'],
  });
}

function leaverOf(goal: MountGoal): VolumeGuid | undefined {
  return goal.state === 'absent' ? goal.volumeGuid : goal.replaces;
}
