/** The port's methods on snapshots by key: one effect on each at a time, and what it needs asked for first. */

import { CimletError } from '../../errors.ts';
import type {
  Capability,
  CommitOptions,
  CommittedLayer,
  DiffId,
  EffectContext,
  LayerRef,
  SnapshotMount,
  SnapshotRequest,
  SnapshotUsage,
} from '../host.ts';
import type { Layout } from '../layout.ts';
import { readSnapshotRecord, requireSnapshot, type SnapshotRecord } from '../snapshot-records.ts';
import { checkSnapshotRequest } from '../snapshot-request.ts';
import { exportSnapshotTar, withLayerPlan } from './commit-snapshot.ts';
import type { Effects } from './effects.ts';
import { requireDisks } from './layer-disks.ts';
import { adoptLayer, buildLayer, type LayerPlan } from './layer-store.ts';
import { countWritten } from './observe-snapshots.ts';
import { ensureViewImage, type ViewPlace } from './show-view.ts';
import { findMountOf, requireNoForeignMount } from './show-writable.ts';
import { requireChain } from './shown-chain.ts';
import {
  describeMounts,
  diskMount,
  findSharer,
  imageMount,
  prepareSnapshot,
  removeSnapshot,
} from './snapshot-store.ts';

/** What they ask of the rest of the host. */
export interface SnapshotHost {
  layout: Layout;
  effects: Effects;
  /** Throws `unsupported-host` for what the host can't do. */
  require(capability: Capability, operation: string): Promise<void>;
  viewPlace(context: EffectContext): Promise<ViewPlace>;
  commitLayer(ref: LayerRef, context: EffectContext): Promise<CommittedLayer>;
}

export class SnapshotEffects {
  readonly #host: SnapshotHost;
  readonly #layout: Layout;

  constructor(host: SnapshotHost) {
    this.#host = host;
    this.#layout = host.layout;
  }

  async prepare(request: SnapshotRequest, context: EffectContext): Promise<void> {
    const operation = nameOf('prepare', request.key);
    checkSnapshotRequest(request);
    await this.#host.require('active', operation);
    const prepare = async () => {
      if (request.format === 'LCOW') await requireDisks(this.#layout, request, operation, context.signal);
      else if (request.chain.length > 0) await requireChain(this.#layout, request, operation);
      await prepareSnapshot(this.#layout, request, context);
    };
    const chainId = request.chain.at(-1);
    const { effects } = this.#host;
    await effects.onSnapshot(request.key, context, operation, () =>
      chainId === undefined
        ? prepare()
        : effects.onLayer({ chainId, format: request.format }, context, 'use', prepare),
    );
  }

  async mounts(key: string, context: EffectContext): Promise<SnapshotMount[]> {
    const operation = nameOf('mounts of', key);
    await this.#host.require('active', operation);
    return this.#onKnown(key, context, operation, async (record) => {
      const { chain, format } = record.request;
      if (format === 'LCOW') {
        const { disks } = await requireDisks(this.#layout, record.request, operation, context.signal);
        return describeMounts(this.#layout, record, disks.map(diskMount));
      }
      if (chain.length === 0) return describeMounts(this.#layout, record, []);
      const shown = await requireChain(this.#layout, record.request, operation);
      const image = await ensureViewImage(await this.#host.viewPlace(context), format, shown, context);
      return describeMounts(this.#layout, record, [imageMount(image)]);
    });
  }

  async usage(key: string, context: EffectContext): Promise<SnapshotUsage> {
    return this.#onKnown(key, context, nameOf('usage of', key), (record) =>
      countWritten(this.#layout, record, context.signal),
    );
  }

  async export(key: string, file: string, context: EffectContext): Promise<DiffId> {
    const operation = nameOf('export', key);
    await this.#host.require('commit', operation);
    return this.#onKnown(key, context, operation, (record) =>
      exportSnapshotTar(this.#layout, record, file, context),
    );
  }

  async commit(key: string, options: CommitOptions, context: EffectContext): Promise<CommittedLayer> {
    const operation = nameOf('commit', key);
    await this.#host.require('commit', operation);
    return this.#onKnown(key, context, operation, async (record) => {
      await this.#requireUnused(key, operation);
      const layer = await withLayerPlan(this.#layout, record, options, context, (plan) =>
        this.#buildPlanned(plan, options, context),
      );
      // Only now: mounts that are made again on it may want the scratch that it was made of.
      const committed = await this.#host.commitLayer(layer, context);
      await removeSnapshot(this.#layout, key, context.signal);
      return committed;
    });
  }

  async remove(key: string, context: EffectContext): Promise<void> {
    const operation = nameOf('remove', key);
    await this.#host.effects.onSnapshot(key, context, operation, async () => {
      await this.#requireUnused(key, operation);
      await removeSnapshot(this.#layout, key, context.signal);
    });
  }

  /** Writes the layer by another name, since only what was read to its end says what it is. */
  async #buildPlanned(
    plan: LayerPlan,
    { onChainId }: CommitOptions,
    context: EffectContext,
  ): Promise<CommittedLayer> {
    const { format } = plan;
    const operation = `commit layer ${plan.chainId}`;
    await this.#host.require(`${format}.write`, operation);
    if (plan.seal === true) await this.#host.require('seal', operation);
    const { effects } = this.#host;
    return effects.onLayer(plan, context, 'write', () =>
      buildLayer(this.#layout, plan, context, async (record) => {
        onChainId?.(record.layer.chainId);
        const adopt = () => adoptLayer(this.#layout, plan, record, context);
        await effects.onLayer(record.layer, context, 'unpack', adopt);
        return record.layer;
      }),
    );
  }

  async #requireUnused(key: string, operation: string): Promise<void> {
    const refuse = (why: string) => new CimletError('failed-precondition', `${operation}: ${why}`);
    const path = await findMountOf(this.#layout, key);
    if (path !== undefined) throw refuse(`it is mounted at ${path}`);
    const sharer = await findSharer(this.#layout, key);
    if (sharer !== undefined) throw refuse(`snapshot ${JSON.stringify(sharer)} is kept in its scratch`);
    const record = await readSnapshotRecord(this.#layout, key);
    if (record !== undefined) await requireNoForeignMount(this.#layout, record, operation);
  }

  async #onKnown<T>(
    key: string,
    context: EffectContext,
    operation: string,
    effect: (record: SnapshotRecord) => Promise<T>,
  ): Promise<T> {
    return this.#host.effects.onSnapshot(key, context, operation, async () =>
      effect(await requireSnapshot(this.#layout, key, operation)),
    );
  }
}

function nameOf(verb: string, key: string): string {
  return `${verb} snapshot ${JSON.stringify(key)}`;
}
