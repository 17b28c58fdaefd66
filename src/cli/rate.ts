/** How fast bytes come: the last few seconds count most. Milliseconds are of the clock handed in. */

const SAMPLE_MS = 250;
const MEMORY_MS = 3000;

export class Rate {
  #value: number | undefined;
  #done = 0;
  #at: number | undefined;

  /** Told how much is done, as often as there is news. */
  observe(done: number, now: number): void {
    if (this.#at !== undefined && now - this.#at < SAMPLE_MS) return;
    if (this.#at !== undefined) this.#value = this.#after((done - this.#done) * 1000, now - this.#at);
    this.#done = done;
    this.#at = now;
  }

  /** Bytes per second; falls when there has been no news for long. Undefined while nothing can be said. */
  perSecond(now: number): number | undefined {
    if (this.#value === undefined || this.#at === undefined) return undefined;
    const silence = now - this.#at - SAMPLE_MS;
    return silence > 0 ? this.#after(0, silence) : this.#value;
  }

  #after(bytesTimes1000: number, elapsed: number): number {
    const current = bytesTimes1000 / elapsed;
    if (this.#value === undefined) return current;
    const weight = 1 - Math.exp(-elapsed / MEMORY_MS);
    return this.#value + weight * (current - this.#value);
  }
}
