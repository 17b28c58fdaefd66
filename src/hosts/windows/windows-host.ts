/**
 * The host of Windows: CIMs that cimfs.dll writes and mounts. What is where under the root is as in the embedded host's
 * layout.ts, but forked images' files have the names that Windows gives them; mounts are made of what views.ts says.
 */

import { arch } from 'node:os';
import { join } from 'node:path';
import { CimletError } from '../../errors.ts';
import { Dlls, systemFolders } from '../../native/windows/dll.ts';
import { openWindowsApi, type WindowsApi } from '../../native/windows/windows.ts';
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
  EffectContext,
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
import { readRecords } from '../host-records.ts';
import { KeyedLock } from '../keyed-lock.ts';
import { type Layout, layerFolder, layoutOf, mergeFolder } from '../layout.ts';
import { Limiter } from '../limiter.ts';
import { checkMergeRequest } from '../merge-request.ts';
import { readMountRecord } from '../mount-records.ts';
import { readLayerRecord, readLayerRecords } from '../records.ts';
import { readSnapshotRecords } from '../snapshot-records.ts';
import { probeCapabilities, type WindowsCapabilities } from './capabilities.ts';
import { observeCimVolumes } from './cim-volumes.ts';
import { CimfsGuard } from './cimfs-guard.ts';
import { type Places, refuseInUse, seeComputeSystems } from './compute-systems.ts';
import { Effects } from './effects.ts';
import { explain } from './explain.ts';
import { exportLayerTar } from './export-layers.ts';
import { observeComputeSystems, placesOfLayer, placesOfMerge, placesOfMount } from './in-use.ts';
import { bearableLayerCalls } from './layer-calls.ts';
import { commitLayer, removeLayerFiles, unpackLayer } from './layer-store.ts';
import { removeLeftover, warnOfLost } from './leftovers.ts';
import { removeMergeFiles, sufficientMerge, writeMerge } from './merge-store.ts';
import { checkMountPath } from './mount-paths.ts';
import { mountedBy, replaceUnder } from './mounted-users.ts';
import { findLeftovers, observeLayers, observeMerges, observeMounts } from './observe.ts';
import { Scratches } from './scratches.ts';
import { SlowCalls } from './slow-calls.ts';
import { SnapshotEffects } from './snapshot-effects.ts';
import { observeSnapshots } from './snapshots.ts';
import { storeRoot } from './store-root.ts';
import { pathStateOf } from './view-state.ts';
import { type Gallery, showView, takeAway } from './views.ts';
import { VmAttachments } from './vm-attachments.ts';
import { Volumes } from './volumes.ts';
import type { Workshop } from './workshop.ts';

/** That this host writes. */
const FORMATS: readonly LayerFormat[] = ['ForkedCIM', 'BlockCIM', 'WCIFS', 'LCOW'];
/** As OCI platforms spell it. */
const ARCHITECTURE = arch() === 'x64' ? 'amd64' : arch();
/** CimFS mounts and dismounts under way at a time; more have crashed hosts. */
const VOLUME_CALLS = 2;

export interface WindowsHostOptions {
  /** Made when first needed. */
  root: string;
  /** When this machine started, in milliseconds since 1970; only tests say. */
  boot?: number | undefined;
  /** How long a cancelled effect may go on, in milliseconds; only tests say. */
  patience?: number | undefined;
  /** After how many milliseconds a call of Windows is told of that hasn't returned; only tests say. */
  slow?: number | undefined;
}

export function createWindowsHost(options: WindowsHostOptions): Host {
  return new WindowsHost(options);
}

class WindowsHost implements Host {
  readonly kind = 'windows';
  readonly root: string;
  readonly #layout: Layout;
  readonly #api: WindowsApi;
  readonly #layers: WindowsApi;
  readonly #guard: CimfsGuard;
  readonly #volumes: Volumes;
  readonly #locks = new KeyedLock();
  readonly #scratches: Scratches;
  readonly #vms: VmAttachments;
  readonly #effects: Effects;
  readonly #snapshots: SnapshotEffects;
  #probed: Promise<WindowsCapabilities> | undefined;

