/** Layers of the in-memory host, unpacked and committed, with what they show. */

import { CimletError } from '../../errors.ts';
import type {
  CommittedLayer,
  EffectContext,
  LayerFault,
  LayerRef,
  Leftover,
  ObservedLayer,
  UnpackRequest,
} from '../host.ts';
import { suffices } from '../unpack-request.ts';
import { keyOf, type LayerReader, type LayerTree, rootHashOf, type StoredLayer } from './stored-layer.ts';

export class LayerStore {
  readonly #layers = new Map<string, StoredLayer>();
  readonly #unpacked = new Map<string, StoredLayer>();
  readonly #builder: string;
  readonly #readLayer: LayerReader | undefined;

  /** Without a reader blobs are opaque: nothing is read, and a layer's size is its blob's. */
  constructor(builder: string, readLayer: LayerReader | undefined) {
    this.#builder = builder;
    this.#readLayer = readLayer;
  }

  get(ref: LayerRef): StoredLayer | undefined {
    return this.#layers.get(keyOf(ref));
  }

  /** The layer, when nothing is wrong with it or missing below it. */
  sound(ref: LayerRef): StoredLayer | undefined {
    const stored = this.get(ref);
    return stored === undefined || this.#faultsOf(stored).length > 0 ? undefined : stored;
  }

  all(): ObservedLayer[] {
    return [...this.#layers.values()]
      .map((stored) => ({ ...stored.layer, faults: this.#faultsOf(stored) }))
      .sort((a, b) => (keyOf(a) < keyOf(b) ? -1 : 1));
  }

  /** Leaves alone what is there with all that the request asks for. */
  async unpack(request: UnpackRequest, context: EffectContext): Promise<void> {
    if (this.#suffices(request)) return;
    const parent = this.#requireParents(request);
    const { blob, diffId } = request;
    const tree =
      (await this.#readLayer?.({ blob, diffId, parent: parent?.tree }, context)) ??
      new Map([...(parent?.tree ?? []), [diffId, new Uint8Array(0)]]);
    context.progress?.({ phase: 'unpacking', done: blob.size, total: blob.size });
    this.#unpacked.set(keyOf(request), this.#stored(request, tree, blob.size));
  }

  /** A layer that was made here, committed at once; one that is there is left alone. */
  add(request: Omit<UnpackRequest, 'blob'>, tree: LayerTree, bytes: number): CommittedLayer {
    const known = this.sound(request);
    if (known !== undefined) return { ...known.layer };
    const stored = this.#stored(request, tree, bytes);
    this.#layers.set(keyOf(request), stored);
    return { ...stored.layer };
  }

  #stored(request: Omit<UnpackRequest, 'blob'>, tree: LayerTree, bytes: number): StoredLayer {
    const { chainId, format, diffId, parents } = request;
    const layer: CommittedLayer = {
      chainId,
      format,
      diffId,
      parent: parents.at(-1),
      bytes,
      files: tree.size,
      builder: this.#builder,
      ...(request.seal === true ? { rootHash: rootHashOf(tree) } : {}),
      ...(request.vhdFooter === true ? { vhdFooter: true } : {}),
    };
    return { layer, tree, faults: [] };
  }

  commit(ref: LayerRef): CommittedLayer {
    const unpacked = this.#unpacked.get(keyOf(ref));
    if (unpacked !== undefined) {
      this.#unpacked.delete(keyOf(ref));
      this.#layers.set(keyOf(ref), unpacked);
    }
    const stored = this.get(ref);
    if (stored === undefined || stored.faults.length > 0)
      throw new CimletError('failed-precondition', `commit layer ${ref.chainId}: it was not unpacked`);
    return { ...stored.layer };
  }

  /** A layer that was built on this one. */
  findChild({ chainId, format }: LayerRef): CommittedLayer | undefined {
    return [...this.#layers.values()].find(({ layer }) => layer.parent === chainId && layer.format === format)
      ?.layer;
  }

  remove(ref: LayerRef): void {
    this.#unpacked.delete(keyOf(ref));
    this.#layers.delete(keyOf(ref));
  }

  damage(ref: LayerRef, fault: LayerFault): void {
    const stored = this.get(ref);
    if (stored === undefined) throw new Error(`no layer ${keyOf(ref)} to damage`);
    stored.faults.push(fault);
  }

  drop(ref: LayerRef): void {
    if (!this.#layers.delete(keyOf(ref))) throw new Error(`no layer ${keyOf(ref)} to drop`);
  }

  leftovers(root: string): Leftover[] {
    return [...this.#unpacked].map(([key, { layer }]) => ({
      path: `${root}/snapshots/tmp-${key}`,
      reason: 'unpacked but never committed',
      bytes: layer.bytes,
    }));
  }

  cleanLeftovers(): void {
    this.#unpacked.clear();
  }

  #suffices(request: UnpackRequest): boolean {
    const layer = this.sound(request)?.layer;
    return layer !== undefined && suffices(layer, request);
  }

  /** The topmost parent; throws unless all are sound. */
  #requireParents({ chainId, parents, format }: UnpackRequest): StoredLayer | undefined {
    let topmost: StoredLayer | undefined;
    for (const parent of parents) {
      topmost = this.sound({ chainId: parent, format });
      if (topmost !== undefined) continue;
      const message = `unpack layer ${chainId}: parent ${parent} is not committed as ${format}`;
      throw new CimletError('failed-precondition', message);
    }
    return topmost;
  }

  #faultsOf({ layer, faults }: StoredLayer): LayerFault[] {
    const { parent, format } = layer;
    if (parent === undefined || this.get({ chainId: parent, format }) !== undefined) return [...faults];
    return [{ code: 'parent-missing', message: `its parent ${parent} is not there` }, ...faults];
  }
}
