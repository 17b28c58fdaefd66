/**
 * One Image: known by the digest it was planned with, and its layer blobs at hand.
 *
 * | state      | trigger                                   | next                                            |
 * |------------|-------------------------------------------|-------------------------------------------------|
 * | resolving  | done                                      | fetching; stalled when cancelled meanwhile      |
 * | fetching   | done                                      | present                                         |
 * | any effect | error worth a retry, attempts left        | backingOff                                      |
 * |            | any other error                           | stalled                                         |
 * | backingOff | delay over                                | the state it came from                          |
 * |            | work.cancelled                            | stalled                                         |
 *
 * A state with an effect is left only by the effect's result; `work.cancelled` meanwhile is remembered.
 */

import { assign, fromPromise, setup } from 'xstate';
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
export interface ImageEffects {
  /** Throws when the image is not, or no longer, what the plan was made for. */
  resolveImage(image: string): Promise<void>;
  /** Brings the layer blobs here; those of a local layout only have to be there. */
  fetchBlobs(image: string): Promise<void>;
}

export interface ImageInput {
  image: string;
  retry: RetryPolicy;
}

export interface ImageContext extends RetryContext {
  image: string;
  /** Where backing off leads back to. */
  resume: 'resolving' | 'fetching';
}

export type ImageEvent = { type: 'work.cancelled' };

export function createImageMachine(effects: ImageEffects) {
  return setup({
    types: {
      input: {} as ImageInput,
      context: {} as ImageContext,
      events: {} as ImageEvent,
    },
    actors: {
      resolve: fromPromise(({ input }: { input: string }) => effects.resolveImage(input)),
      fetch: fromPromise(({ input }: { input: string }) => effects.fetchBlobs(input)),
    },
    guards: {
      isCancelled: ({ context }) => context.isCancelled,
      mayRetry: ({ context }, { error }: { error: unknown }) => mayRetry(context, error),
      wasFetching: ({ context }) => context.resume === 'fetching',
    },
    delays: { backoff: ({ context }) => backoffMs(context) },
    actions: {
      rememberError: assign({
        attempts: ({ context }) => context.attempts + 1,
        lastError: (_, { error }: { error: unknown }) => asError(error),
      }),
      rememberState: assign({ resume: (_, { state }: { state: ImageContext['resume'] }) => state }),
      rememberCancellation: assign({ isCancelled: true }),
      giveUp: assign({ lastError: ({ context }) => cancellation(`image ${context.image}`) }),
      startAfresh: assign({ attempts: 0, lastError: undefined }),
    },
  }).createMachine({
    id: 'image',
    context: ({ input }) => ({ ...startRetrying(input.retry), image: input.image, resume: 'resolving' }),
    initial: 'resolving',
    on: { 'work.cancelled': { actions: 'rememberCancellation' } },
    states: {
      resolving: {
        entry: { type: 'rememberState', params: { state: 'resolving' } },
        invoke: {
          src: 'resolve',
          input: ({ context }) => context.image,
          onDone: [
            { guard: 'isCancelled', target: 'stalled', actions: 'giveUp' },
            { target: 'fetching', actions: 'startAfresh' },
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
      fetching: {
        entry: { type: 'rememberState', params: { state: 'fetching' } },
        invoke: {
          src: 'fetch',
          input: ({ context }) => context.image,
          onDone: { target: 'present', actions: 'startAfresh' },
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
        after: { backoff: [{ guard: 'wasFetching', target: 'fetching' }, { target: 'resolving' }] },
      },
      present: { type: 'final' },
      stalled: { type: 'final' },
    },
  });
}
