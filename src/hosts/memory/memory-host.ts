/**
 * A host that keeps its layers and mounts in memory: a real implementation of the port (it passes the conformance
 * suite), on which everything above is tested. Beyond the port it can fail at any call, before or after the effect,
 * and lose things as an operator or a broken disk would.
 */

import { CimletError } from '../../errors.ts';
import { capabilityTable, requireCapability } from '../capability.ts';
import type {
  Capabilities,
  Capability,
  CommitOptions,
  CommittedLayer,
  DiffId,
  EffectContext,
  Host,
  HostState,
  LayerFault,
  LayerRef,
  Leftover,
  MergedChain,
  MergeFault,
  MergeRequest,
  MountedView,
  MountRequest,
  ObserveOptions,
  PathState,
  SnapshotMount,
  SnapshotRequest,
  SnapshotUsage,
  UnpackRequest,
  VolumeGuid,
} from '../host.ts';
import { viewOf } from '../mounted-view.ts';
import { writableSnapshot } from '../snapshot-request.ts';
import { CallLog, type EffectName, type HostCall, type OnCall } from './call-log.ts';
import { LayerStore } from './layer-store.ts';
import { writeLayerTar, writeWhole } from './layer-writer.ts';
import { MergeStore } from './merge-store.ts';
import { checkMountPath, MountStore } from './mount-store.ts';
import { viewOfChain } from './shown-chain.ts';
import { SnapshotStore } from './snapshot-store.ts';
import type { LayerReader, LayerTree } from './stored-layer.ts';

export type { EffectName } from './call-log.ts';

export interface MemoryHostOptions {
  root?: string;
  /** Replaces entries of the default table: ForkedCIM layers and both views. */
  capabilities?: Partial<Capabilities>;
  builder?: string;
  /** Without it blobs are opaque: nothing is read, and a layer's size is its blob's. */
  readLayer?: LayerReader;
  /**
   * Called around every effect. A throw makes the call fail there: `before` nothing has happened, `after` everything
   * has but the caller doesn't learn it. A promise holds the call up.
   */
  onCall?: OnCall;
}

const DEFAULT_CAPABILITIES: Partial<Capabilities> = {
  'ForkedCIM.write': { available: true },
  'ForkedCIM.mount': { available: true },
  'view.Kernel': { available: true },
  'view.Extracted': { available: true },
  export: { available: true },
};

/** What it can do with snapshots when given these capabilities as well. */
export const SNAPSHOT_CAPABILITIES: Partial<Capabilities> = {
  active: { available: true },
  commit: { available: true },
};

/** What it can do with block CIMs when given these capabilities as well. */
export const BLOCK_CAPABILITIES: Partial<Capabilities> = {
  'BlockCIM.write': { available: true },
  'BlockCIM.mount': { available: true },
  merge: { available: true },
  seal: { available: true },
};

export class MemoryHost implements Host {
  readonly kind = 'memory';
  readonly root: string;
  readonly #log: CallLog;
  readonly #capabilities: Capabilities;
  readonly #layers: LayerStore;
  readonly #merges: MergeStore;
  readonly #mounts = new MountStore();
  readonly #snapshots: SnapshotStore;

