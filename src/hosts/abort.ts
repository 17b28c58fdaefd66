import { CimletError } from '../errors.ts';

/** Throws `cancelled`, naming the operation, once the caller has aborted. */
export function throwIfAborted(signal: AbortSignal, operation: string): void {
  if (signal.aborted) throw new CimletError('cancelled', `${operation}: cancelled`, { cause: signal.reason });
}
