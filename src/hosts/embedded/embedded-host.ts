/**
 * The host of any machine that isn't Windows: real CIM files in the published format, shown by the kernel through
 * EROFS, or extracted where it can't. What is where: layout.ts. What makes a layer or a mount ours: records.ts.
 */

import { rename } from 'node:fs/promises';
import { arch, platform, release } from 'node:os';
import { resolve } from 'node:path';
import { CimletError, classify, describeError } from '../../errors.ts';
import { requireCapability } from '../capability.ts';
import type {
  Capabilities,
  Capability,
  ChainId,
  CommittedLayer,
  EffectContext,
  Host,
  HostState,
  LayerFormat,
  LayerRef,
  Leftover,
  MountedView,
  MountRequest,
  SnapshotRequest,
  UnpackRequest,
  VolumeGuid,
} from '../host.ts';
import { ensureDirectory, missingDirectories, removeTree } from './directories.ts';
import { KeyedLock } from './keyed-lock.ts';
import { BUILDER, commitLayer, removeLayerFiles, soundLayer, unpackLayer } from './layer-store.ts';
import { cimPath, extractedPath, type Layout, layerName, layoutOf, viewPath } from './layout.ts';
import { readMountInfo } from './mount-info.ts';
import {
  checkMountPath,
  linkExtractedView,
  mountKernelView,
  removeExtracted,
  removeOwnLink,
  takeAway,
} from './mounting.ts';
import { findLeftovers, freeBytesAt, observeLayers, observeMounts, throwIfAborted } from './observe.ts';
import { mountStateOf, pathStateOf } from './own-mounts.ts';
import { type EmbeddedFeatures, type ProbeOptions, probeFeatures } from './probe.ts';
import {
  type MountRecord,
  readLayerRecords,
  readMountRecord,
  readMountRecords,
  writeMountRecord,
} from './records.ts';
import { runJob } from './run-job.ts';
import { deviceFilesOf } from './view-devices.ts';
import { isViewImage, viewUuid } from './view-image.ts';

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
      mounts: await observeMounts(mountRecords, table),
      paths,
      leftovers: await findLeftovers(this.#layout, layerRecords, mountRecords, this.#running),
      freeBytes: await freeBytesAt(this.root),
    };
  }

  async unpackLayer(request: UnpackRequest, context: EffectContext): Promise<void> {
    await this.#require(`${request.format}.write`, `unpack layer ${request.chainId}`);
    await this.#withLayer(request.chainId, context, 'unpack', () =>
      unpackLayer(this.#layout, request, context),
    );
  }

  async commitLayer(ref: LayerRef, context: EffectContext): Promise<CommittedLayer> {
    await this.#require(`${ref.format}.write`, `commit layer ${ref.chainId}`);
    return this.#withLayer(ref.chainId, context, 'commit', () => commitLayer(this.#layout, ref));
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

  async mount(request: MountRequest, context: EffectContext): Promise<MountedView> {
    const operation = `mount ${request.path}`;
    await this.#require(`${request.format}.mount`, operation);
    await this.#require(`view.${request.view}`, operation);
    if (request.access === 'ReadWrite') await this.#require('active', operation);
    await checkMountPath(request.path, this.root);
    return this.#withMount(request.volumeGuid, context, operation, async () => {
      const view = viewOf(request);
      const own = await readMountRecord(this.#layout, request.volumeGuid);
      if (own !== undefined && (await this.#isShown(own, view, operation))) return view;
      const { builder } = await this.#requireChain(request, operation);
      const record = await this.#planMount(request, own, operation);
      await this.#requireFreePlace(record, operation);
      const uuid = viewUuid(view.chainId, builder);
      if (request.view === 'Kernel') await this.#ensureViewImage(view.chainId, uuid, context);
      try {
        await writeMountRecord(this.#layout, record);
        if (request.view === 'Kernel') {
          const { canLoop } = await this.#probe();
          await mountKernelView(
            this.#layout,
            record,
            deviceFilesOf(cimPath(this.#layout, view.chainId)),
            canLoop,
          );
        } else await this.#extract(record, uuid, context);
      } catch (error) {
        await takeAway(this.#layout, record).catch((undoing: unknown) => {
          context.warn?.(`${operation}: undoing it failed too: ${describeError(undoing)}`);
        });
        throw error;
      }
      return view;
    });
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

  async mergeChain(chain: readonly ChainId[], _format: LayerFormat, _context: EffectContext): Promise<void> {
    return this.#notYet('merge', `merge chain ${chain.at(-1)}`);
  }

  async sealLayer(ref: LayerRef, _context: EffectContext): Promise<string> {
    return this.#notYet('seal', `seal layer ${ref.chainId}`);
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

  /** Whether the volume GUID shows what is asked for already. Throws when it shows something else, or is covered. */
  async #isShown(own: MountRecord, wanted: MountedView, operation: string): Promise<boolean> {
    const shown = viewOf(own.request);
    const { state, message } = await mountStateOf(own, readMountInfo());
    if (state === 'missing') return false;
    if (state === 'covered')
      throw new CimletError('already-exists', `${operation}: ${message ?? 'something covers it'}`, {
        hint: 'unmount that first',
      });
    const same =
      shown.path === wanted.path &&
      shown.chainId === wanted.chainId &&
      shown.format === wanted.format &&
      shown.view === wanted.view;
    if (same) return true;
    throw new CimletError(
      'failed-precondition',
      `${operation}: ${own.request.volumeGuid} already shows ${shown.chainId} at ${shown.path}`,
      { hint: 'dismount it first' },
    );
  }

  /** The top layer's record, when all of the chain is committed and sound. */
  async #requireChain(request: MountRequest, operation: string): Promise<CommittedLayer> {
    let top: CommittedLayer | undefined;
    for (const chainId of request.chain) {
      top = await soundLayer(this.#layout, { chainId, format: request.format });
      if (top === undefined)
        throw new CimletError('failed-precondition', `${operation}: layer ${chainId} is not committed`);
    }
    if (top === undefined) throw new CimletError('invalid-manifest', `${operation}: the chain has no layers`);
    return top;
  }

  /** The record to write before anything is made. Takes over from the record of a mount that has gone missing. */
  async #planMount(
    request: MountRequest,
    own: MountRecord | undefined,
    operation: string,
  ): Promise<MountRecord> {
    const { path, view, volumeGuid } = request;
    const successor = own?.request.path === path && own.request.view === view ? own : undefined;
    if (own !== undefined && successor === undefined) await takeAway(this.#layout, own);
    if (successor?.request.view === 'Extracted') await removeOwnLink(successor);
    const missing = await missingDirectories(path).catch((error: unknown) => {
      throw classify(error, operation);
    });
    const extracted = view === 'Extracted';
    const created = extracted ? missing.filter((directory) => directory !== path) : missing;
    return {
      formatVersion: 1,
      request: { ...request, chain: [...request.chain] },
      source: extracted
        ? extractedPath(this.#layout, volumeGuid)
        : viewPath(this.#layout, viewOf(request).chainId),
      loop: !extracted && (await this.#probe()).loop,
      created: [...new Set([...(successor?.created ?? []), ...created])],
      replacedDirectory: extracted && (successor?.replacedDirectory === true || !missing.includes(path)),
    };
  }

  async #requireFreePlace(record: MountRecord, operation: string): Promise<void> {
    const others = (await readMountRecords(this.#layout)).filter(
      ({ request }) => request.volumeGuid !== record.request.volumeGuid,
    );
    const { kind, detail } = await pathStateOf(record.request.path, readMountInfo(), others);
    if (kind === 'absent' || kind === 'empty-directory') return;
    if (kind === 'unreadable') throw new CimletError('access-denied', `${operation}: ${detail ?? kind}`);
    throw new CimletError('already-exists', `${operation}: there is ${detail ?? kind} already`, {
      hint: 'move it away, or mount elsewhere',
    });
  }

  /** One image serves all mounts of a chain. */
  async #ensureViewImage(chainId: ChainId, uuid: Uint8Array, context: EffectContext): Promise<void> {
    const image = viewPath(this.#layout, chainId);
    await this.#withLayer(chainId, context, 'show', async () => {
      if (await isViewImage(image, uuid)) return;
      await ensureDirectory(this.#layout.views);
      await runJob<'view'>({ kind: 'view', cim: cimPath(this.#layout, chainId), image, uuid }, context);
    });
  }

  async #extract(record: MountRecord, uuid: Uint8Array, context: EffectContext): Promise<void> {
    const { volumeGuid } = record.request;
    const target = extractedPath(this.#layout, volumeGuid, 'tmp-');
    await ensureDirectory(this.#layout.extracted);
    await removeTree(target);
    await removeExtracted(this.#layout, volumeGuid);
    try {
      const cim = cimPath(this.#layout, viewOf(record.request).chainId);
      const { warnings } = await runJob<'extract'>({ kind: 'extract', cim, target, uuid }, context);
      for (const warning of warnings) context.warn?.(warning);
      await rename(target, record.source);
    } catch (error) {
      await removeTree(target);
      throw error;
    }
    await linkExtractedView(record);
  }
}

function viewOf(request: MountRequest): MountedView {
  const { volumeGuid, path, format, view, access } = request;
  const chainId = request.chain.at(-1);
  if (chainId === undefined)
    throw new CimletError('invalid-manifest', `mount ${path}: the chain has no layers`);
  return { volumeGuid, path, chainId, format, view, access };
}
