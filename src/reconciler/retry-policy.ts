/** A resource's spec.retry and spec.timeout in milliseconds, as timers can take them. */

import { DEFAULT_RETRY, type RetryPolicy } from '../machines/retry.ts';
import { parseDuration } from '../manifests/quantities.ts';
import type { Resource } from '../manifests/resources.ts';

/** A longer timer goes off at once (https://nodejs.org/api/timers.html#settimeoutcallback-delay-args). */
const LONGEST_TIMER = 2 ** 31 - 1;

export function retryPolicyOf(resource: Resource | undefined): RetryPolicy {
  const { limit = DEFAULT_RETRY.limit, backoff } = resource?.spec.retry ?? {};
  const baseMs = backoff === undefined ? DEFAULT_RETRY.baseMs : timerMs(backoff);
  return { limit, baseMs, capMs: Math.max(baseMs, DEFAULT_RETRY.capMs) };
}

export function timeoutMsOf(resource: Resource | undefined): number | undefined {
  return resource?.spec.timeout === undefined ? undefined : timerMs(resource.spec.timeout);
}

export function timerMs(duration: string): number {
  return Math.min(LONGEST_TIMER, Math.ceil(parseDuration(duration)));
}
