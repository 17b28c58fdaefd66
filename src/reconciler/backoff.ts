/**
 * When the agent tries again what failed: exponentially later each time, with jitter, each resource on its own. What
 * waits here holds no slot; it is left out of plans until its time comes or its manifest changes.
 */

import { CimletError, disposition } from '../errors.ts';
import { type Resource, type ResourceKey, resourceKey } from '../manifests/resources.ts';
import type { Obstacle } from './desired.ts';
import { timerMs } from './retry-policy.ts';
import { intentDigest } from './situation.ts';

const BASE_MS = 1000;
const CAP_MS = 5 * 60_000;
/** What can't succeed as it is (a corrupt layer, say) is looked at this much later, should the host have been mended. */
const STALLED_MS = 60 * 60_000;

interface Wait {
  /** Of the resource as it failed; another one is tried at once. */
  intent: string;
  failures: number;
  /** Milliseconds since the epoch. */
  until: number;
  /** Its time has come and it was let through. */
  isOver: boolean;
  obstacle: Obstacle;
}

export class Backoffs {
  readonly #waits = new Map<ResourceKey, Wait>();
  readonly #now: () => number;
  readonly #random: () => number;

  /** `now` in milliseconds since the epoch, `random` from 0 to below 1. */
  constructor(sources: { now?: () => number; random?: () => number } = {}) {
    this.#now = sources.now ?? Date.now;
    this.#random = sources.random ?? Math.random;
  }

  /** Notes that `resource` failed. Returns whether that is final: it is stalled, and not tried again soon. */
  failed(resource: Resource, error: Error): boolean {
    const key = resourceKey(resource);
    const intent = intentDigest(resource);
    const before = this.#waits.get(key);
    const failures = (before?.intent === intent ? before.failures : 0) + 1;
    const { limit = Number.POSITIVE_INFINITY, backoff } = resource.spec.retry ?? {};
    const baseMs = backoff === undefined ? BASE_MS : timerMs(backoff);
    const code = error instanceof CimletError ? error.code : 'internal';
    const isFinal = code === 'internal' || disposition(code) === 'stall' || failures > limit;
    const delay = isFinal ? STALLED_MS : Math.min(Math.max(baseMs, CAP_MS), baseMs * 2 ** (failures - 1));
    // Up to a fifth longer, so that what failed together doesn't come back together.
    const until = this.#now() + delay * (1 + this.#random() / 5);
    const hint = error instanceof CimletError ? error.hint : undefined;
    const retryAt = isFinal ? undefined : new Date(until).toISOString();
    const obstacle = { code, message: error.message, hint, retryAt };
    this.#waits.set(key, { intent, failures, until, isOver: false, obstacle });
    return isFinal;
  }

  /** The resource is tried again without further ado, as if it had never failed; all are without a key. */
  release(key?: ResourceKey): void {
    if (key === undefined) this.#waits.clear();
    else this.#waits.delete(key);
  }

  /** Lets through what is due, of these, which are all there are; forgets what is gone or another one now. */
  letThrough(resources: readonly Resource[]): void {
    const now = this.#now();
    const current = new Map(resources.map((resource) => [resourceKey(resource), resource]));
    for (const [key, wait] of this.#waits) {
      const resource = current.get(key);
      if (resource === undefined || wait.intent !== intentDigest(resource)) this.#waits.delete(key);
      else if (wait.until <= now) wait.isOver = true;
    }
  }

  /** What of these must not be tried yet, and why. Changes nothing. */
  held(resources: readonly Resource[]): Map<ResourceKey, Obstacle> {
    const now = this.#now();
    const held = new Map<ResourceKey, Obstacle>();
    for (const resource of resources) {
      const key = resourceKey(resource);
      const wait = this.#waits.get(key);
      if (wait === undefined || wait.until <= now || wait.intent !== intentDigest(resource)) continue;
      held.set(key, wait.obstacle);
    }
    return held;
  }

  /** Milliseconds until the first of them may be tried again, 0 when it may already; undefined when none waits. */
  nextInMs(): number | undefined {
    const now = this.#now();
    let next: number | undefined;
    for (const { until, isOver } of this.#waits.values()) {
      const wait = Math.max(0, until - now);
      if (!isOver && (next === undefined || wait < next)) next = wait;
    }
    return next;
  }
}
