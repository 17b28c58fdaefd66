import { expect, it } from 'vitest';
import { retryPolicyOf, timeoutMsOf } from '../../src/reconciler/retry-policy.ts';
import { image } from './support.ts';

it.each([
  ['250ms', 250],
  ['0.5ms', 1],
  ['1h30m', 5_400_000],
  // Timers of more than 2^31 - 1 ms (24.8 days) would go off at once.
  ['1000h', 2_147_483_647],
])('a timeout of %s is %i ms', (timeout, milliseconds) => {
  expect(timeoutMsOf(image('app', { timeout }))).toBe(milliseconds);
});

it('has no timeout unless asked', () => {
  expect(timeoutMsOf(image('app'))).toBeUndefined();
});

it.each([
  ['100ms', { baseMs: 100, capMs: 60_000 }],
  ['5m', { baseMs: 300_000, capMs: 300_000 }],
  ['99d', { baseMs: 2_147_483_647, capMs: 2_147_483_647 }],
])('a backoff of %s is waited for in full', (backoff, policy) => {
  expect(retryPolicyOf(image('app', { retry: { backoff } }))).toEqual({ limit: 3, ...policy });
});
