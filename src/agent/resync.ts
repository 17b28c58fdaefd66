/** How long the agent may sleep when nothing happens. */

import type { Resource } from '../manifests/resources.ts';
import { timerMs } from '../reconciler/retry-policy.ts';

/** What the schema says where a manifest doesn't. */
const DEFAULT_IMAGE_INTERVAL = '1h';
const SHORTEST_MS = 1000;

/** The configured interval, or the shortest after which a tag must be looked at again. In milliseconds. */
export function resyncMsFor(resources: readonly Resource[], configuredMs: number): number {
  const intervals = resources.flatMap((resource) => {
    if (resource.kind !== 'Image' || resource.spec.pullPolicy === 'Never') return [];
    const { source, interval = DEFAULT_IMAGE_INTERVAL } = resource.spec;
    const mayMove = source.registry !== undefined && !source.registry.includes('@');
    return mayMove ? [Math.max(SHORTEST_MS, timerMs(interval))] : [];
  });
  return intervals.reduce((shortest, each) => Math.min(shortest, each), configuredMs);
}
