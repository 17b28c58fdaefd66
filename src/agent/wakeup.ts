/** Why a sleeper wakes: many calls while it is awake are one. */

export class Wakeup {
  #isWanted = false;
  #wake: (() => void) | undefined;
  #pause = new AbortController();

  /** Ends the sleep, now or the next one, and aborts the pause signal of what is being done. */
  wake(): void {
    this.#isWanted = true;
    this.#pause.abort();
    this.#wake?.();
  }

  /** Sleeps until woken, for `milliseconds` at most (for ever without), or until the signal aborts. */
  async sleep(milliseconds: number | undefined, signal: AbortSignal): Promise<void> {
    if (!this.#isWanted && !signal.aborted) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#wake = resolve;
      const onAbort = (): void => resolve();
      signal.addEventListener('abort', onAbort, { once: true });
      const timer = milliseconds === undefined ? undefined : setTimeout(resolve, milliseconds);
      await promise;
      clearTimeout(timer);
      signal.removeEventListener('abort', onAbort);
      this.#wake = undefined;
    }
    this.#isWanted = false;
    this.#pause = new AbortController();
  }

  /** Aborted by the next `wake`. Asked for anew after each sleep. */
  get pause(): AbortSignal {
    return this.#pause.signal;
  }
}
