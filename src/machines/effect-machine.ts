/**
 * What all machines are made of: states that each run one effect, and what happens when it fails.
 *
 * | state      | trigger                                   | next                                            |
 * |------------|-------------------------------------------|-------------------------------------------------|
 * | observing  | at once                                   | where the chart starts                          |
 * | any effect | done                                      | as the chart says                               |
 * |            | done, cancelled meanwhile, next an effect | stalled                                         |
 * |            | error worth a retry, attempts left        | backingOff                                      |
 * |            | any other error                           | stalled                                         |
 * | backingOff | delay over                                | the state it came from                          |
 * |            | work.cancelled                            | stalled                                         |
 *
 * A state with an effect is left only by the effect's result; `work.cancelled` meanwhile is remembered. Nothing is
 * persisted: whoever starts again observes, and enters where the host says.
 */

import { assign, createMachine, fromPromise } from 'xstate';
import {
  asError,
  backoffMs,
  cancellation,
  mayRetry,
  type RetryContext,
  type RetryPolicy,
  startRetrying,
} from './retry.ts';

/** A way on. The first whose condition holds, or that has none, is taken. */
export interface Way<Input> {
  to: string;
  when?: (input: Input) => boolean;
}

export interface EffectState<Input> {
  /** May be repeated after success, failure or a crash halfway. */
  effect(input: Input): Promise<unknown>;
  next: readonly Way<Input>[];
}

export interface EffectChart<Input> {
  id: string;
  /** What is worked on, for messages. */
  subject(input: Input): string;
  start: readonly Way<Input>[];
  effects: Readonly<Record<string, EffectState<Input>>>;
  /** Good ends. */
  ends: readonly string[];
}

export interface EffectContext<Input> extends RetryContext {
  input: Input;
  /** Where backing off leads back to. */
  resume: string;
}

export type EffectEvent = { type: 'work.cancelled' };

interface Moment<Input> {
  context: EffectContext<Input>;
}

export function createEffectMachine<Input extends { retry: RetryPolicy }>(chart: EffectChart<Input>) {
  const rememberError = assign(
    ({ context, event }: Moment<Input> & { event: EffectEvent | { type: string; error?: unknown } }) => ({
      attempts: context.attempts + 1,
      lastError: asError('error' in event ? event.error : undefined),
    }),
  );
  const giveUp = assign(({ context }: Moment<Input>) => ({
    lastError: cancellation(chart.subject(context.input)),
  }));
  const startAfresh = assign(() => ({ attempts: 0, lastError: undefined }));
  const holds =
    ({ when }: Way<Input>) =>
    ({ context }: Moment<Input>) =>
      when === undefined || when(context.input);
  const isCancelled = (way: Way<Input>) => (moment: Moment<Input>) =>
    holds(way)(moment) && moment.context.isCancelled;

  const effectState = ([name, { effect, next }]: [string, EffectState<Input>]) => [
    name,
    {
      entry: assign({ resume: name }),
      invoke: {
        src: fromPromise(({ input }: { input: Input }) => effect(input)),
        input: ({ context }: Moment<Input>) => context.input,
        onDone: next.flatMap((way) => [
          ...(way.to in chart.effects
            ? [{ guard: isCancelled(way), target: 'stalled', actions: giveUp }]
            : []),
          { guard: holds(way), target: way.to, actions: startAfresh },
        ]),
        onError: [
          {
            guard: ({ context, event }: Moment<Input> & { event: { error: unknown } }) =>
              mayRetry(context, event.error),
            target: 'backingOff',
            actions: rememberError,
          },
          { target: 'stalled', actions: rememberError },
        ],
      },
    },
  ];

  return createMachine(
    {
      types: {} as { input: Input; context: EffectContext<Input>; events: EffectEvent },
      id: chart.id,
      context: ({ input }) => ({ ...startRetrying(input.retry), input, resume: '' }),
      initial: 'observing',
      on: { 'work.cancelled': { actions: assign({ isCancelled: true }) } },
      states: {
        observing: { always: chart.start.map((way) => ({ guard: holds(way), target: way.to })) },
        ...Object.fromEntries(Object.entries(chart.effects).map(effectState)),
        backingOff: {
          on: { 'work.cancelled': { target: 'stalled', actions: [assign({ isCancelled: true }), giveUp] } },
          after: {
            backoff: Object.keys(chart.effects).map((name) => ({
              guard: ({ context }: Moment<Input>) => context.resume === name,
              target: name,
            })),
          },
        },
        ...Object.fromEntries([...chart.ends, 'stalled'].map((name) => [name, { type: 'final' as const }])),
      },
    },
    { delays: { backoff: ({ context }) => backoffMs(context) } },
  );
}
