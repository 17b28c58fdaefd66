/**
 * The host of any machine that isn't Windows: real CIM files in the published format, shown by the kernel through
 * EROFS, or extracted where it can't. What is where: layout.ts. What makes a layer or a mount ours: records.ts.
 */

import { arch, platform, release } from 'node:os';
import { resolve } from 'node:path';
import { CimletError, classify, describeError, isErrorCode } from '../../errors.ts';
import { requireCapability } from '../capability.ts';
import type {
  Capabilities,
  Capability,
  ChainId,
  CommittedLayer,
  EffectContext,
  Host,
  HostState,
  LayerRef,
  Leftover,
  MergedChain,
  MergeRequest,
  MountedView,
  MountRequest,
  SnapshotRequest,
  UnpackRequest,
  VolumeGuid,
} from '../host.ts';
import { KeyedLock } from '../keyed-lock.ts';
import { removeTree } from './directories.ts';
import { BUILDER, commitLayer, removeLayerFiles, unpackLayer } from './layer-store.ts';
import { type Layout, layerName, layoutOf } from './layout.ts';
import { readMountInfo } from './mount-info.ts';
import { checkMountPath, takeAway } from './mounting.ts';
import { findLeftovers, freeBytesAt, observeLayers, observeMounts, throwIfAborted } from './observe.ts';
import { mountStateOf, pathStateOf } from './own-mounts.ts';
import { type EmbeddedFeatures, type ProbeOptions, probeFeatures } from './probe.ts';
import {
  type MountRecord,
  readLayerRecord,
  readLayerRecords,
  readMountRecord,
  readMountRecords,
  writeMountRecord,
} from './records.ts';
import { showView, type ViewPlace } from './show-view.ts';

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
  readonly #running = { chainIds: new Set<ChainId>(), volumeGuids: new Set<VolumeGuid>() };
  #features: Promise<EmbeddedFeatures> | undefined;

  constructor(options: EmbeddedHostOptions) {
    this.root = resolve(options.root);
    this.#options = options;
    this.#layout = layoutOf(this.root);
  }

  async capabilities(): Promise<Capabilities> {
    return structuredClone((await this.#probe()).capabilities);
  }

  async observe(options: { signal: AbortSignal; paths?: readonly string[] }): Promise<HostState> {
    throwIfAborted(options.signal, 'observe');
    const layerRecords = await readLayerRecords(this.#layout);
    const mountRecords = await readMountRecords(this.#layout);
    const table = readMountInfo();
    const paths: HostState['paths'] = {};
    for (const path of options.paths ?? []) paths[path] = await pathStateOf(path, table, mountRecords);
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
      layers: await observeLayers(this.#layout, layerRecords, BUILDER, options.signal),
      merges: [],
      mounts: await observeMounts(mountRecords, table),
      paths,
      leftovers: await findLeftovers(this.#layout, layerRecords, mountRecords, this.#running),
      freeBytes: await freeBytesAt(this.root),
    };
  }

  async unpackLayer(request: UnpackRequest, context: EffectContext): Promise<void> {
    const operation = `unpack layer ${request.chainId}`;
    await this.#require(`${request.format}.write`, operation);
    if (request.seal === true) await this.#require('seal', operation);
    await this.#withLayer(request.chainId, context, 'unpack', () =>
      unpackLayer(this.#layout, request, context),
    );
  }

  async commitLayer(ref: LayerRef, context: EffectContext): Promise<CommittedLayer> {
    await this.#require(`${ref.format}.write`, `commit layer ${ref.chainId}`);
    const views = await this.#markViewsStale(ref, context);
    const layer = await this.#withLayer(ref.chainId, context, 'commit', () => commitLayer(this.#layout, ref));
    for (const { request } of views) await this.#showAgain(request, context);
    return layer;
  }

  async removeLayer(ref: LayerRef, context: EffectContext): Promise<void> {
    await this.#withLayer(ref.chainId, context, 'remove', async () => {
      const refuse = (user: string) =>
        new CimletError('failed-precondition', `remove layer ${ref.chainId}: ${user} needs it`);
      for (const { layer } of await readLayerRecords(this.#layout))
        if (layer.parent === ref.chainId && layer.format === ref.format)
          throw refuse(`layer ${layer.chainId}`);
      const table = readMountInfo();
      for (const record of await readMountRecords(this.#layout)) {
        const { chain, format, path } = record.request;
        if (format !== ref.format || !chain.includes(ref.chainId)) continue;
        if ((await mountStateOf(record, table)).state !== 'missing') throw refuse(`the mount at ${path}`);
      }
      await removeLayerFiles(this.#layout, ref);
    });
  }

  /** The kernel keeps reading the files it opened, so views over a layer about to be replaced have to be mounted again. */
  async #markViewsStale(ref: LayerRef, context: EffectContext): Promise<MountRecord[]> {
    if ((await readLayerRecord(this.#layout, ref, 'tmp-')) === undefined) return [];
    const views = (await readMountRecords(this.#layout)).filter(
      ({ request: { chain, format, view } }) =>
        view === 'Kernel' && format === ref.format && chain.includes(ref.chainId),
    );
    for (const { request } of views)
      await this.#withMount(request.volumeGuid, context, `commit layer ${ref.chainId}`, async () => {
        const record = await readMountRecord(this.#layout, request.volumeGuid);
        if (record !== undefined) await writeMountRecord(this.#layout, { ...record, stale: true });
      });
    return views;
  }

  /** A view that can't be shown again yet, because another of its layers is damaged too, stays marked. */
  async #showAgain(request: MountRequest, context: EffectContext): Promise<void> {
    try {
      await this.#withMount(request.volumeGuid, context, `mount ${request.path}`, async () => {
        const record = await readMountRecord(this.#layout, request.volumeGuid);
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
    const place: ViewPlace = {
      layout: this.#layout,
      features: await this.#probe(),
      withLayer: (chainId, effect) => this.#withLayer(chainId, context, 'show', effect),
    };
    return showView(place, request, context);
  }

  async dismount(volumeGuid: VolumeGuid, context: EffectContext): Promise<void> {
    await this.#withMount(volumeGuid, context, `dismount ${volumeGuid}`, async () => {
      const record = await readMountRecord(this.#layout, volumeGuid);
      if (record !== undefined) await takeAway(this.#layout, record);
    });
  }

  async cleanLeftovers(context: EffectContext): Promise<Leftover[]> {
    throwIfAborted(context.signal, 'clean leftovers');
    const layers = await readLayerRecords(this.#layout);
    const mounts = await readMountRecords(this.#layout);
    const leftovers = await findLeftovers(this.#layout, layers, mounts, this.#running);
    for (const { path } of leftovers) {
      throwIfAborted(context.signal, 'clean leftovers');
      await removeTree(path);
    }
    return leftovers;
  }

  async mergeChain(request: MergeRequest, _context: EffectContext): Promise<MergedChain> {
    return this.#notYet('merge', `merge chain ${request.chain.at(-1)}`);
  }

  async removeMerge(top: LayerRef, context: EffectContext): Promise<void> {
    throwIfAborted(context.signal, `remove merged CIM on ${top.chainId}`);
  }

  async exportLayer(ref: LayerRef, _file: string, _context: EffectContext): Promise<void> {
    return this.#notYet('export', `export layer ${ref.chainId}`);
  }

  async prepareSnapshot(request: SnapshotRequest, _context: EffectContext): Promise<void> {
    return this.#notYet('active', `prepare snapshot ${request.key}`);
  }

  async commitSnapshot(key: string, _chainId: ChainId, _context: EffectContext): Promise<CommittedLayer> {
    return this.#notYet('commit', `commit snapshot ${key}`);
  }

  async removeSnapshot(key: string, _context: EffectContext): Promise<void> {
    return this.#notYet('active', `remove snapshot ${key}`);
  }

  async #probe(): Promise<EmbeddedFeatures> {
    this.#features ??= probeFeatures(this.#options);
    return this.#features;
  }

  async #require(capability: Capability, operation: string): Promise<void> {
    requireCapability(capability, (await this.#probe()).capabilities[capability], operation);
  }

  async #notYet(capability: Capability, operation: string): Promise<never> {
    await this.#require(capability, operation);
    throw new Error(`${operation}: ${capability} is said to be available but isn't built`);
  }

  /** One effect per layer at a time, known to `observe` as running. */
  async #withLayer<T>(
    chainId: ChainId,
    context: EffectContext,
    verb: string,
    effect: () => Promise<T>,
  ): Promise<T> {
    const operation = `${verb} layer ${chainId}`;
    return this.#locks.run(`layer ${layerName(chainId)}`, async () => {
      throwIfAborted(context.signal, operation);
      this.#running.chainIds.add(chainId);
      try {
        return await effect();
      } catch (error) {
        throw classify(error, operation);
      } finally {
        this.#running.chainIds.delete(chainId);
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
        throw classify(error, operation);
      } finally {
        this.#running.volumeGuids.delete(volumeGuid);
      }
    });
  }
}
