/** What the host does at the moment: one effect for each folder, and for each mount, at a time. */

import { classify } from '../../errors.ts';
import { throwIfAborted } from '../abort.ts';
import type { ChainId, EffectContext, LayerRef, VolumeGuid } from '../host.ts';
import { snapshotGuid } from '../identity.ts';
import { KeyedLock } from '../keyed-lock.ts';
import { layerFolder, mergeFolder } from '../layout.ts';

/**
 * Within a merge's lock mounts' may be taken, within a mount's its snapshot's, within all of them layers'; never the other
 * way. (What committing a snapshot takes is of a layer that is above the snapshot's chain.)
 */
export class Effects {
  /** Known to `observe`, for which it isn't left over. */
  readonly running = { folders: new Set<string>(), volumeGuids: new Set<VolumeGuid>() };
  readonly #locks = new KeyedLock();
  readonly #explain: (error: unknown) => Promise<unknown>;

  /** `explain` gives the error to throw for one that an effect threw. */
  constructor(explain: (error: unknown) => Promise<unknown>) {
    this.#explain = explain;
  }

  async onMerge<T>(
    top: ChainId,
    context: EffectContext,
    operation: string,
    effect: () => Promise<T>,
  ): Promise<T> {
    return this.#inFolder(mergeFolder(top), context, operation, effect);
  }

  async onMount<T>(
    volumeGuid: VolumeGuid,
    context: EffectContext,
    operation: string,
    effect: () => Promise<T>,
  ): Promise<T> {
    return this.#locks.run(`mount ${volumeGuid}`, () =>
      this.#run(this.running.volumeGuids, volumeGuid, context, operation, effect),
    );
  }

  async onSnapshot<T>(
    key: string,
    context: EffectContext,
    operation: string,
    effect: () => Promise<T>,
  ): Promise<T> {
    return this.#inFolder(snapshotGuid(key), context, operation, effect);
  }

  async onLayer<T>(
    ref: LayerRef,
    context: EffectContext,
    verb: string,
    effect: () => Promise<T>,
  ): Promise<T> {
    return this.#inFolder(layerFolder(ref), context, `${verb} layer ${ref.chainId}`, effect);
  }

  async #inFolder<T>(
    folder: string,
    context: EffectContext,
    operation: string,
    effect: () => Promise<T>,
  ): Promise<T> {
    return this.#locks.run(`folder ${folder}`, () =>
      this.#run(this.running.folders, folder, context, operation, effect),
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
