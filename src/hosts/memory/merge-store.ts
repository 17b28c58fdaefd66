/** Merged CIMs of the in-memory host: at most one on each topmost layer, bound to its layers as they were. */

import { createHash } from 'node:crypto';
import { CimletError } from '../../errors.ts';
import { requireSameSeal } from '../chain-layers.ts';
import type { LayerFault, LayerRef, MergedChain, MergeFault, MergeRequest, ObservedMerge } from '../host.ts';
import { checkMergeRequest } from '../merge-request.ts';
import { suffices } from '../unpack-request.ts';
import { keyOf, rootHashOf, type StoredLayer } from './stored-layer.ts';

interface StoredMerge {
  merge: MergedChain;
  /** Of each layer, base first, what it was when it was merged. */
  sources: string[];
  faults: MergeFault[];
}

export class MergeStore {
  readonly #merges = new Map<string, StoredMerge>();
  readonly #builder: string;
  readonly #layerOf: (ref: LayerRef) => StoredLayer | undefined;

  constructor(builder: string, layerOf: (ref: LayerRef) => StoredLayer | undefined) {
    this.#builder = builder;
    this.#layerOf = layerOf;
  }

  merge(request: MergeRequest): MergedChain {
    const top = checkMergeRequest(request);
    const { chain, format, seal, vhdFooter } = request;
    const operation = `merge chain ${top}`;
    const layers = chain.map((chainId) => {
      const stored = this.#layerOf({ chainId, format });
      if (stored !== undefined && stored.faults.length === 0) return stored;
      const message = `${operation}: layer ${chainId} is not committed, or is damaged`;
      throw new CimletError('failed-precondition', message);
    });
    requireSameSeal(layers, seal, operation);
    const known = this.observed({ chainId: top, format });
    if (known?.faults.length === 0 && suffices(known, request)) return mergedChainOf(known);
    const sources = layers.map(identityOf);
    const merge: MergedChain = {
      chain: [...chain],
      format,
      bytes: layers.reduce((sum, { layer }) => sum + layer.files, 0),
      builder: this.#builder,
      ...(seal === true ? { rootHash: sealOf(sources) } : {}),
      ...(vhdFooter === true ? { vhdFooter } : {}),
    };
    this.#merges.set(keyOf({ chainId: top, format }), { merge, sources, faults: [] });
    return mergedChainOf(merge);
  }

  remove(top: LayerRef): void {
    this.#merges.delete(keyOf(top));
  }

  damage(top: LayerRef, fault: MergeFault): void {
    const stored = this.#merges.get(keyOf(top));
    if (stored === undefined) throw new Error(`no merged CIM on ${keyOf(top)} to damage`);
    stored.faults.push(fault);
  }

  observed(top: LayerRef): ObservedMerge | undefined {
    const stored = this.#merges.get(keyOf(top));
    return stored === undefined ? undefined : this.#observe(stored);
  }

  all(): ObservedMerge[] {
    return [...this.#merges.values()].map((stored) => this.#observe(stored));
  }

  #observe({ merge, sources, faults }: StoredMerge): ObservedMerge {
    const found = [...faults];
    if (merge.builder !== this.#builder)
      found.push({ code: 'builder-changed', message: `it was written by ${merge.builder}` });
    merge.chain.forEach((chainId, index) => {
      const layer = this.#layerOf({ chainId, format: merge.format });
      const lost: LayerFault | undefined = layer?.faults[0];
      if (layer === undefined || lost !== undefined)
        found.push({ code: 'source-missing', message: `its layer ${chainId} is gone or damaged` });
      else if (identityOf(layer) !== sources[index])
        found.push({ code: 'source-changed', message: `its layer ${chainId} was built again otherwise` });
    });
    return { ...mergedChainOf(merge), faults: found };
  }
}

function mergedChainOf(merge: MergedChain): MergedChain {
  const { chain, format, bytes, builder, rootHash, vhdFooter } = merge;
  return {
    chain: [...chain],
    format,
    bytes,
    builder,
    ...(rootHash === undefined ? {} : { rootHash }),
    ...(vhdFooter === undefined ? {} : { vhdFooter }),
  };
}

/** What a merged CIM binds itself to: the seal's root hash, or the content. */
function identityOf({ layer, tree }: StoredLayer): string {
  return layer.rootHash === undefined ? `unsealed ${rootHashOf(tree)}` : `sealed ${layer.rootHash}`;
}

function sealOf(sources: readonly string[]): string {
  return `sha256:${createHash('sha256')
    .update(`merged ${sources.join(' ')}`)
    .digest('hex')}`;
}
