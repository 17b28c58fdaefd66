/** Keeps watched lists up to date: soon after something may have changed, and every now and then. */

import { setTimeout as sleep } from 'node:timers/promises';
import type { WatchedList } from './watch.ts';

/** Between signs of life to watchers; proxies often cut off what is silent for a minute. */
const HEARTBEAT_MS = 15_000;

/** The least time between two looks. A look that takes longer waits as long as it took. */
const PAUSE_MS = 50;

export class Refresher {
  readonly #lists: readonly WatchedList[];
  readonly #onError: (error: unknown) => void;
  readonly #heartbeat: NodeJS.Timeout;
  readonly #closing = new AbortController();
  #isDirty = false;
  #running: Promise<void> | undefined;

  /** `onError` is told of a list that couldn't be read; it is read again later. */
  constructor(lists: readonly WatchedList[], onError: (error: unknown) => void) {
    this.#lists = lists;
    this.#onError = onError;
    this.#heartbeat = setInterval(() => {
      for (const list of lists) list.wake();
      this.changed();
    }, HEARTBEAT_MS).unref();
  }

  /** Something may have changed. Costs nothing while nobody watches; many calls are one look. */
  changed(): void {
    if (!this.#lists.some((list) => list.isWatched)) return;
    this.#isDirty = true;
    this.#running ??= this.#run().finally(() => {
      this.#running = undefined;
    });
  }

  async close(): Promise<void> {
    this.#closing.abort();
    clearInterval(this.#heartbeat);
    await this.#running;
  }

  async #run(): Promise<void> {
    const { signal } = this.#closing;
    while (this.#isDirty && !signal.aborted) {
      this.#isDirty = false;
      const started = performance.now();
      for (const list of this.#lists) {
        if (!list.isWatched) continue;
        await list.refresh().catch((error) => {
          if (!signal.aborted) this.#onError(error);
        });
      }
      const pause = Math.max(PAUSE_MS, performance.now() - started);
      // Cut short when it closes.
      await sleep(pause, undefined, { signal }).catch(() => undefined);
    }
  }
}
