/**
 * One Mount's view, from nothing to mounted, from one view to the next, or back to nothing.
 *
 * | state       | trigger                                   | next                                           |
 * |-------------|-------------------------------------------|------------------------------------------------|
 * | observing   | something of ours has to go first         | dismounting                                    |
 * |             | otherwise                                 | mounting                                       |
 * | dismounting | done, wanted absent                       | absent                                         |
 * |             | done, wanted mounted                      | mounting; stalled when cancelled meanwhile     |
 * | mounting    | done                                      | mounted                                        |
 * | any effect  | error worth a retry, attempts left        | backingOff                                     |
 * |             | any other error                           | stalled                                        |
 * | backingOff  | delay over                                | the state it came from                         |
 * |             | work.cancelled                            | stalled                                        |
 *
 * A failure while mounting keeps what dismounting did: the retry resumes halfway. A state with an effect is left only
 * by the effect's result; `work.cancelled` meanwhile is remembered.
 */

import { assign, fromPromise, setup } from 'xstate';
import type { MountedView, MountRequest, VolumeGuid } from '../hosts/host.ts';
import {
  asError,
  backoffMs,
  cancellation,
  mayRetry,
  type RetryContext,
  type RetryPolicy,
  startRetrying,
} from './retry.ts';

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

export interface MountContext extends RetryContext {
  goal: MountGoal;
  /** Where backing off leads back to. */
  resume: 'mounting' | 'dismounting';
}

export type MountEvent = { type: 'work.cancelled' };

function leaverOf(goal: MountGoal): VolumeGuid | undefined {
  return goal.state === 'absent' ? goal.volumeGuid : goal.replaces;
}

export function createMountMachine(effects: MountEffects) {
  return setup({
    types: {
      input: {} as MountInput,
      context: {} as MountContext,
      events: {} as MountEvent,
    },
    actors: {
      mount: fromPromise(async ({ input }: { input: MountGoal }) => {
        if (input.state === 'mounted') await effects.mount(input.request);
      }),
      dismount: fromPromise(async ({ input }: { input: MountGoal }) => {
        const volumeGuid = leaverOf(input);
        if (volumeGuid !== undefined) await effects.dismount(volumeGuid);
      }),
    },
    guards: {
      mustLeaveFirst: ({ context }) => leaverOf(context.goal) !== undefined,
      wantsAbsent: ({ context }) => context.goal.state === 'absent',
      isCancelled: ({ context }) => context.isCancelled,
      mayRetry: ({ context }, { error }: { error: unknown }) => mayRetry(context, error),
      wasDismounting: ({ context }) => context.resume === 'dismounting',
    },
    delays: { backoff: ({ context }) => backoffMs(context) },
    actions: {
      rememberError: assign({
        attempts: ({ context }) => context.attempts + 1,
        lastError: (_, { error }: { error: unknown }) => asError(error),
      }),
      rememberState: assign({ resume: (_, { state }: { state: MountContext['resume'] }) => state }),
      rememberCancellation: assign({ isCancelled: true }),
      giveUp: assign({ lastError: () => cancellation('mount') }),
      startAfresh: assign({ attempts: 0, lastError: undefined }),
    },
  }).createMachine({
    id: 'mount',
    context: ({ input }) => ({ ...startRetrying(input.retry), goal: input.goal, resume: 'mounting' }),
    initial: 'observing',
    on: { 'work.cancelled': { actions: 'rememberCancellation' } },
    states: {
      observing: {
        always: [{ guard: 'mustLeaveFirst', target: 'dismounting' }, { target: 'mounting' }],
      },
      dismounting: {
        entry: { type: 'rememberState', params: { state: 'dismounting' } },
        invoke: {
          src: 'dismount',
          input: ({ context }) => context.goal,
          onDone: [
            { guard: 'wantsAbsent', target: 'absent', actions: 'startAfresh' },
            { guard: 'isCancelled', target: 'stalled', actions: 'giveUp' },
            { target: 'mounting', actions: 'startAfresh' },
          ],
          onError: [
            {
              guard: { type: 'mayRetry', params: ({ event }) => event },
              target: 'backingOff',
              actions: { type: 'rememberError', params: ({ event }) => event },
            },
            { target: 'stalled', actions: { type: 'rememberError', params: ({ event }) => event } },
          ],
        },
      },
      mounting: {
        entry: { type: 'rememberState', params: { state: 'mounting' } },
        invoke: {
          src: 'mount',
          input: ({ context }) => context.goal,
          onDone: { target: 'mounted', actions: 'startAfresh' },
          onError: [
            {
              guard: { type: 'mayRetry', params: ({ event }) => event },
              target: 'backingOff',
              actions: { type: 'rememberError', params: ({ event }) => event },
            },
            { target: 'stalled', actions: { type: 'rememberError', params: ({ event }) => event } },
          ],
        },
      },
      backingOff: {
        on: { 'work.cancelled': { target: 'stalled', actions: ['rememberCancellation', 'giveUp'] } },
        after: { backoff: [{ guard: 'wasDismounting', target: 'dismounting' }, { target: 'mounting' }] },
      },
      mounted: { type: 'final' },
      absent: { type: 'final' },
      stalled: { type: 'final' },
    },
  });
}
