/**
 * Effects whose call of Windows doesn't return. Nothing can end such a call: it keeps a thread of this process until
 * the process ends, and what it works on stays locked meanwhile. Who asked for it is told and need not wait.
 */

import { CimletError } from '../../errors.ts';
import { endProcess } from '../../native/windows/system.ts';
import type { EffectContext } from '../host.ts';

/** How long a cancelled effect may go on. */
const PATIENCE_MS = 15_000;

const cancelled = new Set<Promise<unknown>>();

/** Whether cancelled effects are still under way. When nobody waits for them any more, this process doesn't end by itself. */
export function areEffectsHung(): boolean {
  return cancelled.size > 0;
}

/** The effect's result. Throws `cancelled` when it is cancelled and has not ended `patience` milliseconds later. */
export async function unlessHung<T>(
  effect: Promise<T>,
  { signal }: Pick<EffectContext, 'signal'>,
  operation: string,
  patience: number = PATIENCE_MS,
): Promise<T> {
  const { promise: givingUp, reject } = Promise.withResolvers<never>();
  let timer: NodeJS.Timeout | undefined;
  const giveUp = (): void => {
    const why = `it was cancelled, and Windows has not answered for ${patience / 1000} s`;
    reject(
      new CimletError('cancelled', `${operation}: ${why}`, {
        hint: 'what it works on stays locked until Windows answers, or cimlet is started again; restart Windows if that does not help',
      }),
    );
  };
  const onAbort = (): void => {
    note(effect);
    timer = setTimeout(giveUp, patience);
  };
  signal.addEventListener('abort', onAbort, { once: true });
  if (signal.aborted) onAbort();
  try {
    return await Promise.race([effect, givingUp]);
  } finally {
    signal.removeEventListener('abort', onAbort);
    clearTimeout(timer);
  }
}

function note(effect: Promise<unknown>): void {
  // Node would wait for the call's thread when it exits.
  if (cancelled.size === 0) process.once('exit', endProcess);
  cancelled.add(effect);
  const ended = (): void => {
    cancelled.delete(effect);
    if (cancelled.size === 0) process.off('exit', endProcess);
  };
  effect.then(ended, ended);
}
