/** What a mount request asks to see, and whether two views are the same. */

import { CimletError } from '../errors.ts';
import type { ChainId, MountedView, MountRequest } from './host.ts';

/** Throws `invalid-manifest` for a chain without layers that isn't a snapshot's. */
export function viewOf(request: MountRequest): MountedView {
  const { volumeGuid, path, format, view, access, snapshot, utilityVM } = request;
  const chainId = request.chain.at(-1);
  if (chainId === undefined && snapshot === undefined)
    throw new CimletError('invalid-manifest', `mount ${path}: the chain has no layers`);
  const top = chainId ?? ('' as ChainId);
  return {
    volumeGuid,
    path,
    chainId: top,
    format,
    view,
    access,
    ...(snapshot === undefined ? {} : { snapshot }),
    ...(utilityVM === undefined ? {} : { utilityVM }),
  };
}

export function isSameView(a: MountedView, b: MountedView): boolean {
  return (
    a.path === b.path &&
    a.chainId === b.chainId &&
    a.format === b.format &&
    a.view === b.view &&
    a.access === b.access &&
    a.snapshot === b.snapshot &&
    a.utilityVM === b.utilityVM
  );
}
