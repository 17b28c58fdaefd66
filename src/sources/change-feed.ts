/** When to look again: a while after the last of many changes, and now and then without any. */

export interface ChangeFeedOptions {
  /** Milliseconds between looks when nothing changes. */
  interval: number;
  /** Milliseconds without a further change before one is told. */
  quiet?: number;
  /** Milliseconds after which a change is told even though others keep coming. */
  longest?: number;
}

export interface ChangeFeed {
  /** Something has changed. */
  touch(): void;
  /** As `Source.changes`. */
  changes(signal: AbortSignal): AsyncIterable<void>;
  close(): void;
}

const QUIET = 100;
const LONGEST = 1000;

/** A longer timer goes off at once (https://nodejs.org/api/timers.html#settimeoutcallback-delay-args). */
const LONGEST_TIMER = 2 ** 31 - 1;

/** An interval give or take a tenth, as a timer can take it; `random` is from 0 up to 1. */
export function withJitter(interval: number, random: number): number {
  return Math.min(LONGEST_TIMER, interval * (0.9 + 0.2 * random));
}

export function createChangeFeed({
  interval,
  quiet = QUIET,
  longest = LONGEST,
}: ChangeFeedOptions): ChangeFeed {
  const closing = new AbortController();
  let pending = false;
  let wake: (() => void) | undefined;
  let quietTimer: NodeJS.Timeout | undefined;
  let firstTouch: number | undefined;

  function tell(): void {
    clearTimeout(quietTimer);
    quietTimer = undefined;
    firstTouch = undefined;
    pending = true;
    wake?.();
  }

  function touch(): void {
    if (closing.signal.aborted) return;
    const now = performance.now();
    firstTouch ??= now;
    clearTimeout(quietTimer);
    quietTimer = setTimeout(tell, Math.max(0, Math.min(quiet, firstTouch + longest - now)));
  }

  async function* changes(signal: AbortSignal): AsyncGenerator<void> {
    const ended = AbortSignal.any([signal, closing.signal]);
    for (;;) {
      if (!pending) await nextTell(ended);
      if (ended.aborted) return;
      pending = false;
      yield;
    }
  }

  /** Until something is told, the interval is over, or the end. */
  function nextTell(ended: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        clearTimeout(timer);
        ended.removeEventListener('abort', done);
        wake = undefined;
        resolve();
      };
      const timer = setTimeout(done, withJitter(interval, Math.random()));
      wake = done;
      if (ended.aborted) done();
      else ended.addEventListener('abort', done);
    });
  }

  return {
    touch,
    changes,
    close: () => {
      clearTimeout(quietTimer);
      closing.abort();
    },
  };
}
