/** Asking registries again what is known already: one that doesn't answer is left in peace for a while. */

import { type CimletError, isErrorCode } from '../../errors.ts';

const REST_MS = 60_000;

export class Rechecks {
  readonly #now: () => number;
  readonly #resting = new Map<string, { until: number; error: CimletError }>();

  constructor(now: () => number) {
    this.#now = now;
  }

  /** What `ask` gives, or the `unavailable` with which it, or another for the same registry just before, failed. */
  async run<T>(registry: string, ask: () => Promise<T>): Promise<{ value: T } | { error: CimletError }> {
    const resting = this.#resting.get(registry);
    if (resting !== undefined && this.#now() < resting.until) return { error: resting.error };
    try {
      const value = await ask();
      this.#resting.delete(registry);
      return { value };
    } catch (error) {
      if (!isErrorCode(error, 'unavailable')) throw error;
      this.#resting.set(registry, { until: this.#now() + REST_MS, error });
      return { error };
    }
  }
}
