/**
 * The merged CIM of one chain, from nothing to merged or back to nothing.
 *
 * | state      | trigger                                   | next                                            |
 * |------------|-------------------------------------------|-------------------------------------------------|
 * | observing  | wanted merged                             | merging                                         |
 * |            | wanted absent                             | removing                                        |
 * | merging    | done                                      | merged                                          |
 * | removing   | done                                      | absent                                          |
 * | any effect | error worth a retry, attempts left        | backingOff                                      |
 * |            | any other error                           | stalled                                         |
 * | backingOff | delay over                                | the state it came from                          |
 * |            | work.cancelled                            | stalled                                         |
 *
 * Its layers are committed by then: each has a machine of its own. A state with an effect is left only by the effect's
 * result; `work.cancelled` meanwhile is remembered.
 */

import { assign, fromPromise, setup } from 'xstate';
import type { LayerRef, MergedChain, MergeRequest } from '../hosts/host.ts';
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
export interface MergeEffects {
  mergeChain(request: MergeRequest): Promise<MergedChain>;
  removeMerge(top: LayerRef): Promise<void>;
}

export type MergeGoal = { state: 'merged'; request: MergeRequest } | { state: 'absent'; top: LayerRef };

export interface MergeInput {
  goal: MergeGoal;
  retry: RetryPolicy;
}

export interface MergeContext extends RetryContext {
  goal: MergeGoal;
}

export type MergeEvent = { type: 'work.cancelled' };

export function createMergeMachine(effects: MergeEffects) {
  return setup({
    types: {
      input: {} as MergeInput,
      context: {} as MergeContext,
      events: {} as MergeEvent,
    },
    actors: {
      merge: fromPromise(async ({ input }: { input: MergeGoal }) => {
        if (input.state === 'merged') await effects.mergeChain(input.request);
      }),
      remove: fromPromise(async ({ input }: { input: MergeGoal }) => {
        if (input.state === 'absent') await effects.removeMerge(input.top);
      }),
    },
    guards: {
      wantsAbsent: ({ context }) => context.goal.state === 'absent',
      mayRetry: ({ context }, { error }: { error: unknown }) => mayRetry(context, error),
    },
    delays: { backoff: ({ context }) => backoffMs(context) },
    actions: {
      rememberError: assign({
        attempts: ({ context }) => context.attempts + 1,
        lastError: (_, { error }: { error: unknown }) => asError(error),
      }),
      rememberCancellation: assign({ isCancelled: true }),
      giveUp: assign({ lastError: () => cancellation('merge') }),
      startAfresh: assign({ attempts: 0, lastError: undefined }),
    },
  }).createMachine({
    id: 'merge',
    context: ({ input }) => ({ ...startRetrying(input.retry), goal: input.goal }),
    initial: 'observing',
    on: { 'work.cancelled': { actions: 'rememberCancellation' } },
    states: {
      observing: {
        always: [{ guard: 'wantsAbsent', target: 'removing' }, { target: 'merging' }],
      },
      merging: {
        invoke: {
          src: 'merge',
          input: ({ context }) => context.goal,
          onDone: { target: 'merged', actions: 'startAfresh' },
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
      removing: {
        invoke: {
          src: 'remove',
          input: ({ context }) => context.goal,
          onDone: { target: 'absent', actions: 'startAfresh' },
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
        after: { backoff: [{ guard: 'wantsAbsent', target: 'removing' }, { target: 'merging' }] },
      },
      merged: { type: 'final' },
      absent: { type: 'final' },
      stalled: { type: 'final' },
    },
  });
}
