/** The port's methods on snapshots by key: one effect on each at a time, and what it needs asked for first. */

import { requireCapability } from '../capability.ts';
import type {
  Capabilities,
  Capability,
  CommitOptions,
  CommittedLayer,
  DiffId,
  EffectContext,
  Host,
  LayerFormat,
  SnapshotMount,
  SnapshotRequest,
  SnapshotUsage,
} from '../host.ts';
import { snapshotGuid } from '../identity.ts';
import { layerFolder } from '../layout.ts';
import { readSnapshotRecord, requireSnapshot } from '../snapshot-records.ts';
import { checkSnapshotRequest } from '../snapshot-request.ts';
import { freeScratch } from './attached-scratch.ts';
import { exportSnapshotTar, withUnpackRequest } from './commit-snapshot.ts';
import type { Effects } from './effects.ts';
import { snapshotMounts } from './snapshot-mounts.ts';
import { scratchFolder, sizeOf } from './snapshot-scratch.ts';
import { leaveSnapshot } from './snapshot-trees.ts';
import { prepareSnapshot, refuseUsed, removeSnapshot } from './snapshots.ts';
import type { Gallery } from './views.ts';

/** What they ask of the rest of the host. */
export interface SnapshotHost {
  effects: Effects;
  capabilities(): Promise<Capabilities>;
  gallery(): Promise<Gallery>;
  layers: Pick<Host, 'unpackLayer' | 'commitLayer'>;
  /** Throws `unsupported-host` unless scratches over layers of the format can be had here. */
  requireScratch(format: LayerFormat, operation: string): Promise<void>;
  /** Throws `busy` while a running compute system uses one of the places. */
  refuseInUse(places: readonly string[], operation: string, context: EffectContext): Promise<void>;
}

export class SnapshotEffects {
  readonly #host: SnapshotHost;

  constructor(host: SnapshotHost) {
    this.#host = host;
  }

  async prepare(request: SnapshotRequest, context: EffectContext): Promise<void> {
    const operation = nameOf('prepare', request.key);
    checkSnapshotRequest(request);
    await this.#require('active', operation);
    await this.#require(`${request.format}.mount`, operation);
    await this.#host.requireScratch(request.format, operation);
    const prepare = async () => prepareSnapshot(await this.#host.gallery(), request, context);
    const chainId = request.chain.at(-1);
    await this.#on(request.key, context, operation, () =>
      // The layers below stay while it is made.
      chainId === undefined
        ? prepare()
        : this.#host.effects.inFolder(layerFolder({ ...request, chainId }), context, operation, prepare),
    );
  }

  async mounts(key: string, context: EffectContext): Promise<SnapshotMount[]> {
    const operation = nameOf('mounts of', key);
    await this.#require('active', operation);
    return this.#onKnown(key, context, operation, async (request, gallery) =>
      snapshotMounts(gallery, request),
    );
  }

  async usage(key: string, context: EffectContext): Promise<SnapshotUsage> {
    return this.#onKnown(key, context, nameOf('usage of', key), (request, gallery) =>
      sizeOf(gallery.layout, request),
    );
  }

  async export(key: string, file: string, context: EffectContext): Promise<DiffId> {
    const operation = nameOf('export', key);
    await this.#require('commit', operation);
    return this.#onKnown(key, context, operation, async (request, gallery) => {
      await this.#refuseRunning(gallery, request, operation, context);
      return exportSnapshotTar(gallery, request, file, context);
    });
  }

  /** As a layer like any other: its tar is unpacked. A crash on the way leaves the snapshot, of which the same layer comes again. */
  async commit(key: string, options: CommitOptions, context: EffectContext): Promise<CommittedLayer> {
    const operation = nameOf('commit', key);
    await this.#require('commit', operation);
    return this.#onKnown(key, context, operation, async (request, gallery) => {
      await this.#host.requireScratch(request.format, operation);
      await refuseUsed(gallery.layout, key, operation);
      await this.#refuseRunning(gallery, request, operation, context);
      const layer = await withUnpackRequest(gallery, request, options, context, async (unpack) => {
        await this.#host.layers.unpackLayer(unpack, context);
        const { chainId, format } = unpack;
        return this.#host.layers.commitLayer({ chainId, format }, context);
      });
      await removeSnapshot(gallery, key, context);
      return layer;
    });
  }

  async remove(key: string, context: EffectContext): Promise<void> {
    const operation = nameOf('remove', key);
    await this.#on(key, context, operation, async () => {
      const gallery = await this.#host.gallery();
      const known = (await readSnapshotRecord(gallery.layout, key))?.request;
      if (known !== undefined) {
        await refuseUsed(gallery.layout, key, operation);
        if (known.scratch?.shareWith === undefined) {
          await this.#refuseRunning(gallery, known, operation, context);
          await leaveSnapshot(gallery, known, context.signal);
          // Linux scratches are attached to VMs only.
          if (known.format !== 'LCOW')
            await freeScratch(gallery, await scratchFolder(gallery.layout, known), operation, context);
        }
      }
      await removeSnapshot(gallery, key, context);
    });
  }

  /** Runs what mounts a snapshot, which nobody looks into meanwhile. */
  async whileMounting<T>(
    key: string,
    context: EffectContext,
    operation: string,
    mount: () => Promise<T>,
  ): Promise<T> {
    return this.#on(key, context, operation, async () => {
      const gallery = await this.#host.gallery();
      const known = await readSnapshotRecord(gallery.layout, key);
      if (known !== undefined) await leaveSnapshot(gallery, known.request, context.signal);
      return mount();
    });
  }

  async #refuseRunning(
    { layout }: Gallery,
    request: SnapshotRequest,
    operation: string,
    context: EffectContext,
  ): Promise<void> {
    await this.#host.refuseInUse([await scratchFolder(layout, request)], operation, context);
  }

  async #onKnown<T>(
    key: string,
    context: EffectContext,
    operation: string,
    effect: (request: SnapshotRequest, gallery: Gallery) => Promise<T>,
  ): Promise<T> {
    return this.#on(key, context, operation, async () => {
      const gallery = await this.#host.gallery();
      const { request } = await requireSnapshot(gallery.layout, key, operation);
      return effect(request, gallery);
    });
  }

  async #on<T>(key: string, context: EffectContext, operation: string, effect: () => Promise<T>): Promise<T> {
    return this.#host.effects.inFolder(snapshotGuid(key), context, operation, effect);
  }

  async #require(capability: Capability, operation: string): Promise<void> {
    requireCapability(capability, (await this.#host.capabilities())[capability], operation);
  }
}

function nameOf(verb: string, key: string): string {
  return `${verb} snapshot ${JSON.stringify(key)}`;
}
