/** Falling back from one host to the next. */

import { CimletError, isErrorCode } from '../../errors.ts';
import { TransientError, WrongBytesError } from './retry.ts';

/**
 * What the first of `places` gives that doesn't fail; else an error that tells of all. It is the last one's, unless another
 * place may do better the next time: then it is worth another try as that one's is.
 */
export async function firstOf<P extends { host: string }, T>(
  places: readonly P[],
  ask: (place: P) => Promise<T>,
  none: string,
): Promise<T> {
  const errors: CimletError[] = [];
  for (const place of places) {
    try {
      return await ask(place);
    } catch (error) {
      if (!(error instanceof CimletError) || isErrorCode(error, 'cancelled', 'no-space')) throw error;
      errors.push(error);
    }
  }
  const last = errors.at(-1);
  if (last === undefined) throw noHost(none);
  throw errors.length === 1 ? last : combine(errors, last);
}

export function noHost(message: string): CimletError {
  return new CimletError('failed-precondition', message, { hint: 'check capabilities in hosts.toml' });
}

function combine(errors: readonly CimletError[], last: CimletError): CimletError {
  const before = errors.slice(0, -1).map(({ message }) => message);
  const message = `${last.message}; before that: ${before.join('; ')}`;
  // Wrong bytes are fetched twice, however often another place fails.
  if (last instanceof WrongBytesError) return new WrongBytesError(message, last);
  const transient = errors.filter((error) => isErrorCode(error, 'unavailable', 'busy'));
  const cause = transient.at(-1);
  if (cause === undefined) return new CimletError(last.code, message, { hint: last.hint, cause: last });
  // The host that asks for the longest pause may be the one that isn't needed.
  const retryAfterMs = Math.min(...transient.map(pauseOf));
  return new TransientError(message, { hint: cause.hint, cause, retryAfterMs });
}

function pauseOf(error: CimletError): number {
  return error instanceof TransientError ? (error.retryAfterMs ?? 0) : 0;
}
