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
  const transient = errors.findLast((error) => isErrorCode(error, 'unavailable', 'busy'));
  const { code, hint } = transient ?? last;
  if (transient === undefined) return new CimletError(code, message, { hint, cause: last });
  const asked = errors.flatMap((error) => (error instanceof TransientError && error.retryAfterMs) || []);
  const retryAfterMs = asked.length === 0 ? undefined : Math.max(...asked);
  return new TransientError(message, { hint, cause: transient, retryAfterMs });
}
