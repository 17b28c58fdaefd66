/** How much a round looks at: everything now and then, in between only what may not be as it is declared. */

import type { ResourceKey } from '../manifests/resources.ts';
import type { DeclaredSource } from '../reconciler/types.ts';
import { directoriesOf, findUnsettled } from '../reconciler/unsettled.ts';
import type { ResourceRecord } from '../state/records.ts';

/** A timer may go off so much too early, in milliseconds. */
const EARLY_MS = 1;

export class RoundScopes {
  /** When everything was looked at last: when its plan was made, so that one that takes long leaves time to do it. */
  #wholeAt = 0;
  #isWholeRequired = true;
  #directories: ReadonlyMap<ResourceKey, string> = new Map();
  readonly #asked = new Set<ResourceKey>();

  /** Somebody wants this resource looked at, or everything. */
  ask(key: ResourceKey | undefined): void {
    if (key === undefined) this.requireWhole();
    else this.#asked.add(key);
  }

  /** What was seen of everything says nothing any more: the next round looks again. */
  requireWhole(): void {
    this.#isWholeRequired = true;
  }

  /** Everything was looked at just now. */
  lookedAtAll(): void {
    this.#wholeAt = performance.now();
  }

  /** Milliseconds until everything is looked at again, unless somebody wakes the agent before. */
  untilWholeMs(resyncMs: number): number {
    if (this.#isWholeRequired) return resyncMs;
    return Math.max(0, this.#wholeAt + resyncMs - performance.now());
  }

  /**
   * What the round that begins now has to look at; undefined: everything. `troubled`: what failed, resources and removals;
   * layers that are to go can only be planned for with everything in sight.
   */
  next(
    sources: readonly DeclaredSource[],
    {
      records,
      troubled,
      resyncMs,
    }: { records: readonly ResourceRecord[]; troubled: Iterable<string>; resyncMs: number },
  ): Set<ResourceKey> | undefined {
    const unsettled = findUnsettled(sources, records, this.#directories);
    this.#directories = directoriesOf(sources);
    for (const key of this.#asked) unsettled.add(key);
    this.#asked.clear();
    const known = new Set<string>(records.map(({ kind, name }) => `${kind}/${name}`));
    for (const key of troubled) {
      if (!known.has(key)) this.requireWhole();
      unsettled.add(key as ResourceKey);
    }
    const isDue = this.#isWholeRequired || this.untilWholeMs(resyncMs) <= EARLY_MS;
    this.#isWholeRequired = false;
    return isDue ? undefined : unsettled;
  }
}
