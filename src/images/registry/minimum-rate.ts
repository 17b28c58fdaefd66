/** Cuts off transfers that hardly bring anything: servers that stall, or drip. */

import { linkAbort } from './linked-abort.ts';
import { TransientError } from './retry.ts';

/** A transfer that brings less than `bytes` in each `windowMs` is given up, and perhaps taken up again. */
export interface MinimumRate {
  bytes: number;
  windowMs: number;
}

export const MINIMUM_RATE: MinimumRate = { bytes: 30 << 10, windowMs: 30_000 };

export interface RateWatch {
  /** Aborts with the outer signal, or with the `unavailable` of a transfer that is too slow. */
  readonly signal: AbortSignal;
  count(bytes: number): void;
  /** To be called when the transfer has ended. */
  stop(): void;
}

export function watchRate(
  operation: string,
  { bytes, windowMs }: MinimumRate,
  signal: AbortSignal,
): RateWatch {
  const linked = linkAbort(signal);
  let received = 0;
  const timer = setInterval(() => {
    if (received < bytes) {
      linked.abort(
        new TransientError(`${operation}: ${received} bytes in ${windowMs / 1000} s, too slow to go on`),
      );
    }
    received = 0;
  }, windowMs);
  return {
    signal: linked.signal,
    count: (count) => {
      received += count;
    },
    stop: () => {
      clearInterval(timer);
      linked.unlink();
    },
  };
}
