/**
 * One Mount's view, from nothing to mounted, from one view to the next, or back to nothing. Retries and cancellation:
 * effect-machine.ts.
 *
 * | state       | trigger                           | next        |
 * |-------------|-----------------------------------|-------------|
 * | observing   | something of ours has to go first | dismounting |
 * |             | wanted writable                   | preparing   |
 * |             | otherwise                         | mounting    |
 * | dismounting | done, wanted absent with snapshot | removing    |
 * |             | done, wanted absent               | absent      |
 * |             | done, wanted writable             | preparing   |
 * |             | done, wanted read-only            | mounting    |
 * | preparing   | done                              | mounting    |
 * | mounting    | done                              | mounted     |
 * | removing    | done                              | absent      |
 *
 * A failure while mounting keeps what dismounting did: the retry resumes halfway. What was written to a snapshot goes with it in
 * removing, and nowhere else.
 */

import type {
  DismountOptions,
  MountedView,
  MountRequest,
  SnapshotRequest,
  VolumeGuid,
} from '../hosts/host.ts';
import { createEffectMachine, type Way } from './effect-machine.ts';
import type { RetryPolicy } from './retry.ts';

/** Each may be repeated after success, failure or a crash halfway. */
export interface MountEffects {
  mount(request: MountRequest): Promise<MountedView>;
  dismount(volumeGuid: VolumeGuid, options: DismountOptions): Promise<void>;
  prepareSnapshot(request: SnapshotRequest): Promise<void>;
  removeSnapshot(key: string): Promise<void>;
}

export type MountGoal =
  | {
      state: 'mounted';
      request: MountRequest;
      /** What takes the writes. */
      snapshot?: SnapshotRequest | undefined;
      replaces?: VolumeGuid | undefined;
    }
  | { state: 'absent'; volumeGuid: VolumeGuid /** What goes with it. */; snapshot?: string | undefined };

export interface MountInput {
  goal: MountGoal;
  retry: RetryPolicy;
}

const toMounted: readonly Way<MountInput>[] = [
  { to: 'preparing', when: ({ goal }) => goal.state === 'mounted' && goal.snapshot !== undefined },
  { to: 'mounting' },
];

export function createMountMachine(effects: MountEffects) {
  return createEffectMachine<MountInput>({
    id: 'mount',
    subject: () => 'mount',
    start: [{ to: 'dismounting', when: ({ goal }) => leaverOf(goal) !== undefined }, ...toMounted],
    effects: {
      dismounting: {
        effect: async ({ goal }) => {
          const volumeGuid = leaverOf(goal);
          const toShowAgain = goal.state === 'mounted' && goal.snapshot !== undefined;
          if (volumeGuid !== undefined) await effects.dismount(volumeGuid, { toShowAgain });
        },
        next: [
          { to: 'removing', when: ({ goal }) => goal.state === 'absent' && goal.snapshot !== undefined },
          { to: 'absent', when: ({ goal }) => goal.state === 'absent' },
          ...toMounted,
        ],
      },
      preparing: {
        effect: async ({ goal }) => {
          if (goal.state === 'mounted' && goal.snapshot !== undefined)
            await effects.prepareSnapshot(goal.snapshot);
        },
        next: [{ to: 'mounting' }],
      },
      mounting: {
        effect: async ({ goal }) => {
          if (goal.state === 'mounted') await effects.mount(goal.request);
        },
        next: [{ to: 'mounted' }],
      },
      removing: {
        effect: async ({ goal }) => {
          if (goal.state === 'absent' && goal.snapshot !== undefined)
            await effects.removeSnapshot(goal.snapshot);
        },
        next: [{ to: 'absent' }],
      },
    },
    ends: ['mounted', 'absent'],
  });
}

function leaverOf(goal: MountGoal): VolumeGuid | undefined {
  return goal.state === 'absent' ? goal.volumeGuid : goal.replaces;
}
