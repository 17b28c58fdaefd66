/** What the host does at the moment: one effect for each folder, and for each mount and path, at a time. */

import { classify } from '../../errors.ts';
import { throwIfAborted } from '../abort.ts';
import type { EffectContext, MountRequest, VolumeGuid } from '../host.ts';
import type { KeyedLock } from '../keyed-lock.ts';
import { foldPath } from './mount-paths.ts';

export class Effects {
  /** Known to `observe`, for which it isn't left over. */
  readonly running = { folders: new Set<string>(), volumeGuids: new Set<VolumeGuid>() };
  readonly #locks: KeyedLock;
  readonly #explain: (error: unknown) => Promise<unknown>;

  /** `explain` gives the error to throw for one that an effect threw. */
  constructor(locks: KeyedLock, explain: (error: unknown) => Promise<unknown>) {
    this.#locks = locks;
    this.#explain = explain;
  }

  /** Within a merge's folder mounts' and layers' may be taken; never the other way. */
  async inFolder<T>(
    folder: string,
    context: EffectContext,
    operation: string,
    effect: () => Promise<T>,
  ): Promise<T> {
    return this.#locks.run(`folder ${folder}`, () =>
      this.#run(this.running.folders, folder, context, operation, effect),
    );
  }

  async onMount<T>(
    { volumeGuid, path }: MountRequest,
    context: EffectContext,
    operation: string,
    effect: () => Promise<T>,
  ): Promise<T> {
    return this.#locks.run(`mount ${volumeGuid}`, () =>
      this.#locks.run(`path ${foldPath(path)}`, () =>
        this.#run(this.running.volumeGuids, volumeGuid, context, operation, effect),
      ),
    );
  }

  async #run<K, T>(
    running: Set<K>,
    key: K,
    context: EffectContext,
    operation: string,
    effect: () => Promise<T>,
  ): Promise<T> {
    throwIfAborted(context.signal, operation);
    running.add(key);
    try {
      return await effect();
    } catch (error) {
      throw await this.#explain(classify(error, operation));
    } finally {
      running.delete(key);
    }
  }
}
