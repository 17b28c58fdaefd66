/** When a machine tries again: the part that all machines share. */

import { CimletError, disposition } from '../errors.ts';

export interface RetryPolicy {
  /** Attempts after the first one. */
  limit: number;
  /** Milliseconds before the first retry; doubled before each further one, up to the cap. */
  baseMs: number;
  capMs: number;
}

export const DEFAULT_RETRY: RetryPolicy = { limit: 3, baseMs: 1000, capMs: 60_000 };

export interface RetryContext {
  retry: RetryPolicy;
  /** Failed attempts at the effect in hand. */
  attempts: number;
  /** A stop was asked for: the effect in hand is the last. */
  isCancelled: boolean;
  lastError: Error | undefined;
}

/** Milliseconds to wait after the `attempts`th failure in a row. */
export function backoffMs({ retry, attempts }: Pick<RetryContext, 'retry' | 'attempts'>): number {
  return Math.min(retry.capMs, retry.baseMs * 2 ** Math.max(0, attempts - 1));
}

/** Whether an effect that failed like this is worth another attempt. */
export function mayRetry(context: RetryContext, error: unknown): boolean {
  return (
    !context.isCancelled &&
    context.attempts < context.retry.limit &&
    error instanceof CimletError &&
    disposition(error.code) === 'retry'
  );
}

export function startRetrying(retry: RetryPolicy): RetryContext {
  return { retry, attempts: 0, isCancelled: false, lastError: undefined };
}

export function asError(thrown: unknown): Error {
  return thrown instanceof Error ? thrown : new Error(String(thrown));
}

export function cancellation(what: string): CimletError {
  return new CimletError('cancelled', `${what}: cancelled`);
}
