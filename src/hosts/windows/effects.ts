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

  constructor(locks: KeyedLock) {
    this.#locks = locks;
  }

  /** Within a merge's folder mounts' and layers' may be taken; never the other way. */
  async inFolder<T>(
    folder: string,
    context: EffectContext,
    operation: string,
    effect: () => Promise<T>,
  ): Promise<T> {
    return this.#locks.run(`folder ${folder}`, () =>
      run(this.running.folders, folder, context, operation, effect),
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
        run(this.running.volumeGuids, volumeGuid, context, operation, effect),
      ),
    );
  }
}

async function run<K, T>(
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
    throw classify(error, operation);
  } finally {
    running.delete(key);
  }
}
