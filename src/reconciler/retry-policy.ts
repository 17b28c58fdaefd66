/** A resource's spec.retry and spec.timeout in milliseconds. */

import { DEFAULT_RETRY, type RetryPolicy } from '../machines/retry.ts';
import { parseDuration } from '../manifests/quantities.ts';
import type { Resource } from '../manifests/resources.ts';

export function retryPolicyOf(resource: Resource | undefined): RetryPolicy {
  const { limit, backoff } = resource?.spec.retry ?? {};
  return {
    ...DEFAULT_RETRY,
    ...(limit === undefined ? {} : { limit }),
    ...(backoff === undefined ? {} : { baseMs: parseDuration(backoff) }),
  };
}

export function timeoutMsOf(resource: Resource | undefined): number | undefined {
  return resource?.spec.timeout === undefined ? undefined : parseDuration(resource.spec.timeout);
}
