/**
 * The host of any machine that isn't Windows: real CIM files in the published format, shown by the kernel through
 * EROFS, or extracted where it can't. What is where: layout.ts. What makes a layer or a mount ours: records.ts.
 */

import { arch, platform, release } from 'node:os';
import { join, resolve } from 'node:path';
import { CimletError } from '../../errors.ts';
import { throwIfAborted } from '../abort.ts';
import { requireCapability } from '../capability.ts';
import { commitMerge } from '../commit-merge.ts';
import { freeBytesAt } from '../free-space.ts';
import type {
  Capabilities,
  Capability,
  CommitOptions,
  CommittedLayer,
  DiffId,
  DismountOptions,
  EffectContext,
  Focus,
  Host,
  HostState,
  LayerFormat,
  LayerRef,
  Leftover,
  MergedChain,
  MergeRequest,
  MountedView,
  MountRequest,
  ObserveOptions,
  SnapshotMount,
  SnapshotRequest,
  SnapshotUsage,
  UnpackRequest,
  VolumeGuid,
} from '../host.ts';
import { type HostRecords, readRecords } from '../host-records.ts';
import { type Layout, layerFolder, layoutOf, mergeFolder, snapshotPath } from '../layout.ts';
import { checkMergeRequest } from '../merge-request.ts';
import { readMountRecord } from '../mount-records.ts';
import { readLayerRecord, readLayerRecords } from '../records.ts';
import { readSnapshotRecords } from '../snapshot-records.ts';
import { noteDamage } from './damage.ts';
import { Effects } from './effects.ts';
import { exportLayerTar } from './export-layer.ts';
import { commitLayer, removeLayerFiles, unpackLayer } from './layer-store.ts';
import { findLeftovers } from './leftovers.ts';
import { removeMergeFiles, sufficientMerge, writeMerge } from './merge-store.ts';
import { readMountInfo } from './mount-info.ts';
import { type MountedHost, mountedBy, replaceUnder } from './mounted-users.ts';
import { checkMountPath, takeAway } from './mounting.ts';
import { observeLayers, observeMerges, observeMounts } from './observe.ts';
import { observeSnapshots } from './observe-snapshots.ts';
import { pathStateOf, type ViewRecord } from './own-mounts.ts';
import { type EmbeddedFeatures, type ProbeOptions, probeFeatures } from './probe.ts';
import { removeUnmounted } from './scratch.ts';
import { showView, type ViewPlace } from './show-view.ts';
import { requireShowableAgain } from './show-writable.ts';
import { SnapshotEffects } from './snapshot-effects.ts';
import { discardLeftovers } from './snapshot-store.ts';

