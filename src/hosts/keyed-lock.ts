import { throwIfAborted } from './abort.ts';

/** Runs tasks of one key one after another, tasks of different keys side by side. */
export class KeyedLock {
  readonly #tails = new Map<string, Promise<void>>();

  /** Throws `cancelled` when `signal` aborts before the task's turn has come. */
  async run<T>(key: string, task: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    const before = this.#tails.get(key);
    const over = Promise.withResolvers<void>();
    // Whoever gives up waiting is over before its turn, and those behind it still wait for those before.
    const tail = Promise.all([before, over.promise]).then(() => {
      if (this.#tails.get(key) === tail) this.#tails.delete(key);
    });
    this.#tails.set(key, tail);
    try {
      await turnOrAbort(before, signal);
      if (signal !== undefined) throwIfAborted(signal, `wait for ${key}`);
      return await task();
    } finally {
      over.resolve();
    }
  }
}

async function turnOrAbort(turn: Promise<void> | undefined, signal: AbortSignal | undefined): Promise<void> {
  if (turn === undefined || signal?.aborted === true) return;
  const aborted = Promise.withResolvers<void>();
  const abort = (): void => aborted.resolve();
  signal?.addEventListener('abort', abort, { once: true });
  try {
    await Promise.race([turn, aborted.promise]);
  } finally {
    signal?.removeEventListener('abort', abort);
  }
}
