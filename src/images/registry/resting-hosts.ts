/** Hosts that asked for a pause: until it is over nothing is asked of them, whatever it is for. */

import { TransientError } from './retry.ts';

export class RestingHosts {
  readonly #longestMs: number;
  /** When, by performance.now(), a host may be asked again. */
  readonly #until = new Map<string, number>();

  /** Longer pauses are cut: by then, something else may be true of the host. */
  constructor(longestMs: number) {
    this.#longestMs = longestMs;
  }

  add(host: string, pauseMs: number): void {
    const until = performance.now() + Math.min(pauseMs, this.#longestMs);
    this.#until.set(host, Math.max(until, this.#until.get(host) ?? 0));
  }

  /** Throws `unavailable`, to be tried again after the rest of the pause. */
  check(host: string, operation: string): void {
    const until = this.#until.get(host);
    if (until === undefined) return;
    const left = Math.ceil(until - performance.now());
    if (left <= 0) {
      this.#until.delete(host);
      return;
    }
    throw new TransientError(
      `${operation}: ${host} asked for a pause, of which ${Math.ceil(left / 1000)} s are left`,
      { retryAfterMs: left },
    );
  }
}