/** That this host writes. */
const FORMATS: readonly LayerFormat[] = ['ForkedCIM', 'BlockCIM', 'LCOW'];

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
  readonly #effects: Effects;
  readonly #shown: MountedHost;
  readonly #snapshots: SnapshotEffects;
  #features: Promise<EmbeddedFeatures> | undefined;

  constructor(options: EmbeddedHostOptions) {
    this.root = resolve(options.root);
    this.#options = options;
    this.#layout = layoutOf(this.root);
    this.#effects = new Effects((error) => noteDamage(this.#layout, error));
    this.#shown = {
      layout: this.#layout,
      effects: this.#effects,
      show: (request, context) => this.#show(request, context),
    };
    this.#snapshots = new SnapshotEffects({
      layout: this.#layout,
      effects: this.#effects,
      require: (capability, operation) => this.#require(capability, operation),
      viewPlace: (context) => this.#viewPlace(context),
      commitLayer: (ref, context) => this.commitLayer(ref, context),
    });
  }

  async capabilities(): Promise<Capabilities> {
    return structuredClone((await this.#probe()).capabilities);
  }

  async observe(options: ObserveOptions): Promise<HostState> {
    const { signal, focus } = options;
    throwIfAborted(signal, 'observe');
    const records = await this.#readRecords(focus);
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
      snapshots: await observeSnapshots(this.#layout, records.snapshots, layers, signal),
      paths,
      leftovers: focus === undefined ? await findLeftovers(this.#layout, records, this.#effects.running) : [],
      freeBytes: await freeBytesAt(this.root),
    };
  }

  async unpackLayer(request: UnpackRequest, context: EffectContext): Promise<void> {
    const operation = `unpack layer ${request.chainId}`;
    await this.#require(`${request.format}.write`, operation);
    if (request.seal === true) await this.#require('seal', operation);
    await this.#effects.onLayer(request, context, 'unpack', () =>
      unpackLayer(this.#layout, request, context),
    );
  }

  async commitLayer(ref: LayerRef, context: EffectContext): Promise<CommittedLayer> {
    const operation = `commit layer ${ref.chainId}`;
    await this.#require(`${ref.format}.write`, operation);
    const isUnpacked = (await readLayerRecord(this.#layout, ref, 'tmp-')) !== undefined;
    const users = ({ chain, format }: MountRequest) => format === ref.format && chain.includes(ref.chainId);
    const commit = () =>
      this.#effects.onLayer(ref, context, 'commit', () => commitLayer(this.#layout, ref, context));
    const record = join(snapshotPath(this.#layout, layerFolder(ref)), 'layer.json');
    return isUnpacked ? replaceUnder(this.#shown, { users, operation, record }, commit, context) : commit();
  }

  async removeLayer(ref: LayerRef, context: EffectContext): Promise<void> {
    const remove = async () => {
      const refuse = (user: string) =>
        new CimletError('failed-precondition', `remove layer ${ref.chainId}: ${user} needs it`);
      for (const { layer } of await readLayerRecords(this.#layout))
        if (layer.parent === ref.chainId && layer.format === ref.format)
          throw refuse(`layer ${layer.chainId}`);
      const user = await mountedBy(this.#layout, ({ chain, format }) => {
        return format === ref.format && chain.includes(ref.chainId);
      });
      if (user !== undefined) throw refuse(`the mount at ${user}`);
      for (const { request } of await readSnapshotRecords(this.#layout))
        if (request.format === ref.format && request.chain.includes(ref.chainId))
          throw refuse(`snapshot ${JSON.stringify(request.key)}`);
      if (ref.format === 'BlockCIM') await removeMergeFiles(this.#layout, ref.chainId, context);
      await removeLayerFiles(this.#layout, ref, context);
    };
    const removeLayer = () => this.#effects.onLayer(ref, context, 'remove', remove);
    if (ref.format === 'BlockCIM')
      await this.#effects.onMerge(ref.chainId, context, `remove layer ${ref.chainId}`, removeLayer);
    else await removeLayer();
  }

  async mount(request: MountRequest, context: EffectContext): Promise<MountedView> {
    const operation = `mount ${request.path}`;
    await this.#require(`${request.format}.mount`, operation);
    await this.#require(`view.${request.view}`, operation);
    if (request.access === 'ReadWrite') await this.#require('active', operation);
    await checkMountPath(request.path, this.root);
    return this.#effects.onMount(request.volumeGuid, context, operation, () => this.#show(request, context));
  }

  async #show(request: MountRequest, context: EffectContext): Promise<MountedView> {
    const show = async () => showView(await this.#viewPlace(context), request, context);
    const { path, snapshot } = request;
    return snapshot === undefined
      ? show()
      : this.#effects.onSnapshot(snapshot, context, `mount ${path}`, show);
  }

  async #viewPlace(context: EffectContext): Promise<ViewPlace> {
    return {
      layout: this.#layout,
      features: await this.#probe(),
      withLayer: (layer, effect) => this.#effects.onLayer(layer, context, 'show', effect),
    };
  }

  async dismount(
    volumeGuid: VolumeGuid,
    context: EffectContext,
    { toShowAgain = false }: DismountOptions = {},
  ): Promise<void> {
    const operation = `dismount ${volumeGuid}`;
    await this.#effects.onMount(volumeGuid, context, operation, async () => {
      const record = await readMountRecord<ViewRecord>(this.#layout, volumeGuid);
      if (record === undefined) return;
      if (toShowAgain) await requireShowableAgain(this.#layout, record, operation);
      await takeAway(this.#layout, record);
    });
  }

  async cleanLeftovers(context: EffectContext): Promise<Leftover[]> {
    throwIfAborted(context.signal, 'clean leftovers');
    const leftovers = await findLeftovers(this.#layout, await this.#readRecords(), this.#effects.running);
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
    return this.#effects.onMerge(top, context, operation, async () => {
      const known = await sufficientMerge(this.#layout, request, context.signal);
      if (known !== undefined) return known;
      await writeMerge(this.#layout, request, context);
      const record = join(snapshotPath(this.#layout, mergeFolder(top)), 'merge.json');
      const commit = () => commitMerge(this.#layout, top, context, removeUnmounted);
      return replaceUnder(this.#shown, { users, operation, record }, commit, context);
    });
  }

  async removeMerge(top: LayerRef, context: EffectContext): Promise<void> {
    const { chainId, format } = top;
    const operation = `remove merged CIM on ${chainId}`;
    throwIfAborted(context.signal, operation);
    if (format !== 'BlockCIM') return;
    await this.#effects.onMerge(chainId, context, operation, async () => {
      const user = await mountedBy(
        this.#layout,
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
    await this.#effects.onLayer(ref, context, 'export', () =>
      exportLayerTar(this.#layout, ref, file, context),
    );
  }

  async prepareSnapshot(request: SnapshotRequest, context: EffectContext): Promise<void> {
    await this.#snapshots.prepare(request, context);
  }

  async snapshotMounts(key: string, context: EffectContext): Promise<SnapshotMount[]> {
    return this.#snapshots.mounts(key, context);
  }

  async snapshotUsage(key: string, context: EffectContext): Promise<SnapshotUsage> {
    return this.#snapshots.usage(key, context);
  }

  async exportSnapshot(key: string, file: string, context: EffectContext): Promise<DiffId> {
    return this.#snapshots.export(key, file, context);
  }

  async commitSnapshot(key: string, options: CommitOptions, context: EffectContext): Promise<CommittedLayer> {
    return this.#snapshots.commit(key, options, context);
  }

  async removeSnapshot(key: string, context: EffectContext): Promise<void> {
    await this.#snapshots.remove(key, context);
  }

  async #probe(): Promise<EmbeddedFeatures> {
    this.#features ??= probeFeatures(this.#options);
    return this.#features;
  }

  async #require(capability: Capability, operation: string): Promise<void> {
    requireCapability(capability, (await this.#probe()).capabilities[capability], operation);
  }

  async #readRecords(focus?: Focus): Promise<HostRecords<ViewRecord>> {
    return readRecords<ViewRecord>(this.#layout, { focus, formats: FORMATS });
  }
}
