/** A resource's spec.retry and spec.timeout in milliseconds. */

import { DEFAULT_RETRY, type RetryPolicy } from '../machines/retry.ts';
import type { Resource } from '../manifests/resources.ts';

const UNITS: Record<string, number> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** `1h30m` -> milliseconds; the schema has checked the text. */
function durationMs(text: string): number {
  let total = 0;
  for (const [, amount, unit] of text.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h|d)/g)) {
    total += Number(amount) * (UNITS[unit ?? ''] ?? 0);
  }
  return total;
}

export function retryPolicyOf(resource: Resource | undefined): RetryPolicy {
  const { limit, backoff } = resource?.spec.retry ?? {};
  return {
    ...DEFAULT_RETRY,
    ...(limit === undefined ? {} : { limit }),
    ...(backoff === undefined ? {} : { baseMs: durationMs(backoff) }),
  };
}

export function timeoutMsOf(resource: Resource | undefined): number | undefined {
  return resource?.spec.timeout === undefined ? undefined : durationMs(resource.spec.timeout);
}
