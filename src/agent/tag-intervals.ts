/** When the tag of each Image is looked at again: its own interval, which has nothing else looked at. */

import { type Resource, type ResourceKey, resourceKey } from '../manifests/resources.ts';
import { timerMs } from '../reconciler/retry-policy.ts';
import type { Scope } from '../reconciler/scope.ts';

/** What the schema says where a manifest doesn't. */
const DEFAULT_INTERVAL = '1h';
const SHORTEST_MS = 1000;

interface Tag {
  intervalMs: number;
  /** As `performance.now` has it. */
  lookedAt: number;
}

export class TagIntervals {
  #tags = new Map<ResourceKey, Tag>();

  /** The Images whose time has come, of those that are declared by now. */
  due(resources: readonly Resource[]): ResourceKey[] {
    const now = performance.now();
    const known = this.#tags;
    this.#tags = new Map();
    for (const resource of resources) {
      const intervalMs = intervalOf(resource);
      if (intervalMs === undefined) continue;
      const key = resourceKey(resource);
      this.#tags.set(key, { intervalMs, lookedAt: known.get(key)?.lookedAt ?? now });
    }
    return [...this.#tags].flatMap(([key, tag]) => (dueAt(tag) <= now ? [key] : []));
  }

  /** These Images were looked at just now; all without a scope. */
  lookedAt(scope: Scope | undefined): void {
    const now = performance.now();
    for (const [key, tag] of this.#tags) if (scope === undefined || scope.has(key)) tag.lookedAt = now;
  }

  /** Milliseconds until the first of them is due; undefined without any. */
  nextInMs(): number | undefined {
    let next: number | undefined;
    for (const tag of this.#tags.values()) next = Math.min(next ?? Number.POSITIVE_INFINITY, dueAt(tag));
    return next === undefined ? undefined : Math.max(0, next - performance.now());
  }
}

function dueAt({ lookedAt, intervalMs }: Tag): number {
  return lookedAt + intervalMs;
}

/** In milliseconds; undefined for what doesn't move. */
function intervalOf(resource: Resource): number | undefined {
  if (resource.kind !== 'Image' || resource.spec.pullPolicy === 'Never') return undefined;
  const { source, interval = DEFAULT_INTERVAL } = resource.spec;
  const mayMove = source.registry !== undefined && !source.registry.includes('@');
  return mayMove ? Math.max(SHORTEST_MS, timerMs(interval)) : undefined;
}
