/**
 * When the agent tries again what failed: exponentially later each time, with jitter, each resource on its own. What
 * waits here holds no slot; it is left out of plans until its time comes or its manifest changes.
 */

import { CimletError, disposition } from '../errors.ts';
import { type Resource, resourceKey } from '../manifests/resources.ts';
import type { Obstacle } from './desired.ts';
import { timerMs } from './retry-policy.ts';
import { intentDigest } from './situation.ts';

const BASE_MS = 1000;
const CAP_MS = 5 * 60_000;
/** What can't succeed as it is (a corrupt layer, say) is looked at this much later, should the host have been mended. */
const STALLED_MS = 60 * 60_000;

/** In place of a resource's intent, for what is to go: what is declared again is another one. */
const REMOVAL = 'removal';

interface Wait {
  /** Of the resource as it failed; another one is tried at once. */
  intent: string;
  failures: number;
  /** As `now` has it. */
  until: number;
  /** Its time has come and it was let through. */
  isOver: boolean;
  obstacle: Obstacle;
}

export class Backoffs {
  /** By resource, or by removal. */
  readonly #waits = new Map<string, Wait>();
  readonly #now: () => number;
  readonly #random: () => number;

  /**
   * `now` in milliseconds since the epoch, `random` from 0 to below 1. Without, a clock that goes on evenly: who sets
   * the machine's clock back must not make everything wait.
   */
  constructor(sources: { now?: () => number; random?: () => number } = {}) {
    this.#now = sources.now ?? (() => performance.timeOrigin + performance.now());
    this.#random = sources.random ?? Math.random;
  }

  /** Notes that `resource` failed. Returns whether that is final: it is stalled, and not tried again soon. */
  failed(resource: Resource, error: Error): boolean {
    const { limit = Number.POSITIVE_INFINITY, backoff } = resource.spec.retry ?? {};
    const baseMs = backoff === undefined ? BASE_MS : timerMs(backoff);
    return this.#note(resourceKey(resource), { intent: intentDigest(resource), limit, baseMs }, error);
  }

  /** Notes that the removal with this action's id failed, of a resource or of anything else. Returns as `failed`. */
  removalFailed(id: string, error: Error): boolean {
    return this.#note(id, { intent: REMOVAL, limit: Number.POSITIVE_INFINITY, baseMs: BASE_MS }, error);
  }

  #note(
    key: string,
    { intent, limit, baseMs }: { intent: string; limit: number; baseMs: number },
    error: Error,
  ): boolean {
    const before = this.#waits.get(key);
    const failures = (before?.intent === intent ? before.failures : 0) + 1;
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
  release(key?: string): void {
    if (key === undefined) this.#waits.clear();
    else this.#waits.delete(key);
  }

  /**
   * Forgets what was let through and is no trouble any more, however it came right: `troubled` is what the plan does or
   * can't do, and for whom.
   */
  recovered(troubled: ReadonlySet<string>): void {
    for (const [key, { isOver }] of this.#waits) if (isOver && !troubled.has(key)) this.#waits.delete(key);
  }

  /** Lets through what is due, of these, which are all there are; forgets what is gone or another one now. */
  letThrough(resources: readonly Resource[]): void {
    const now = this.#now();
    const intentOf = indexIntents(resources);
    for (const [key, wait] of this.#waits) {
      if (wait.intent !== intentOf(key)) this.#waits.delete(key);
      else if (wait.until <= now) wait.isOver = true;
    }
  }

  /** What of these, which are all there are, and of removals must not be tried yet, and why. Changes nothing. */
  held(resources: readonly Resource[]): Map<string, Obstacle> {
    const now = this.#now();
    const intentOf = indexIntents(resources);
    const waiting = [...this.#waits].filter(
      ([key, { until, intent }]) => until > now && intent === intentOf(key),
    );
    return new Map(waiting.map(([key, { obstacle }]) => [key, obstacle]));
  }

  /** What failed and has not recovered: resources and removals. */
  troubled(): Iterable<string> {
    return this.#waits.keys();
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

/** By key; what isn't declared is to go. A digest is taken of what is asked for only. */
function indexIntents(resources: readonly Resource[]): (key: string) => string {
  const declared = new Map<string, Resource>(resources.map((resource) => [resourceKey(resource), resource]));
  return (key) => {
    const resource = declared.get(key);
    return resource === undefined ? REMOVAL : intentDigest(resource);
  };
}
