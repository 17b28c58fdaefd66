/**
 * One layer's snapshot, from nothing to committed or back to nothing.
 *
 * | state      | trigger                                   | next                                            |
 * |------------|-------------------------------------------|-------------------------------------------------|
 * | observing  | wanted absent, is absent                  | absent                                          |
 * |            | wanted absent, is there                   | removing                                        |
 * |            | wanted committed, is committed            | committed                                       |
 * |            | wanted committed, is damaged              | drifted                                         |
 * |            | wanted committed, is absent               | unpacking                                       |
 * | drifted    | (at once)                                 | unpacking                                       |
 * | unpacking  | done                                      | committing; stalled when cancelled meanwhile    |
 * | committing | done                                      | committed                                       |
 * | removing   | done                                      | absent                                          |
 * | any effect | error worth a retry, attempts left        | backingOff                                      |
 * |            | any other error                           | stalled                                         |
 * | backingOff | delay over                                | the state it came from                          |
 * |            | work.cancelled                            | stalled                                         |
 *
 * A state with an effect is left only by the effect's result; `work.cancelled` meanwhile is remembered. Nothing is
 * persisted: whoever starts again observes, and enters where the host says. Merging: merge-machine.ts.
 */

import { assign, fromPromise, setup } from 'xstate';
import type { CommittedLayer, LayerRef, UnpackRequest } from '../hosts/host.ts';
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

export interface SnapshotContext extends RetryContext {
  goal: SnapshotGoal;
  observed: SnapshotInput['observed'];
  /** Where backing off leads back to. */
  resume: 'unpacking' | 'committing' | 'removing';
}

export type SnapshotEvent = { type: 'work.cancelled' };

function refOf(goal: SnapshotGoal): LayerRef {
  const { chainId, format } = goal.state === 'committed' ? goal.request : goal.ref;
  return { chainId, format };
}

export function createSnapshotMachine(effects: SnapshotEffects) {
  return setup({
    types: {
      input: {} as SnapshotInput,
      context: {} as SnapshotContext,
      events: {} as SnapshotEvent,
    },
    actors: {
      unpack: fromPromise(async ({ input }: { input: SnapshotGoal }) => {
        if (input.state === 'committed') await effects.unpackLayer(input.request);
      }),
      commit: fromPromise(({ input }: { input: LayerRef }) => effects.commitLayer(input)),
      remove: fromPromise(({ input }: { input: LayerRef }) => effects.removeLayer(input)),
    },
    guards: {
      isDoneAbsent: ({ context }) => context.goal.state === 'absent' && context.observed === 'absent',
      wantsAbsent: ({ context }) => context.goal.state === 'absent',
      isCommitted: ({ context }) => context.observed === 'committed',
      isDrifted: ({ context }) => context.observed === 'drifted',
      isCancelled: ({ context }) => context.isCancelled,
      mayRetry: ({ context }, { error }: { error: unknown }) => mayRetry(context, error),
      wasCommitting: ({ context }) => context.resume === 'committing',
      wasRemoving: ({ context }) => context.resume === 'removing',
    },
    delays: { backoff: ({ context }) => backoffMs(context) },
    actions: {
      rememberError: assign({
        attempts: ({ context }) => context.attempts + 1,
        lastError: (_, { error }: { error: unknown }) => asError(error),
      }),
      rememberState: assign({ resume: (_, { state }: { state: SnapshotContext['resume'] }) => state }),
      rememberCancellation: assign({ isCancelled: true }),
      giveUp: assign({ lastError: ({ context }) => cancellation(`snapshot ${refOf(context.goal).chainId}`) }),
      startAfresh: assign({ attempts: 0, lastError: undefined }),
    },
  }).createMachine({
    id: 'snapshot',
    context: ({ input }) => ({
      ...startRetrying(input.retry),
      goal: input.goal,
      observed: input.observed,
      resume: 'unpacking',
    }),
    initial: 'observing',
    on: { 'work.cancelled': { actions: 'rememberCancellation' } },
    states: {
      observing: {
        always: [
          { guard: 'isDoneAbsent', target: 'absent' },
          { guard: 'wantsAbsent', target: 'removing' },
          { guard: 'isCommitted', target: 'committed' },
          { guard: 'isDrifted', target: 'drifted' },
          { target: 'unpacking' },
        ],
      },
      drifted: { always: 'unpacking' },
      unpacking: {
        entry: { type: 'rememberState', params: { state: 'unpacking' } },
        invoke: {
          src: 'unpack',
          input: ({ context }) => context.goal,
          onDone: [
            { guard: 'isCancelled', target: 'stalled', actions: 'giveUp' },
            { target: 'committing', actions: 'startAfresh' },
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
      committing: {
        entry: { type: 'rememberState', params: { state: 'committing' } },
        invoke: {
          src: 'commit',
          input: ({ context }) => refOf(context.goal),
          onDone: { target: 'committed', actions: 'startAfresh' },
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
        entry: { type: 'rememberState', params: { state: 'removing' } },
        invoke: {
          src: 'remove',
          input: ({ context }) => refOf(context.goal),
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
        after: {
          backoff: [
            { guard: 'wasCommitting', target: 'committing' },
            { guard: 'wasRemoving', target: 'removing' },
            { target: 'unpacking' },
          ],
        },
      },
      committed: { type: 'final' },
      absent: { type: 'final' },
      stalled: { type: 'final' },
    },
  });
}
