/** Spreads what is fetched over time, all transfers together. */

import { setTimeout as delay } from 'node:timers/promises';

export class RateLimit {
  readonly #bytesPerSecond: number;
  /** When, by performance.now(), all that was taken so far is paid for. */
  #paidAt = 0;

  constructor(bytesPerSecond: number) {
    this.#bytesPerSecond = bytesPerSecond;
  }

  /** Resolves when `bytes` more may come. */
  async take(bytes: number, signal: AbortSignal): Promise<void> {
    const now = performance.now();
    this.#paidAt = Math.max(now, this.#paidAt) + (bytes * 1000) / this.#bytesPerSecond;
    const wait = this.#paidAt - now;
    if (wait >= 1) await delay(wait, undefined, { signal });
  }
}
