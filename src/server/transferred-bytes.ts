/** Bytes that moved between one report of an action's progress and the next. */

import type { ExecutionEvent } from '../reconciler/types.ts';

type Progressed = Extract<ExecutionEvent, { type: 'action.progressed' }>;

export class TransferredBytes {
  /** By run of an action, then by phase and blob: how much was done when last reported. Not every run tells its end. */
  readonly #done = new WeakMap<Progressed['action'], Map<string, number>>();

  /** A transfer's first report says what was here before; work on a file begins at nothing. */
  since({ action, phase, done, blob }: Progressed): number {
    const own = this.#done.get(action) ?? new Map<string, number>();
    this.#done.set(action, own);
    const key = `${phase} ${blob?.digest}`;
    const now = blob?.done ?? done;
    const before = own.get(key) ?? (phase === 'downloading' ? now : 0);
    own.set(key, now);
    return Math.max(0, now - before);
  }
}
