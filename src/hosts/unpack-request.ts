/** What no host unpacks, and whether what is there is all that is asked for. */

import { CimletError } from '../errors.ts';
import type { CommittedLayer, MergedChain, MergeRequest, UnpackRequest } from './host.ts';

/** Throws `invalid-manifest` for what can't be unpacked. */
export function checkUnpackRequest({
  chainId,
  format,
  seal,
  vhdFooter,
}: Pick<UnpackRequest, 'chainId' | 'format' | 'seal' | 'vhdFooter'>): void {
  if (format === 'ForkedCIM' && (seal === true || vhdFooter === true))
    throw new CimletError(
      'invalid-manifest',
      `unpack layer ${chainId}: a ForkedCIM has neither seal nor VHD footer`,
      { hint: 'use BlockCIM' },
    );
}

/** Whether a layer or a merged CIM has the seal and the VHD footer that are asked for. More than that is fine. */
export function suffices(
  { rootHash, vhdFooter }: Pick<CommittedLayer | MergedChain, 'rootHash' | 'vhdFooter'>,
  asked: Pick<UnpackRequest | MergeRequest, 'seal' | 'vhdFooter'>,
): boolean {
  return (asked.seal !== true || rootHash !== undefined) && (asked.vhdFooter !== true || vhdFooter === true);
}