  constructor(options: MemoryHostOptions = {}) {
    this.#log = new CallLog(options.onCall);
    this.root = options.root ?? '/memory';
    const builder = options.builder ?? 'memory/1';
    this.#layers = new LayerStore(builder, options.readLayer);
    this.#snapshots = new SnapshotStore(this.#layers);
    this.#merges = new MergeStore(builder, (ref) => this.#layers.get(ref));
    this.#capabilities = capabilityTable(
      { ...DEFAULT_CAPABILITIES, ...options.capabilities },
      'not supported by the in-memory host',
    );
  }

  // --- what tests do to it ---

  /** Every call so far, in order. */
  get calls(): readonly HostCall[] {
    return this.#log.calls;
  }

  /** Makes the `call`th next call of `method` fail (default: the very next), before its effect or after it. */
  failNext(
    method: EffectName,
    error: Error,
    options: { call?: number; stage?: 'before' | 'after' } = {},
  ): void {
    this.#log.failNext(method, error, options);
  }

  /** The calls that change something, i.e. all but `observe` and `capabilities`. */
  effects(): HostCall[] {
    return this.#log.calls.filter(({ method }) => method !== 'observe' && method !== 'capabilities');
  }

  /** Drift: somebody unmounted it by hand. */
  dropMount(volumeGuid: VolumeGuid): void {
    this.#mounts.setState(volumeGuid, 'missing');
  }

  /** Drift: somebody mounted something over it. `uncoverMount` takes that away again. */
  coverMount(volumeGuid: VolumeGuid): void {
    this.#mounts.setState(volumeGuid, 'covered');
  }

  uncoverMount(volumeGuid: VolumeGuid): void {
    this.#mounts.setState(volumeGuid, 'mounted');
  }

  /** Drift: the layer's files are damaged as `fault` says. */
  damageLayer(ref: LayerRef, fault: LayerFault): void {
    this.#layers.damage(ref, fault);
  }

  /** Drift: the layer is gone altogether. */
  dropLayer(ref: LayerRef): void {
    this.#layers.drop(ref);
  }

  /** Drift: the merged CIM on this layer is damaged as `fault` says. */
  damageMerge(top: LayerRef, fault: MergeFault): void {
    this.#merges.damage(top, fault);
  }

  /** Drift: the merged CIM on this layer is gone. */
  dropMerge(top: LayerRef): void {
    this.#merges.remove(top);
  }

  /** Puts something foreign at a path; `undefined` takes it away. */
  placeAt(path: string, state: PathState | undefined): void {
    this.#mounts.placeAt(path, state);
  }

  /** What a mounted path shows, or undefined when nothing of ours is mounted there. */
  viewAt(path: string): LayerTree | undefined {
    const view = this.#mounts.viewAt(path);
    if (view?.snapshot !== undefined) return this.#snapshots.get(view.snapshot)?.tree;
    return view === undefined ? undefined : this.#layers.get(view)?.tree;
  }

  /** Writes a file through the writable mount at a path; `undefined` removes it. `name` is the layer's, below `Files`. */
  writeAt(path: string, name: string, content: Uint8Array | undefined): void {
    const key = this.#mounts.viewAt(path)?.snapshot;
    const snapshot = key === undefined ? undefined : this.#snapshots.get(key);
    if (snapshot === undefined) throw new Error(`nothing writable is mounted at ${path}`);
    if (content === undefined) snapshot.tree.delete(name);
    else snapshot.tree.set(name, content);
  }

  // --- the port ---

  async capabilities(): Promise<Capabilities> {
    return this.#log.run('capabilities', '', undefined, () => structuredClone(this.#capabilities));
  }

  async observe({ signal, paths = [], focus }: ObserveOptions): Promise<HostState> {
    const isIn = (among: readonly string[] | undefined, name: string | undefined) =>
      among === undefined || (name !== undefined && among.includes(name));
    return this.#log.run('observe', '', signal, () => ({
      formatVersion: 1 as const,
      host: { kind: this.kind, platform: 'memory', osVersion: '10.0.26100.1', architecture: 'amd64' },
      root: this.root,
      capabilities: structuredClone(this.#capabilities),
      layers: this.#layers.all().filter(({ chainId }) => isIn(focus?.layers, chainId)),
      merges: this.#merges
        .all()
        .filter(({ chain }) => isIn(focus?.layers, chain.at(-1)))
        .sort((a, b) => compareText(`${a.format} ${a.chain.at(-1)}`, `${b.format} ${b.chain.at(-1)}`)),
      mounts: this.#mounts.all().filter(({ volumeGuid }) => isIn(focus?.mounts, volumeGuid)),
      snapshots: this.#snapshots.all().filter(({ key }) => isIn(focus?.snapshots, key)),
      paths: Object.fromEntries(paths.map((path) => [path, this.#mounts.pathState(path)])),
      leftovers: focus === undefined ? this.#layers.leftovers(this.root) : [],
    }));
  }

  async unpackLayer(request: UnpackRequest, context: EffectContext): Promise<void> {
    return this.#log.run('unpackLayer', request.chainId, context.signal, async () => {
      const operation = `unpack layer ${request.chainId}`;
      this.#require(`${request.format}.write`, operation);
      if (request.seal === true) this.#require('seal', operation);
      await this.#layers.unpack(request, context);
    });
  }

  async commitLayer(ref: LayerRef, context: EffectContext): Promise<CommittedLayer> {
    return this.#log.run('commitLayer', ref.chainId, context.signal, () => {
      this.#require(`${ref.format}.write`, `commit layer ${ref.chainId}`);
      context.progress?.({ phase: 'committing', done: 0, total: 0 });
      return this.#layers.commit(ref);
    });
  }

  async removeLayer(ref: LayerRef, context: EffectContext): Promise<void> {
    return this.#log.run('removeLayer', ref.chainId, context.signal, () => {
      const refuse = (user: string) =>
        new CimletError('failed-precondition', `remove layer ${ref.chainId}: ${user} needs it`);
      const child = this.#layers.findChild(ref);
      if (child !== undefined) throw refuse(`layer ${child.chainId}`);
      const path = this.#mounts.findUser(
        ({ format, chain }) => format === ref.format && chain.includes(ref.chainId),
      );
      if (path !== undefined) throw refuse(`the mount at ${path}`);
      const key = this.#snapshots.find(
        ({ format, chain }) => format === ref.format && chain.includes(ref.chainId),
      );
      if (key !== undefined) throw refuse(`snapshot ${JSON.stringify(key)}`);
      this.#merges.remove(ref);
      this.#layers.remove(ref);
    });
  }

  async mount(request: MountRequest, context: EffectContext): Promise<MountedView> {
    return this.#log.run('mount', request.volumeGuid, context.signal, () => {
      const operation = `mount ${request.path}`;
      this.#require(`${request.format}.mount`, operation);
      this.#require(`view.${request.view}`, operation);
      if (request.access === 'ReadWrite') this.#require('active', operation);
      checkMountPath(request.path, this.root);
      const view =
        request.chain.length === 0 ? viewOf(request) : viewOfChain(this.#layers, this.#merges, request);
      if (request.access === 'ReadWrite') this.#requireWritable(request, operation);
      const mounted = this.#mounts.mount(request, view, operation);
      context.progress?.({ phase: 'mounting', done: 1, total: 1 });
      return mounted;
    });
  }

  async dismount(volumeGuid: VolumeGuid, context: EffectContext): Promise<void> {
    return this.#log.run('dismount', volumeGuid, context.signal, () => this.#mounts.dismount(volumeGuid));
  }

  async cleanLeftovers(context: EffectContext): Promise<Leftover[]> {
    return this.#log.run('cleanLeftovers', '', context.signal, () => {
      const removed = this.#layers.leftovers(this.root);
      this.#layers.cleanLeftovers();
      return removed;
    });
  }

  async mergeChain(request: MergeRequest, context: EffectContext): Promise<MergedChain> {
    const subject = request.chain.at(-1) ?? '';
    return this.#log.run('mergeChain', subject, context.signal, () => {
      this.#require('merge', `merge chain ${subject}`);
      if (request.seal === true) this.#require('seal', `merge chain ${subject}`);
      const merged = this.#merges.merge(request);
      context.progress?.({ phase: 'merging', done: 1, total: 1 });
      return merged;
    });
  }

  async removeMerge(top: LayerRef, context: EffectContext): Promise<void> {
    return this.#log.run('removeMerge', top.chainId, context.signal, () => {
      const path = this.#mounts.findUser(
        ({ format, chain }) => format === top.format && chain.length > 1 && chain.at(-1) === top.chainId,
      );
      if (path !== undefined) {
        const message = `remove merged CIM on ${top.chainId}: the mount at ${path} needs it`;
        throw new CimletError('failed-precondition', message);
      }
      this.#merges.remove(top);
    });
  }

  async exportLayer(ref: LayerRef, file: string, context: EffectContext): Promise<void> {
    return this.#log.run('exportLayer', ref.chainId, context.signal, async () => {
      this.#require('export', `export layer ${ref.chainId}`);
      const stored = this.#layers.sound(ref);
      if (stored === undefined) {
        const message = `export layer ${ref.chainId}: it is not committed, or is damaged`;
        throw new CimletError('failed-precondition', message);
      }
      const { parent } = stored.layer;
      const below = parent === undefined ? undefined : this.#layers.get({ ...ref, chainId: parent });
      await writeLayerTar(stored.tree, below?.tree ?? new Map(), file);
    });
  }

  async prepareSnapshot(request: SnapshotRequest, context: EffectContext): Promise<void> {
    return this.#log.run('prepareSnapshot', request.key, context.signal, () => {
      this.#require('active', `prepare snapshot ${JSON.stringify(request.key)}`);
      this.#snapshots.prepare(request);
    });
  }

  async snapshotMounts(key: string, context: EffectContext): Promise<SnapshotMount[]> {
    return this.#log.run('snapshotMounts', key, context.signal, () => {
      const operation = `mounts of snapshot ${JSON.stringify(key)}`;
      this.#require('active', operation);
      const { request } = this.#snapshots.require(key, operation);
      return [{ type: 'memory', source: key, options: [request.kind === 'view' ? 'ro' : 'rw'] }];
    });
  }

  async snapshotUsage(key: string, context: EffectContext): Promise<SnapshotUsage> {
    return this.#log.run('snapshotUsage', key, context.signal, () =>
      this.#snapshots.usage(key, `usage of snapshot ${JSON.stringify(key)}`),
    );
  }

  async exportSnapshot(key: string, file: string, context: EffectContext): Promise<DiffId> {
    return this.#log.run('exportSnapshot', key, context.signal, async () => {
      const operation = `export snapshot ${JSON.stringify(key)}`;
      this.#require('commit', operation);
      const { tar, diffId } = this.#snapshots.export(key, operation);
      await writeWhole(file, tar);
      return diffId;
    });
  }

  async commitSnapshot(key: string, options: CommitOptions, context: EffectContext): Promise<CommittedLayer> {
    return this.#log.run('commitSnapshot', key, context.signal, () => {
      const operation = `commit snapshot ${JSON.stringify(key)}`;
      this.#require('commit', operation);
      this.#requireUnused(key, operation);
      return this.#snapshots.commit(key, options, operation);
    });
  }

  async removeSnapshot(key: string, context: EffectContext): Promise<void> {
    return this.#log.run('removeSnapshot', key, context.signal, () => {
      this.#requireUnused(key, `remove snapshot ${JSON.stringify(key)}`);
      this.#snapshots.remove(key);
    });
  }

  // --- inside ---

  #requireWritable(request: MountRequest, operation: string): void {
    const { snapshot: key = '', volumeGuid } = request;
    writableSnapshot(request, this.#snapshots.get(key)?.request);
    const path = this.#mounts.findUser((other) => other.snapshot === key && other.volumeGuid !== volumeGuid);
    if (path === undefined) return;
    throw new CimletError(
      'failed-precondition',
      `${operation}: snapshot ${JSON.stringify(key)} is mounted at ${path}`,
    );
  }

  #requireUnused(key: string, operation: string): void {
    const refuse = (why: string) => new CimletError('failed-precondition', `${operation}: ${why}`);
    const path = this.#mounts.findUser(({ snapshot }) => snapshot === key);
    if (path !== undefined) throw refuse(`it is mounted at ${path}`);
    const sharer = this.#snapshots.find(({ scratch }) => scratch?.shareWith === key);
    if (sharer !== undefined) throw refuse(`snapshot ${JSON.stringify(sharer)} is kept in its scratch`);
  }

  #require(capability: Capability, operation: string): void {
    requireCapability(capability, this.#capabilities[capability], operation);
  }
}

function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
