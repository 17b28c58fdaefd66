/** What every sync has in common: what ends it, and how its errors are told. */

import { CimletError, classify } from '../errors.ts';
import { parseDuration } from '../manifests/quantities.ts';

export interface SyncScope {
  /** Name of the source. */
  name: string;
  /** Any of them cancels. */
  signals: readonly AbortSignal[];
  /** A duration such as `5m`. */
  timeout?: string;
}

/**
 * Runs `work` until it is done, cancelled (`cancelled`) or has taken too long (`unavailable`). Signals are tied together by hand:
 * on Node 22 a signal that lives long keeps something of each `AbortSignal.any` made of it.
 */
export async function runSync<T>(
  { name, signals, timeout }: SyncScope,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const operation = `sync source ${name}`;
  const own = new AbortController();
  const abort = (): void => own.abort();
  const timer = timeout === undefined ? undefined : setTimeout(abort, parseDuration(timeout));
  for (const signal of signals) signal.addEventListener('abort', abort);
  const isCancelled = (): boolean => signals.some(({ aborted }) => aborted);
  try {
    if (isCancelled()) abort();
    own.signal.throwIfAborted();
    return await work(own.signal);
  } catch (error) {
    if (isCancelled()) throw new CimletError('cancelled', `${operation}: cancelled`, { cause: error });
    if (!own.signal.aborted) throw classify(error, operation);
    throw new CimletError('unavailable', `${operation}: took longer than ${timeout}`, {
      hint: 'the server is slow, or there is much to fetch: take less with path, or set timeout',
      cause: error,
    });
  } finally {
    clearTimeout(timer);
    for (const signal of signals) signal.removeEventListener('abort', abort);
  }
}
