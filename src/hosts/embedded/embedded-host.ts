/**
 * The host of any machine that isn't Windows: real CIM files in the published format, shown by the kernel through
 * EROFS, or extracted where it can't. What is where: layout.ts. What makes a layer or a mount ours: records.ts.
 */

import { arch, platform, release } from 'node:os';
import { resolve } from 'node:path';
import { CimletError, classify, describeError, isErrorCode } from '../../errors.ts';
import { throwIfAborted } from '../abort.ts';
import { requireCapability } from '../capability.ts';
import { commitMerge } from '../commit-merge.ts';
import { freeBytesAt } from '../free-space.ts';
import type {
  Capabilities,
  Capability,
  ChainId,
  CommitOptions,
  CommittedLayer,
  DiffId,
  EffectContext,
  Host,
  HostState,
  LayerRef,
  Leftover,
  MergedChain,
  MergeRequest,
  MountedView,
  MountRequest,
  ObserveOptions,
  SnapshotMount,
  SnapshotRequest,
  UnpackRequest,
  VolumeGuid,
} from '../host.ts';
import { snapshotGuid } from '../identity.ts';
import { KeyedLock } from '../keyed-lock.ts';
import { type Layout, layerFolder, layoutOf, mergeFolder } from '../layout.ts';
import { checkMergeRequest } from '../merge-request.ts';
import { readMountRecord, readMountRecords, writeMountRecord } from '../mount-records.ts';
import { readLayerRecord, readLayerRecords, readMergeRecords } from '../records.ts';
import { readSnapshotRecord, readSnapshotRecords, requireSnapshot } from '../snapshot-records.ts';
import { checkSnapshotRequest } from '../snapshot-request.ts';
import { exportSnapshotTar, withLayerPlan } from './commit-snapshot.ts';
import { noteDamage } from './damage.ts';
import { exportLayerTar } from './export-layer.ts';
import { readRecordsOf } from './focus.ts';
import { requireDisks } from './layer-disks.ts';
import {
  adoptLayer,
  buildLayer,
  commitLayer,
  type LayerPlan,
  removeLayerFiles,
  unpackLayer,
} from './layer-store.ts';
import { removeMergeFiles, sufficientMerge, writeMerge } from './merge-store.ts';
import { readMountInfo } from './mount-info.ts';
import { checkMountPath, takeAway } from './mounting.ts';
import { findLeftovers, observeLayers, observeMerges, observeMounts, type Records } from './observe.ts';
import { observeSnapshots } from './observe-snapshots.ts';
import { mountStateOf, pathStateOf, type ViewRecord } from './own-mounts.ts';
import { type EmbeddedFeatures, type ProbeOptions, probeFeatures } from './probe.ts';
import { ensureViewImage, showView, type ViewPlace } from './show-view.ts';
import { findMountOf, requireNoForeignMount } from './show-writable.ts';
import { requireChain } from './shown-chain.ts';
import {
  describeMounts,
  discardLeftovers,
  diskMount,
  findSharer,
  imageMount,
  prepareSnapshot,
  removeSnapshot,
} from './snapshot-store.ts';

/** As OCI platforms spell them, where Node spells them differently. */
const ARCHITECTURES: Record<string, string> = { x64: 'amd64', ia32: '386' };

export interface EmbeddedHostOptions extends ProbeOptions {
  /** Made when first needed. */
  root: string;
}

export function createEmbeddedHost(options: EmbeddedHostOptions): Host {
  return new EmbeddedHost(options);
}

class EmbeddedHost implements Host {
  readonly kind = 'embedded';
  readonly root: string;
  readonly #layout: Layout;
  readonly #options: EmbeddedHostOptions;
  readonly #locks = new KeyedLock();
  readonly #running = { folders: new Set<string>(), volumeGuids: new Set<VolumeGuid>() };
  #features: Promise<EmbeddedFeatures> | undefined;

  constructor(options: EmbeddedHostOptions) {
    this.root = resolve(options.root);
    this.#options = options;
    this.#layout = layoutOf(this.root);
  }

