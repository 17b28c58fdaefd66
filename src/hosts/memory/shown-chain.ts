/** What the in-memory host shows of a chain: its topmost layer, or the merged CIM of several block layers. */

import { CimletError } from '../../errors.ts';
import { checkRootHash } from '../chain-layers.ts';
import type { MountedView, MountRequest } from '../host.ts';
import { viewOf } from '../mounted-view.ts';
import type { LayerStore } from './layer-store.ts';
import type { MergeStore } from './merge-store.ts';

/** Throws `failed-precondition` unless all of the chain is there and sound, `corrupt` for another root hash than expected. */
export function viewOfChain(layers: LayerStore, merges: MergeStore, request: MountRequest): MountedView {
  const { chain, format, expectedRootHash: expected } = request;
  const operation = `mount ${request.path}`;
  const refuse = (message: string) => new CimletError('failed-precondition', `${operation}: ${message}`);
  for (const [index, chainId] of chain.entries()) {
    const stored = layers.sound({ chainId, format });
    if (stored === undefined) throw refuse(`layer ${chainId} is not committed`);
    if (format === 'BlockCIM' && stored.layer.parent !== chain[index - 1])
      throw refuse(`layer ${chainId} was not built on what the chain has below it`);
  }
  const view = viewOf(request);
  const isMerged = format === 'BlockCIM' && chain.length > 1;
  const merge = isMerged ? merges.observed(view) : undefined;
  if (isMerged && merge === undefined) throw refuse('the chain is not merged');
  const [fault] = merge?.faults ?? [];
  if (fault !== undefined) throw refuse(`the chain is not merged as it is: ${fault.message}`);
  const rootHash = isMerged ? merge?.rootHash : layers.get(view)?.layer.rootHash;
  checkRootHash(rootHash, expected, operation);
  return rootHash === undefined ? view : { ...view, rootHash };
}
