/** What no host merges, whatever layers it has. */

import { CimletError } from '../errors.ts';
import { type ChainId, MAX_MERGED_LAYERS, type MergeRequest } from './host.ts';

/** Throws `invalid-manifest` for what can't be merged; otherwise the topmost layer. */
export function checkMergeRequest({ chain, format }: MergeRequest): ChainId {
  const top = chain.at(-1);
  const refuse = (message: string) => new CimletError('invalid-manifest', `merge chain ${top}: ${message}`);
  if (top === undefined || chain.length < 2) throw refuse('it takes two layers or more');
  if (chain.length > MAX_MERGED_LAYERS)
    throw refuse(`it has ${chain.length} layers, and at most ${MAX_MERGED_LAYERS} can be merged`);
  if (format !== 'BlockCIM') throw refuse(`${format} layers are not merged`);
  return top;
}