  constructor({ root, boot, patience, slow }: WindowsHostOptions) {
    this.root = storeRoot(root);
    const slowCalls = new SlowCalls(slow);
    this.#api = openWindowsApi(new Dlls(systemFolders, slowCalls.watch));
    this.#layers = { ...this.#api, ...bearableLayerCalls(this.#api) };
    this.#layout = layoutOf(this.root);
    const explained = async (error: unknown) =>
      explain(error, { ...this.#api, version: (await this.#probe()).version });
    this.#effects = new Effects(this.#locks, slowCalls, explained, patience);
    this.#guard = new CimfsGuard(join(this.root, 'cimfs-work.json'), boot, slowCalls.tell);
    this.#volumes = new Volumes(this.#api.cimfs, new Limiter(VOLUME_CALLS), this.#guard);
    this.#vms = new VmAttachments(this.#api, this.#layout, this.#locks);
    this.#scratches = new Scratches(this.root, this.#layers, this.#locks);
    this.#snapshots = new SnapshotEffects({
      effects: this.#effects,
      capabilities: async () => (await this.#probe()).capabilities,
      gallery: () => this.#gallery(),
      layers: this,
      requireScratch: (format, operation) => this.#requireScratch(format, operation),
      refuseInUse: (places, operation, context) => this.#refuseInUse(places, operation, context),
    });
  }

  async capabilities(): Promise<Capabilities> {
    return structuredClone((await this.#probe()).capabilities);
  }

  async observe({ signal, paths = [], focus }: ObserveOptions): Promise<HostState> {
    throwIfAborted(signal, 'observe');
    const store = await this.#gallery();
    const records = await readRecords(this.#layout, { focus, formats: FORMATS });
    const { mounts } = records;
    const states: HostState['paths'] = {};
    for (const path of paths) states[path] = await pathStateOf(store, path, mounts);
    const { version } = await this.#probe();
    return {
      formatVersion: 1,
      host: {
        kind: this.kind,
        platform: 'win32',
        osVersion: `10.0.${version}`,
        architecture: ARCHITECTURE,
      },
      root: this.root,
      capabilities: await this.capabilities(),
      layers: await observeLayers(store, records.layers, signal),
      merges: await observeMerges(store, records.merges, signal),
      mounts: await observeMounts(store, mounts),
      snapshots: await observeSnapshots(store, records.snapshots),
      computeSystems: await observeComputeSystems(this.#api.computecore, this.#layout, records, signal),
      // Of a part it can't be told whose the others are.
      ...(focus === undefined ? await observeCimVolumes(this.#api.kernel32, this.#layout, mounts) : {}),
      paths: states,
      leftovers:
        focus === undefined ? (await findLeftovers(store, this.#effects.running)).map(withoutGuid) : [],
      freeBytes: await freeBytesAt(this.root),
    };
  }

  async unpackLayer(request: UnpackRequest, context: EffectContext): Promise<void> {
    const operation = `unpack layer ${request.chainId}`;
    await this.#require(`${request.format}.write`, operation);
    if (request.seal === true && request.format !== 'LCOW') await this.#require('seal', operation);
    await this.#withLayer(request, context, 'unpack', async () =>
      unpackLayer(await this.#workshop(), request, context),
    );
  }

  async commitLayer(ref: LayerRef, context: EffectContext): Promise<CommittedLayer> {
    const operation = `commit layer ${ref.chainId}`;
    await this.#require(`${ref.format}.write`, operation);
    const isUnpacked = (await readLayerRecord(this.#layout, ref, 'tmp-')) !== undefined;
    const places = await placesOfLayer(this.#layout, ref);
    const users = ({ chain, format }: MountRequest) => format === ref.format && chain.includes(ref.chainId);
    const commit = () =>
      this.#withLayer(ref, context, 'commit', async () => commitLayer(await this.#workshop(), ref, context));
    return isUnpacked
      ? replaceUnder(await this.#gallery(), this.#effects, { users, places, operation }, commit, context)
      : commit();
  }

  async removeLayer(ref: LayerRef, context: EffectContext): Promise<void> {
    const operation = `remove layer ${ref.chainId}`;
    const remove = async () => {
      const refuse = (user: string) =>
        new CimletError('failed-precondition', `${operation}: ${user} needs it`);
      for (const { layer } of await readLayerRecords(this.#layout))
        if (layer.parent === ref.chainId && layer.format === ref.format)
          throw refuse(`layer ${layer.chainId}`);
      const user = await mountedBy(
        await this.#gallery(),
        ({ chain, format }) => format === ref.format && chain.includes(ref.chainId),
      );
      if (user !== undefined) throw refuse(`the mount at ${user}`);
      for (const { request } of await readSnapshotRecords(this.#layout))
        if (request.format === ref.format && request.chain.includes(ref.chainId))
          throw refuse(`snapshot ${JSON.stringify(request.key)}`);
      await this.#refuseInUse(await placesOfLayer(this.#layout, ref), operation, context);
      const workshop = await this.#workshop();
      if (ref.format === 'BlockCIM') await removeMergeFiles(workshop, ref.chainId, context);
      await removeLayerFiles(workshop, ref, context);
    };
    const removeLayer = () => this.#withLayer(ref, context, 'remove', remove);
    if (ref.format === 'BlockCIM')
      await this.#effects.inFolder(mergeFolder(ref.chainId), context, operation, removeLayer);
    else await removeLayer();
  }

  async mergeChain(request: MergeRequest, context: EffectContext): Promise<MergedChain> {
    const operation = `merge chain ${request.chain.at(-1)}`;
    await this.#require('merge', operation);
    if (request.seal === true) await this.#require('seal', operation);
    const top = checkMergeRequest(request);
    const users = ({ chain, format }: MountRequest) =>
      format === request.format && chain.length > 1 && chain.at(-1) === top;
    return this.#effects.inFolder(mergeFolder(top), context, operation, async () => {
      const workshop = await this.#workshop();
      const known = await sufficientMerge(workshop, request);
      if (known !== undefined) return known;
      await writeMerge(workshop, request, context);
      return replaceUnder(
        await this.#gallery(),
        this.#effects,
        { users, places: placesOfMerge(this.#layout, top), operation },
        () => commitMerge(this.#layout, top, context),
        context,
      );
    });
  }

  async removeMerge({ chainId, format }: LayerRef, context: EffectContext): Promise<void> {
    const operation = `remove merged CIM on ${chainId}`;
    throwIfAborted(context.signal, operation);
    if (format !== 'BlockCIM') return;
    await this.#effects.inFolder(mergeFolder(chainId), context, operation, async () => {
      const user = await mountedBy(
        await this.#gallery(),
        (request) =>
          request.format === format && request.chain.length > 1 && request.chain.at(-1) === chainId,
      );
      if (user !== undefined)
        throw new CimletError('failed-precondition', `${operation}: the mount at ${user} needs it`);
      await this.#refuseInUse(placesOfMerge(this.#layout, chainId), operation, context);
      await removeMergeFiles(await this.#workshop(), chainId, context);
    });
  }

  async mount(request: MountRequest, context: EffectContext): Promise<MountedView> {
    const operation = `mount ${request.path}`;
    await this.#require(`${request.format}.mount`, operation);
    if (request.utilityVM !== undefined) await this.#require('utilityVM', operation);
    else {
      if (request.format === 'LCOW') throw onlyInVms(operation);
      await this.#require(`view.${request.view}`, operation);
      await checkMountPath(request.path, this.root);
    }
    if (request.access === 'ReadWrite') await this.#requireScratch(request.format, operation);
    const show = async () => showView(await this.#gallery(), request, context);
    const { access, snapshot } = request;
    return this.#effects.onMount(request, context, operation, () =>
      access === 'ReadWrite' && snapshot !== undefined
        ? this.#snapshots.whileMounting(snapshot, context, operation, show)
        : show(),
    );
  }

  async dismount(volumeGuid: VolumeGuid, context: EffectContext): Promise<void> {
    const operation = `dismount ${volumeGuid}`;
    throwIfAborted(context.signal, operation);
    const known = await readMountRecord(this.#layout, volumeGuid);
    if (known === undefined) return;
    await this.#effects.onMount(known.request, context, operation, async () => {
      const record = await readMountRecord(this.#layout, volumeGuid);
      if (record === undefined) return;
      await this.#refuseInUse(placesOfMount(record), operation, context);
      await takeAway(await this.#gallery(), record);
    });
  }

  async cleanLeftovers(context: EffectContext): Promise<Leftover[]> {
    const operation = 'clean leftovers';
    throwIfAborted(context.signal, operation);
    const gallery = await this.#gallery();
    await this.#guard.settle();
    const removed: Leftover[] = [];
    const seen = await seeComputeSystems(this.#api.computecore, context.signal);
    // No forked image begins meanwhile, whose files would look left over.
    await this.#locks.run('forked images', async () => {
      for (const leftover of await findLeftovers(gallery, this.#effects.running)) {
        throwIfAborted(context.signal, operation);
        const obstacle = await removeLeftover(gallery, leftover, seen, context);
        if (obstacle === undefined) removed.push(withoutGuid(leftover));
        else context.warn?.(`${leftover.path} cannot be removed yet: ${obstacle}`);
      }
    });
    await warnOfLost(gallery, context);
    return removed;
  }

  async exportLayer(ref: LayerRef, file: string, context: EffectContext): Promise<void> {
    const operation = `export layer ${ref.chainId}`;
    await this.#require('export', operation);
    await this.#require(`${ref.format}.mount`, operation);
    await this.#withLayer(ref, context, 'export', async () =>
      exportLayerTar(await this.#workshop(), ref, file, context),
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

  async #probe(): Promise<WindowsCapabilities> {
    this.#probed ??= probeCapabilities(this.#api, this.root, this.#guard).catch((error: unknown) => {
      // The next one who asks may be told.
      this.#probed = undefined;
      throw error;
    });
    return this.#probed;
  }

  async #require(capability: Capability, operation: string): Promise<void> {
    requireCapability(capability, (await this.#probe()).capabilities[capability], operation);
  }

  async #requireScratch(format: LayerFormat, operation: string): Promise<void> {
    const { scratches } = await this.#probe();
    requireCapability('active', scratches[format], `${operation} (${format})`);
  }

  async #refuseInUse(places: Places, operation: string, context: EffectContext): Promise<void> {
    await refuseInUse(this.#api.computecore, places, operation, context);
  }

  async #workshop(): Promise<Workshop> {
    const { build } = await this.#probe();
    const { advapi32: privileges, vmcompute, computestorage, computecore } = this.#layers;
    const [layout, volumes, locks] = [this.#layout, this.#volumes, this.#locks];
    return { layout, build, volumes, locks, privileges, vmcompute, computestorage, computecore };
  }

  async #gallery(): Promise<Gallery> {
    const { bindfilter: bindFilter, kernel32 } = this.#api;
    return { ...(await this.#workshop()), bindFilter, kernel32, scratches: this.#scratches, vms: this.#vms };
  }

  async #withLayer<T>(
    ref: LayerRef,
    context: EffectContext,
    verb: string,
    effect: () => Promise<T>,
  ): Promise<T> {
    return this.#effects.inFolder(layerFolder(ref), context, `${verb} layer ${ref.chainId}`, effect);
  }
}

function onlyInVms(operation: string): CimletError {
  return new CimletError('unsupported-host', `${operation}: Windows shows Linux layers in utility VMs only`, {
    hint: 'name one in spec.isolation.utilityVM',
  });
}

function withoutGuid({ path, reason, bytes }: Leftover): Leftover {
  return { path, reason, bytes };
}
