/** What of a chain a utility VM is given. */

import { basename, join } from 'node:path';
import { CimletError } from '../../errors.ts';
import type { VmCompute } from '../../native/windows/vmcompute.ts';
import { checkRootHash, requireLayers, requireStack } from '../chain-layers.ts';
import type { MountRequest } from '../host.ts';
import { chainRootHash } from '../identity.ts';
import { layerFolder, snapshotPath } from '../layout.ts';
import { LAYER_DISK } from '../unpack-linux.ts';
import { requireChain } from './shown-chain.ts';
import { type Store, soundLayer, soundMerge, type WindowsLayerRecord } from './store.ts';
import type { VmLayers } from './vm-plan.ts';
import { wcifsPath } from './wcifs-paths.ts';

interface LayersForVm {
  layers: VmLayers;
  /** Of what is shown, when it is sealed. */
  rootHash: string | undefined;
}

/**
 * Throws `failed-precondition` unless all of the chain is there and sound, and a VM can have it; `corrupt` for another
 * root hash than expected.
 */
export async function requireVmLayers(
  store: Store,
  vmcompute: Pick<VmCompute, 'nameToGuid'>,
  request: MountRequest,
  operation: string,
): Promise<LayersForVm> {
  const { format, chain, expectedRootHash } = request;
  if (format === 'ForkedCIM')
    throw new CimletError('unsupported-host', `${operation}: Windows shows forked CIMs in no utility VM`, {
      hint: 'use BlockCIM',
    });
  const records = await requireLayers(request, operation, (ref) => soundLayer(store, ref));
  requireStack(records, operation);
  if (format === 'BlockCIM') {
    const merge = chain.length > 1 ? await soundMerge(store, chain) : undefined;
    requireFooters(
      [...records.map(({ layer }) => layer), ...(merge === undefined ? [] : [merge.merge])],
      operation,
    );
    const { image, sources, rootHash } = await requireChain(store, request, operation);
    return { layers: { kind: 'cims', cims: [image, ...sources] }, rootHash };
  }
  const rootHash = chainRootHash(records.map(({ layer }) => layer.rootHash));
  checkRootHash(rootHash, expectedRootHash, operation);
  const folders = records.map((record) => folderOf(store, record)).reverse();
  if (format === 'LCOW')
    return { layers: { kind: 'disks', files: folders.map((folder) => join(folder, LAYER_DISK)) }, rootHash };
  const named = folders.map(async (path) => ({ id: await vmcompute.nameToGuid(basename(path)), path }));
  return { layers: { kind: 'folders', folders: await Promise.all(named) }, rootHash };
}

function requireFooters(parts: readonly { vhdFooter?: boolean | undefined }[], operation: string): void {
  if (parts.every(({ vhdFooter }) => vhdFooter === true)) return;
  throw new CimletError(
    'failed-precondition',
    `${operation}: block CIMs are attached as disks, and not all of these end with a VHD footer`,
    { hint: 'set vhdFooter: true in the LayerChain' },
  );
}

function folderOf({ layout }: Store, { layer }: WindowsLayerRecord): string {
  return layer.format === 'WCIFS'
    ? wcifsPath(layout, layer.chainId)
    : snapshotPath(layout, layerFolder(layer));
}
