/** Root hashes of layers and merged CIMs as the host has them now, and the facts that repeat them. */

import type { CommittedLayer, HostState, LayerRef, MergedChain } from '../hosts/host.ts';
import { chainRootHash } from '../hosts/identity.ts';
import type { ChainFacts } from '../state/records.ts';
import type { State } from '../state/state.ts';
import { keyOfRecord } from './plan-removals.ts';
import { indexMerges, mergeId, snapshotId } from './situation.ts';

export class RootHashes {
  readonly #hashes = new Map<string, string | undefined>();

  /** Learns what the host shows. */
  update(observed: HostState): void {
    for (const layer of observed.layers) this.addLayer(layer);
    for (const [id, merge] of indexMerges(observed)) this.#hashes.set(id, merge.rootHash);
  }

  addLayer(layer: CommittedLayer): void {
    this.#hashes.set(snapshotId(layer), layer.rootHash);
  }

  addMerge(top: LayerRef, merge: MergedChain): void {
    this.#hashes.set(mergeId(top), merge.rootHash);
  }

  /** Of what a chain shows: its merged CIM, its only layer, or its disks. */
  of({ format, chainIds, merged }: ChainFacts): string | undefined {
    const chainId = chainIds.at(-1);
    if (chainId === undefined) return undefined;
    if (merged === true) return this.#hashes.get(mergeId({ chainId, format }));
    if (chainIds.length > 1 && format !== 'LCOW') return undefined;
    return chainRootHash(chainIds.map((each) => this.#hashes.get(snapshotId({ chainId: each, format }))));
  }

  /** Brings the facts of every chain up to date: other code, or a chain on the same base, may have sealed it anew. */
  record(state: State): void {
    const { resources } = state.records();
    state.transaction(() => {
      for (const record of resources) {
        const { chain } = record.facts;
        const rootHash = chain === undefined ? undefined : this.of(chain);
        if (chain === undefined || rootHash === undefined || rootHash === chain.rootHash) continue;
        state.recordFacts(keyOfRecord(record), { ...record.facts, chain: { ...chain, rootHash } });
      }
    });
  }
}
