/** Falling back from one host to the next. */

import { CimletError, isErrorCode } from '../../errors.ts';
import { TransientError, WrongBytesError } from './retry.ts';

/** What the first of `places` gives that doesn't fail; else the last one's error, which tells of the others. */
export async function firstOf<P extends { host: string }, T>(
  places: readonly P[],
  ask: (place: P) => Promise<T>,
  none: string,
): Promise<T> {
  const errors: { host: string; error: CimletError }[] = [];
  for (const place of places) {
    try {
      return await ask(place);
    } catch (error) {
      if (!(error instanceof CimletError) || isErrorCode(error, 'cancelled', 'no-space')) throw error;
      errors.push({ host: place.host, error });
    }
  }
  const last = errors.pop();
  if (last === undefined)
    throw new CimletError('failed-precondition', none, { hint: 'check capabilities in hosts.toml' });
  if (errors.length === 0) throw last.error;
  const before = errors.map(({ error }) => error.message).join('; ');
  const message = `${last.error.message}; before that: ${before}`;
  const { code, hint } = last.error;
  if (last.error instanceof WrongBytesError) throw new WrongBytesError(message, last.error);
  if (last.error instanceof TransientError) {
    const { retryAfterMs } = last.error;
    throw new TransientError(message, { hint, cause: last.error, retryAfterMs });
  }
  throw new CimletError(code, message, { hint, cause: last.error });
}
