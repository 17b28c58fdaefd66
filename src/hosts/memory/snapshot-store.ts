/** Snapshots by key of the in-memory host: what is written to one is a tree of its own. */

import { createHash } from 'node:crypto';
import { CimletError } from '../../errors.ts';
import type {
  CommitOptions,
  CommittedLayer,
  DiffId,
  ObservedSnapshot,
  SnapshotRequest,
  SnapshotUsage,
} from '../host.ts';
import { chainIdOn } from '../identity.ts';
import { checkSnapshotRequest, isSameRequest, noSuchSnapshot, otherSnapshot } from '../snapshot-request.ts';
import type { LayerStore } from './layer-store.ts';
import { layerTar } from './layer-writer.ts';
import type { LayerTree } from './stored-layer.ts';

export interface StoredSnapshot {
  request: SnapshotRequest;
  /** What it shows: its chain's files, as they have been written to. */
  tree: Map<string, Uint8Array | undefined>;
}

export class SnapshotStore {
  readonly #snapshots = new Map<string, StoredSnapshot>();
  readonly #layers: LayerStore;

  constructor(layers: LayerStore) {
    this.#layers = layers;
  }

  get(key: string): StoredSnapshot | undefined {
    return this.#snapshots.get(key);
  }

  require(key: string, operation: string): StoredSnapshot {
    const found = this.#snapshots.get(key);
    if (found === undefined) throw noSuchSnapshot(key, operation);
    return found;
  }

  all(): ObservedSnapshot[] {
    return [...this.#snapshots.values()]
      .map(({ request }) => {
        const lost = request.chain.find(
          (chainId) => this.#layers.sound({ chainId, format: request.format }) === undefined,
        );
        return {
          ...request,
          chain: [...request.chain],
          ...this.usage(request.key, 'observe'),
          ...(lost === undefined ? {} : { fault: `its layer ${lost} is gone or damaged` }),
        };
      })
      .sort((a, b) => (a.key < b.key ? -1 : 1));
  }

  usage(key: string, operation: string): SnapshotUsage {
    const { request, tree } = this.require(key, operation);
    const changes = changesOf(tree, this.#lowerOf(request));
    const bytes = changes.reduce((sum, path) => sum + (tree.get(path)?.length ?? 0), 0);
    return { bytes, files: changes.length };
  }

  /** The key of a snapshot that `suits`. */
  find(suits: (request: SnapshotRequest) => boolean): string | undefined {
    return [...this.#snapshots.values()].find(({ request }) => suits(request))?.request.key;
  }

  prepare(request: SnapshotRequest): void {
    const operation = `prepare snapshot ${JSON.stringify(request.key)}`;
    checkSnapshotRequest(request);
    const known = this.#snapshots.get(request.key);
    if (known !== undefined && isSameRequest(known.request, request)) return;
    if (known !== undefined) throw otherSnapshot(known.request);
    for (const chainId of request.chain)
      if (this.#layers.sound({ chainId, format: request.format }) === undefined)
        throw new CimletError('failed-precondition', `${operation}: layer ${chainId} is not committed`);
    const { shareWith } = request.scratch ?? {};
    if (shareWith !== undefined) this.require(shareWith, operation);
    const tree = new Map(this.#lowerOf(request));
    this.#snapshots.set(request.key, { request: { ...request, chain: [...request.chain] }, tree });
  }

  /** The tar of its changes. Throws `failed-precondition` for a view. */
  export(key: string, operation: string): { tar: Buffer; diffId: DiffId } {
    const { request, tree } = this.require(key, operation);
    if (request.kind === 'view')
      throw new CimletError('failed-precondition', `${operation}: it is a view, which has no changes`);
    const tar = layerTar(tree, this.#lowerOf(request));
    return { tar, diffId: `sha256:${createHash('sha256').update(tar).digest('hex')}` as DiffId };
  }

  commit(key: string, options: CommitOptions, operation: string): CommittedLayer {
    const { tar, diffId } = this.export(key, operation);
    const { request, tree } = this.require(key, operation);
    const { chain, format } = request;
    const chainId = chainIdOn(chain.at(-1), diffId);
    options.onChainId?.(chainId);
    const { seal, vhdFooter } = options;
    const written = { chainId, diffId, parents: chain, format, seal, vhdFooter };
    const layer = this.#layers.add(written, new Map(tree), tar.length);
    this.#snapshots.delete(key);
    return layer;
  }

  remove(key: string): void {
    this.#snapshots.delete(key);
  }

  #lowerOf({ chain, format }: SnapshotRequest): LayerTree {
    const chainId = chain.at(-1);
    if (chainId === undefined) return new Map([['Files', undefined]]);
    return this.#layers.get({ chainId, format })?.tree ?? new Map();
  }
}

/** Paths of one tree that the other doesn't have, or has otherwise, or that it has lost. */
function changesOf(tree: LayerTree, lower: LayerTree): string[] {
  const written = [...tree].filter(([path, content]) => !lower.has(path) || lower.get(path) !== content);
  const gone = [...lower.keys()].filter((path) => !tree.has(path));
  return [...written.map(([path]) => path), ...gone];
}