  async capabilities(): Promise<Capabilities> {
    return structuredClone((await this.#probe()).capabilities);
  }

  async observe(options: ObserveOptions): Promise<HostState> {
    const { signal, focus } = options;
    throwIfAborted(signal, 'observe');
    const records = await (focus === undefined ? this.#readRecords() : readRecordsOf(this.#layout, focus));
    const table = readMountInfo();
    const paths: HostState['paths'] = {};
    for (const path of options.paths ?? []) paths[path] = await pathStateOf(path, table, records.mounts);
    const layers = await observeLayers(this.#layout, records.layers, signal);
    return {
      formatVersion: 1,
      host: {
        kind: this.kind,
        platform: platform(),
        osVersion: release(),
        architecture: ARCHITECTURES[arch()] ?? arch(),
      },
      root: this.root,
      capabilities: await this.capabilities(),
      layers,
      merges: await observeMerges(this.#layout, records.merges, records.layers, layers, signal),
      mounts: await observeMounts(records.mounts, table),
      snapshots: await observeSnapshots(this.#layout, records.snapshots, layers),
      paths,
      leftovers: focus === undefined ? await findLeftovers(this.#layout, records, this.#running) : [],
      freeBytes: await freeBytesAt(this.root),
    };
  }

  async unpackLayer(request: UnpackRequest, context: EffectContext): Promise<void> {
    const operation = `unpack layer ${request.chainId}`;
    await this.#require(`${request.format}.write`, operation);
    if (request.seal === true) await this.#require('seal', operation);
    await this.#withLayer(request, context, 'unpack', () => unpackLayer(this.#layout, request, context));
  }

  async commitLayer(ref: LayerRef, context: EffectContext): Promise<CommittedLayer> {
    await this.#require(`${ref.format}.write`, `commit layer ${ref.chainId}`);
    const isUnpacked = (await readLayerRecord(this.#layout, ref, 'tmp-')) !== undefined;
    const users = ({ chain, format }: MountRequest) => format === ref.format && chain.includes(ref.chainId);
    const commit = () =>
      this.#withLayer(ref, context, 'commit', () => commitLayer(this.#layout, ref, context));
    return isUnpacked ? this.#replaceUnder(users, `commit layer ${ref.chainId}`, commit, context) : commit();
  }

  async removeLayer(ref: LayerRef, context: EffectContext): Promise<void> {
    const remove = async () => {
      const refuse = (user: string) =>
        new CimletError('failed-precondition', `remove layer ${ref.chainId}: ${user} needs it`);
      for (const { layer } of await readLayerRecords(this.#layout))
        if (layer.parent === ref.chainId && layer.format === ref.format)
          throw refuse(`layer ${layer.chainId}`);
      const user = await this.#mountedBy(({ chain, format }) => {
        return format === ref.format && chain.includes(ref.chainId);
      });
      if (user !== undefined) throw refuse(`the mount at ${user}`);
      for (const { request } of await readSnapshotRecords(this.#layout))
        if (request.format === ref.format && request.chain.includes(ref.chainId))
          throw refuse(`snapshot ${JSON.stringify(request.key)}`);
      if (ref.format === 'BlockCIM') await removeMergeFiles(this.#layout, ref.chainId, context);
      await removeLayerFiles(this.#layout, ref, context);
    };
    const removeLayer = () => this.#withLayer(ref, context, 'remove', remove);
    if (ref.format === 'BlockCIM')
      await this.#withMerge(ref.chainId, context, `remove layer ${ref.chainId}`, removeLayer);
    else await removeLayer();
  }

  /** Where a chain that `uses` says is mounted. */
  async #mountedBy(uses: (request: MountRequest) => boolean): Promise<string | undefined> {
    const table = readMountInfo();
    for (const record of await readMountRecords<ViewRecord>(this.#layout)) {
      if (!uses(record.request)) continue;
      if ((await mountStateOf(record, table)).state !== 'missing') return record.request.path;
    }
    return undefined;
  }

  /**
   * Replaces what mounted chains consist of. The kernel keeps reading the files it opened, so its views are mounted
   * again; until then they are marked.
   */
  async #replaceUnder<T>(
    uses: (request: MountRequest) => boolean,
    operation: string,
    replace: () => Promise<T>,
    context: EffectContext,
  ): Promise<T> {
    const views = (await readMountRecords<ViewRecord>(this.#layout)).filter(
      ({ request }) => request.view === 'Kernel' && uses(request),
    );
    for (const { request } of views)
      await this.#withMount(request.volumeGuid, context, operation, async () => {
        const record = await readMountRecord<ViewRecord>(this.#layout, request.volumeGuid);
        if (record !== undefined) await writeMountRecord(this.#layout, { ...record, stale: true });
      });
    const result = await replace();
    for (const { request } of views) await this.#showAgain(request, context);
    return result;
  }

  /** A view that can't be shown again yet, because another of its layers is damaged too, stays marked. */
  async #showAgain(request: MountRequest, context: EffectContext): Promise<void> {
    try {
      await this.#withMount(request.volumeGuid, context, `mount ${request.path}`, async () => {
        const record = await readMountRecord<ViewRecord>(this.#layout, request.volumeGuid);
        const isThere =
          record !== undefined && (await mountStateOf(record, readMountInfo())).state !== 'missing';
        if (isThere) await this.#show(record.request, context);
      });
    } catch (error) {
      if (!isErrorCode(error, 'failed-precondition')) context.warn?.(describeError(error));
    }
  }

  async mount(request: MountRequest, context: EffectContext): Promise<MountedView> {
    const operation = `mount ${request.path}`;
    await this.#require(`${request.format}.mount`, operation);
    await this.#require(`view.${request.view}`, operation);
    if (request.access === 'ReadWrite') await this.#require('active', operation);
    await checkMountPath(request.path, this.root);
    return this.#withMount(request.volumeGuid, context, operation, () => this.#show(request, context));
  }

  async #show(request: MountRequest, context: EffectContext): Promise<MountedView> {
    const show = async () => showView(await this.#viewPlace(context), request, context);
    const { path, snapshot } = request;
    return snapshot === undefined ? show() : this.#withSnapshot(snapshot, context, `mount ${path}`, show);
  }

  async #viewPlace(context: EffectContext): Promise<ViewPlace> {
    return {
      layout: this.#layout,
      features: await this.#probe(),
      withLayer: (layer, effect) => this.#withLayer(layer, context, 'show', effect),
    };
  }

  async dismount(volumeGuid: VolumeGuid, context: EffectContext): Promise<void> {
    await this.#withMount(volumeGuid, context, `dismount ${volumeGuid}`, async () => {
      const record = await readMountRecord<ViewRecord>(this.#layout, volumeGuid);
      if (record !== undefined) await takeAway(this.#layout, record);
    });
  }

  async cleanLeftovers(context: EffectContext): Promise<Leftover[]> {
    throwIfAborted(context.signal, 'clean leftovers');
    const leftovers = await findLeftovers(this.#layout, await this.#readRecords(), this.#running);
    await discardLeftovers(this.#layout, leftovers, context.signal);
    return leftovers;
  }

  async mergeChain(request: MergeRequest, context: EffectContext): Promise<MergedChain> {
    const operation = `merge chain ${request.chain.at(-1)}`;
    await this.#require('merge', operation);
    if (request.seal === true) await this.#require('seal', operation);
    const top = checkMergeRequest(request);
    const users = ({ chain, format }: MountRequest) =>
      format === request.format && chain.length > 1 && chain.at(-1) === top;
    return this.#withMerge(top, context, operation, async () => {
      const known = await sufficientMerge(this.#layout, request, context.signal);
      if (known !== undefined) return known;
      await writeMerge(this.#layout, request, context);
      return this.#replaceUnder(users, operation, () => commitMerge(this.#layout, top, context), context);
    });
  }

  async removeMerge(top: LayerRef, context: EffectContext): Promise<void> {
    const { chainId, format } = top;
    const operation = `remove merged CIM on ${chainId}`;
    throwIfAborted(context.signal, operation);
    if (format !== 'BlockCIM') return;
    await this.#withMerge(chainId, context, operation, async () => {
      const user = await this.#mountedBy(
        (request) =>
          request.format === format && request.chain.length > 1 && request.chain.at(-1) === chainId,
      );
      if (user !== undefined)
        throw new CimletError('failed-precondition', `${operation}: the mount at ${user} needs it`);
      await removeMergeFiles(this.#layout, chainId, context);
    });
  }

  async exportLayer(ref: LayerRef, file: string, context: EffectContext): Promise<void> {
    await this.#require('export', `export layer ${ref.chainId}`);
    await this.#withLayer(ref, context, 'export', () => exportLayerTar(this.#layout, ref, file, context));
  }

  async prepareSnapshot(request: SnapshotRequest, context: EffectContext): Promise<void> {
    const operation = `prepare snapshot ${JSON.stringify(request.key)}`;
    checkSnapshotRequest(request);
    await this.#require('active', operation);
    await this.#withSnapshot(request.key, context, operation, async () => {
      const prepare = async () => {
        if (request.format === 'LCOW') await requireDisks(this.#layout, request, operation, context.signal);
        else if (request.chain.length > 0) await requireChain(this.#layout, request, operation);
        await prepareSnapshot(this.#layout, request, context);
      };
      const chainId = request.chain.at(-1);
      if (chainId === undefined) await prepare();
      else await this.#withLayer({ chainId, format: request.format }, context, 'use', prepare);
    });
  }

  async snapshotMounts(key: string, context: EffectContext): Promise<SnapshotMount[]> {
    const operation = `mounts of snapshot ${JSON.stringify(key)}`;
    await this.#require('active', operation);
    return this.#withSnapshot(key, context, operation, async () => {
      const record = await requireSnapshot(this.#layout, key, operation);
      const { chain, format } = record.request;
      if (format === 'LCOW') {
        const { disks } = await requireDisks(this.#layout, record.request, operation, context.signal);
        return describeMounts(this.#layout, record, disks.map(diskMount));
      }
      if (chain.length === 0) return describeMounts(this.#layout, record, []);
      const shown = await requireChain(this.#layout, record.request, operation);
      const image = await ensureViewImage(await this.#viewPlace(context), format, shown, context);
      return describeMounts(this.#layout, record, [imageMount(image)]);
    });
  }

  async exportSnapshot(key: string, file: string, context: EffectContext): Promise<DiffId> {
    const operation = `export snapshot ${JSON.stringify(key)}`;
    await this.#require('commit', operation);
    return this.#withSnapshot(key, context, operation, async () => {
      const record = await requireSnapshot(this.#layout, key, operation);
      return exportSnapshotTar(this.#layout, record, file, context);
    });
  }

  async commitSnapshot(key: string, options: CommitOptions, context: EffectContext): Promise<CommittedLayer> {
    const operation = `commit snapshot ${JSON.stringify(key)}`;
    await this.#require('commit', operation);
    return this.#withSnapshot(key, context, operation, async () => {
      const record = await requireSnapshot(this.#layout, key, operation);
      await this.#requireUnused(key, operation);
      const layer = await withLayerPlan(this.#layout, record, options, context, (plan) =>
        this.#commitPlanned(plan, options, context),
      );
      await removeSnapshot(this.#layout, key);
      return layer;
    });
  }

  /** Writes the layer by another name, since only what was read to its end says what it is. */
  async #commitPlanned(
    plan: LayerPlan,
    { onChainId }: CommitOptions,
    context: EffectContext,
  ): Promise<CommittedLayer> {
    const { format } = plan;
    const operation = `commit layer ${plan.chainId}`;
    await this.#require(`${format}.write`, operation);
    if (plan.seal === true) await this.#require('seal', operation);
    const layer = await this.#withLayer(plan, context, 'write', () =>
      buildLayer(this.#layout, plan, context, async (record) => {
        onChainId?.(record.layer.chainId);
        const adopt = () => adoptLayer(this.#layout, plan, record, context);
        await this.#withLayer(record.layer, context, 'unpack', adopt);
        return record.layer;
      }),
    );
    return this.commitLayer(layer, context);
  }

  async removeSnapshot(key: string, context: EffectContext): Promise<void> {
    const operation = `remove snapshot ${JSON.stringify(key)}`;
    await this.#withSnapshot(key, context, operation, async () => {
      await this.#requireUnused(key, operation);
      await removeSnapshot(this.#layout, key);
    });
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

  async #probe(): Promise<EmbeddedFeatures> {
    this.#features ??= probeFeatures(this.#options);
    return this.#features;
  }

  async #require(capability: Capability, operation: string): Promise<void> {
    requireCapability(capability, (await this.#probe()).capabilities[capability], operation);
  }

  async #readRecords(): Promise<Records> {
    return {
      layers: await readLayerRecords(this.#layout),
      merges: await readMergeRecords(this.#layout),
      mounts: await readMountRecords<ViewRecord>(this.#layout),
      snapshots: await readSnapshotRecords(this.#layout),
    };
  }

  async #withSnapshot<T>(
    key: string,
    context: EffectContext,
    operation: string,
    effect: () => Promise<T>,
  ): Promise<T> {
    return this.#withFolder(snapshotGuid(key), context, operation, effect);
  }

  /**
   * Within a merge's lock mounts' may be taken, within a mount's its snapshot's, within all of them layers'; never the other way. (What
   * committing a snapshot takes is of a layer that is above the snapshot's chain.)
   */
  async #withMerge<T>(
    top: ChainId,
    context: EffectContext,
    operation: string,
    effect: () => Promise<T>,
  ): Promise<T> {
    return this.#withFolder(mergeFolder(top), context, operation, effect);
  }

  async #withLayer<T>(
    ref: LayerRef,
    context: EffectContext,
    verb: string,
    effect: () => Promise<T>,
  ): Promise<T> {
    return this.#withFolder(layerFolder(ref), context, `${verb} layer ${ref.chainId}`, effect);
  }

  /** One effect per folder at a time, known to `observe` as running. */
  async #withFolder<T>(
    folder: string,
    context: EffectContext,
    operation: string,
    effect: () => Promise<T>,
  ): Promise<T> {
    return this.#locks.run(`folder ${folder}`, async () => {
      throwIfAborted(context.signal, operation);
      this.#running.folders.add(folder);
      try {
        return await effect();
      } catch (error) {
        throw await noteDamage(this.#layout, classify(error, operation));
      } finally {
        this.#running.folders.delete(folder);
      }
    });
  }

  async #withMount<T>(
    volumeGuid: VolumeGuid,
    context: EffectContext,
    operation: string,
    effect: () => Promise<T>,
  ): Promise<T> {
    return this.#locks.run(`mount ${volumeGuid}`, async () => {
      throwIfAborted(context.signal, operation);
      this.#running.volumeGuids.add(volumeGuid);
      try {
        return await effect();
      } catch (error) {
        throw await noteDamage(this.#layout, classify(error, operation));
      } finally {
        this.#running.volumeGuids.delete(volumeGuid);
      }
    });
  }
}
