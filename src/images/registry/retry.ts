/** When a request is worth another attempt, and how long to wait for it. */

import { CimletError, isErrorCode } from '../../errors.ts';

export interface Backoff {
  /** Attempts after the first one. */
  retries: number;
  /** Milliseconds before the first retry, doubled before each further one, up to the cap. Half of it is chance. */
  baseMs: number;
  capMs: number;
  /** The longest wait a server may ask for with Retry-After; more is an error at once. */
  patienceMs: number;
}

export const DEFAULT_BACKOFF: Backoff = { retries: 5, baseMs: 250, capMs: 30_000, patienceMs: 120_000 };

/** An answer or a broken transfer that may go better next time. */
export class TransientError extends CimletError {
  /** Milliseconds, where the server says. */
  readonly retryAfterMs: number | undefined;

  constructor(
    message: string,
    options: { hint?: string | undefined; cause?: unknown; retryAfterMs?: number | undefined } = {},
  ) {
    super('unavailable', message, options);
    this.retryAfterMs = options.retryAfterMs;
  }
}

/** Bytes with another digest than they should have: worth one other try, then `corrupt`. */
export class WrongBytesError extends CimletError {
  constructor(message: string, cause?: unknown) {
    super('corrupt', message, {
      hint: 'the registry, or something on the way to it, serves damaged data; push the image again',
      cause,
    });
  }
}

/**
 * Runs `attempt` until it succeeds, fails for good, or `retries` are used up; then throws its last error. An attempt
 * that `made progress` starts the count anew.
 */
export async function withRetries<T>(
  backoff: Backoff,
  signal: AbortSignal,
  attempt: (progressed: () => void) => Promise<T>,
): Promise<T> {
  let wereWrong = false;
  for (let failures = 0; ; failures++) {
    try {
      return await attempt(() => {
        failures = 0;
      });
    } catch (error) {
      const isWorthIt =
        error instanceof WrongBytesError ? !wereWrong : isErrorCode(error, 'unavailable', 'busy');
      if (!(error instanceof CimletError) || !isWorthIt || failures >= backoff.retries) throw error;
      wereWrong ||= error instanceof WrongBytesError;
      const asked = error instanceof TransientError ? error.retryAfterMs : undefined;
      if (asked !== undefined && asked > backoff.patienceMs) throw error;
      // Servers that ask for no wait at all, or name a time that is over, are still given a moment.
      await pause(Math.max(asked ?? 0, chooseDelay(backoff, failures)), error, signal);
    }
  }
}

function chooseDelay({ baseMs, capMs }: Backoff, failures: number): number {
  const most = Math.min(capMs, baseMs * 2 ** failures);
  return most / 2 + Math.random() * (most / 2);
}

function pause(milliseconds: number, because: CimletError, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const abort = () => {
      clearTimeout(timer);
      reject(new CimletError('cancelled', `${because.message}; cancelled`, { cause: signal.reason }));
    };
    const timer = setTimeout(() => {
      signal.removeEventListener('abort', abort);
      resolve();
    }, milliseconds);
    if (signal.aborted) abort();
    else signal.addEventListener('abort', abort, { once: true });
  });
}

/** Seconds or a date. Source: RFC 9110 section 10.2.3. */
export function parseRetryAfter(value: string | string[] | undefined, now: number): number | undefined {
  if (typeof value !== 'string') return undefined;
  if (/^\d+$/.test(value)) return Number(value) * 1000;
  const date = Date.parse(value);
  return Number.isNaN(date) ? undefined : Math.max(0, date - now);
}
