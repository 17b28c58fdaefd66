/** What the host does at the moment: one effect for each folder, and for each mount, at a time. */

import type { ChainId, EffectContext, LayerRef, VolumeGuid } from '../host.ts';
import { snapshotGuid } from '../identity.ts';
import { KeyedLock } from '../keyed-lock.ts';
import { layerFolder, mergeFolder } from '../layout.ts';
import { type Explain, type Running, runEffect } from '../run-effect.ts';

/**
 * Within a merge's lock mounts' may be taken, within a mount's its snapshot's, within all of them layers'; never the other
 * way. (What committing a snapshot takes is of a layer that is above the snapshot's chain.)
 */
export class Effects {
  readonly running: Running = { folders: new Set(), volumeGuids: new Set() };
  readonly #locks = new KeyedLock();
  readonly #explain: Explain;

  constructor(explain: Explain) {
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
      runEffect(this.running.volumeGuids, volumeGuid, { context, operation, explain: this.#explain }, effect),
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
      runEffect(this.running.folders, folder, { context, operation, explain: this.#explain }, effect),
    );
  }
}
