/**
 * Calls of Windows that take very long. Most return in the end, so that they are waited for; but whoever asked for what they are part of is
 * told, and told again, as hcsshim logs (internal/timeout, SyscallWatcher). Calls in a job's thread aren't seen: those write files, and are many.
 */

import { AsyncLocalStorage } from 'node:async_hooks';
import type { CallWatch } from '../../native/windows/dll.ts';
import type { EffectContext } from '../host.ts';

const SLOW_MS = 4 * 60_000;

interface Asked {
  operation: string;
  context: EffectContext;
}

export class SlowCalls {
  readonly #asked = new AsyncLocalStorage<Asked>();
  readonly #slow: number;

  /** `slow`: after how many milliseconds a call is told of, and told of again. */
  constructor(slow: number = SLOW_MS) {
    this.#slow = slow;
  }

  /** Runs an effect; its calls are told of to its `context`. */
  async during<T>(operation: string, context: EffectContext, effect: () => Promise<T>): Promise<T> {
    return this.#asked.run({ operation, context }, effect);
  }

  /** A warning to whoever asked for the effect that this is called in. */
  readonly tell = (message: string): void => {
    const asked = this.#asked.getStore();
    asked?.context.warn?.(`${asked.operation}: ${message}`);
  };

  readonly watch: CallWatch = ({ dll, name, operation: what }) => {
    const asked = this.#asked.getStore();
    if (asked?.context.warn === undefined) return () => undefined;
    const { operation, context } = asked;
    let periods = 0;
    const tell = (): void => {
      const minutes = Math.round((++periods * this.#slow) / 60_000);
      if (context.signal.aborted) return;
      context.warn?.(
        `${operation}: ${name} of ${dll} has not returned for ${minutes} min (${what}); it is waited for, and what it works on stays locked`,
      );
    };
    const timer = setInterval(tell, this.#slow);
    timer.unref();
    return () => clearInterval(timer);
  };
}
