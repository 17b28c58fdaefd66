/** What the host does at the moment: one effect for each folder, and for each mount and path, at a time. */

import type { EffectContext, MountRequest } from '../host.ts';
import type { KeyedLock } from '../keyed-lock.ts';
import { type Explain, type Running, runEffect } from '../run-effect.ts';
import { unlessHung } from './hung-effects.ts';
import { foldPath } from './mount-paths.ts';
import type { SlowCalls } from './slow-calls.ts';

export class Effects {
  readonly running: Running = { folders: new Set(), volumeGuids: new Set() };
  readonly #locks: KeyedLock;
  readonly #explain: Explain;
  readonly #slowCalls: SlowCalls;
  readonly #patience: number | undefined;

  /** `patience` is that of `unlessHung`. */
  constructor(locks: KeyedLock, slowCalls: SlowCalls, explain: Explain, patience?: number) {
    this.#locks = locks;
    this.#slowCalls = slowCalls;
    this.#explain = explain;
    this.#patience = patience;
  }

  /** Within a merge's folder mounts' and layers' may be taken; never the other way. */
  async inFolder<T>(
    folder: string,
    context: EffectContext,
    operation: string,
    effect: () => Promise<T>,
  ): Promise<T> {
    const run = () => this.#run(this.running.folders, folder, context, operation, effect);
    return unlessHung(this.#locks.run(`folder ${folder}`, run), context, operation, this.#patience);
  }

  async onMount<T>(
    { volumeGuid, path }: MountRequest,
    context: EffectContext,
    operation: string,
    effect: () => Promise<T>,
  ): Promise<T> {
    const run = () =>
      this.#locks.run(`path ${foldPath(path)}`, () =>
        this.#run(this.running.volumeGuids, volumeGuid, context, operation, effect),
      );
    return unlessHung(this.#locks.run(`mount ${volumeGuid}`, run), context, operation, this.#patience);
  }

  async #run<K, T>(
    running: Set<K>,
    key: K,
    context: EffectContext,
    operation: string,
    effect: () => Promise<T>,
  ): Promise<T> {
    return runEffect(running, key, { context, operation, explain: this.#explain }, () =>
      this.#slowCalls.during(operation, context, effect),
    );
  }
}
