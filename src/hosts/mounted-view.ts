/** What a mount request asks to see, and whether two views are the same. */

import { CimletError } from '../errors.ts';
import type { MountedView, MountRequest } from './host.ts';

/** Throws `invalid-manifest` for a chain without layers. */
export function viewOf(request: MountRequest): MountedView {
  const { volumeGuid, path, format, view, access, utilityVM } = request;
  const chainId = request.chain.at(-1);
  if (chainId === undefined)
    throw new CimletError('invalid-manifest', `mount ${path}: the chain has no layers`);
  const attached = utilityVM === undefined ? {} : { utilityVM };
  return { volumeGuid, path, chainId, format, view, access, ...attached };
}

export function isSameView(a: MountedView, b: MountedView): boolean {
  return (
    a.path === b.path &&
    a.chainId === b.chainId &&
    a.format === b.format &&
    a.view === b.view &&
    a.access === b.access &&
    a.utilityVM === b.utilityVM
  );
}
