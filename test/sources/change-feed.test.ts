import fc from 'fast-check';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { type ChangeFeed, createChangeFeed, withJitter } from '../../src/sources/change-feed.ts';

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

const HOUR = 3_600_000;

/** The times, in milliseconds from the start, at which changes are told. */
function recordTimes(feed: ChangeFeed): number[] {
  const start = performance.now();
  const times: number[] = [];
  void (async () => {
    for await (const _ of feed.changes(new AbortController().signal)) times.push(performance.now() - start);
  })();
  return times;
}

it('tells of many changes once, when they rest', async () => {
  const feed = createChangeFeed({ interval: HOUR, quiet: 100, longest: 1000 });
  const times = recordTimes(feed);
  for (let change = 0; change < 5; change++) {
    feed.touch();
    await vi.advanceTimersByTimeAsync(50);
  }
  await vi.advanceTimersByTimeAsync(5000);
  expect(times).toEqual([300]);
  feed.close();
});

it('is not kept from telling by changes that go on and on', async () => {
  const feed = createChangeFeed({ interval: HOUR, quiet: 100, longest: 1000 });
  const times = recordTimes(feed);
  for (let change = 0; change < 60; change++) {
    feed.touch();
    await vi.advanceTimersByTimeAsync(50);
  }
  expect(times.length).toBeGreaterThanOrEqual(2);
  expect(times[0]).toBe(1000);
  feed.close();
});

it('tells without any change when the interval is over', async () => {
  const feed = createChangeFeed({ interval: 1000 });
  const times = recordTimes(feed);
  await vi.advanceTimersByTimeAsync(5000);
  expect(times.length).toBeGreaterThanOrEqual(4);
  expect(times.length).toBeLessThanOrEqual(5);
  feed.close();
});

it('remembers a change that comes while nobody waits', async () => {
  const feed = createChangeFeed({ interval: HOUR, quiet: 10 });
  feed.touch();
  await vi.advanceTimersByTimeAsync(20);
  const times = recordTimes(feed);
  await vi.advanceTimersByTimeAsync(0);
  expect(times).toEqual([0]);
  feed.close();
});

it('keeps an interval within a tenth', () => {
  const random = fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true });
  fc.assert(
    fc.property(fc.integer({ min: 1, max: HOUR }), random, (interval, chance) => {
      const jittered = withJitter(interval, chance);
      expect(Math.abs(jittered - interval)).toBeLessThanOrEqual(interval / 10 + 1e-6);
    }),
  );
});

it('an interval longer than a timer can take is the longest one, not none', () => {
  expect(withJitter(60 * 24 * HOUR, 0.5)).toBe(2 ** 31 - 1);
});
