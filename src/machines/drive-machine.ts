/** Runs one machine to its end and turns the end into a promise. */

import { type AnyStateMachine, createActor, type InputFrom } from 'xstate';
import { backoffMs, cancellation, type RetryContext } from './retry.ts';

/** Time as machines see it; XState's clock. */
export interface Clock {
  setTimeout(callback: (...args: unknown[]) => void, milliseconds: number): unknown;
  clearTimeout(handle: unknown): void;
}

export interface DriveOptions {
  /** Aborting asks the machine to stop; an effect in hand is waited for. */
  signal: AbortSignal;
  clock?: Clock | undefined;
  onRetry?: (retry: { attempt: number; delayMs: number; error: Error }) => void;
}

/** Resolves when the machine reaches a good end; rejects with its last error when it stalls. */
export function driveMachine<Machine extends AnyStateMachine>(
  machine: Machine,
  input: InputFrom<Machine>,
  options: DriveOptions,
): Promise<void> {
  const { signal, clock, onRetry } = options;
  return new Promise((resolve, reject) => {
    if (signal.aborted) {
      reject(cancellation(machine.id));
      return;
    }
    const actor = createActor<AnyStateMachine>(machine, { input, ...(clock === undefined ? {} : { clock }) });
    const cancel = () => actor.send({ type: 'work.cancelled' });
    signal.addEventListener('abort', cancel, { once: true });
    actor.subscribe({
      next: (snapshot) => {
        const context: RetryContext = snapshot.context;
        if (snapshot.value === 'backingOff' && context.lastError !== undefined) {
          onRetry?.({ attempt: context.attempts, delayMs: backoffMs(context), error: context.lastError });
        }
      },
      complete: () => {
        signal.removeEventListener('abort', cancel);
        const snapshot = actor.getSnapshot();
        const { lastError }: RetryContext = snapshot.context;
        if (snapshot.value !== 'stalled') resolve();
        else reject(lastError ?? new Error(`${machine.id} stalled without an error`));
      },
      error: (error) => {
        signal.removeEventListener('abort', cancel);
        reject(error);
      },
    });
    actor.start();
  });
}
