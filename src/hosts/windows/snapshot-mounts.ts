/** How others would mount a snapshot: in the words of containerd's snapshotters, paths of parents topmost first. */

import { join } from 'node:path';
import { CimletError } from '../../errors.ts';
import { requireLayers } from '../chain-layers.ts';
import type { SnapshotMount, SnapshotRequest } from '../host.ts';
import { snapshotGuid } from '../identity.ts';
import { layerFolder, snapshotPath } from '../layout.ts';
import { sourcePath } from './cim-paths.ts';
import { scratchFolder } from './snapshot-scratch.ts';
import {
  layerImage,
  mergedImage,
  type Store,
  soundLayer,
  soundMerge,
  type WindowsLayerRecord,
} from './store.ts';
import { topmostFirst } from './wcifs-paths.ts';

export async function snapshotMounts(store: Store, request: SnapshotRequest): Promise<SnapshotMount[]> {
  const { key, kind, format } = request;
  const operation = `mounts of snapshot ${key}`;
  const layers = (await requireLayers(request, operation, (ref) => soundLayer(store, ref))).reverse();
  const source = await scratchFolder(store.layout, request);
  const access = kind === 'view' ? 'ro' : 'rw';
  const folders =
    format === 'WCIFS'
      ? topmostFirst(store.layout, request.chain)
      : layers.map(({ layer }) => snapshotPath(store.layout, layerFolder(layer)));
  const parents = layers.length === 0 ? [] : [`parentLayerPaths=${JSON.stringify(folders)}`];
  if (format === 'LCOW') return [lcowMount(source, access, kind, folders)];
  if (format === 'WCIFS' || layers.length === 0)
    return [{ type: 'windows-layer', source, options: [access, ...parents] }];
  if (format === 'ForkedCIM') {
    // Only who unpacks a layer uses `cimpath`; containerd names one always.
    const own = join(store.layout.cimLayers, `${snapshotGuid(key)}.cim`);
    const options = [access, `cimpath=${own}`, ...parents, `parentCimPaths=${imagePaths(store, layers)}`];
    return [{ type: 'CimFS', source, options }];
  }
  const options = [
    `parentCimPaths=${imagePaths(store, layers)}`,
    'blockCIMType=file',
    ...(layers.every(({ layer }) => layer.rootHash !== undefined) ? ['enable_layer_integrity'] : []),
    ...(layers.every(({ layer }) => layer.vhdFooter === true) ? ['append_vhd_footer'] : []),
    ...(layers.length > 1 ? [`mergedCIMPath=${await mergedPath(store, request, operation)}`] : []),
  ];
  return [{ type: 'BlockCIM', source, options }];
}

/** A view of Linux layers needs no scratch: the topmost is what is mounted. */
function lcowMount(
  source: string,
  access: string,
  kind: SnapshotRequest['kind'],
  folders: readonly string[],
): SnapshotMount {
  const [top, ...below] = folders;
  const isView = kind === 'view' && top !== undefined;
  const parents = JSON.stringify(isView ? below : folders);
  return {
    type: 'lcow-layer',
    source: isView ? top : source,
    options: [access, `parentLayerPaths=${parents}`],
  };
}

function imagePaths(store: Store, layers: readonly WindowsLayerRecord[]): string {
  return JSON.stringify(layers.map((layer) => sourcePath(layerImage(store, layer))));
}

async function mergedPath(store: Store, { chain }: SnapshotRequest, operation: string): Promise<string> {
  const merge = await soundMerge(store, chain);
  const top = merge?.merge.chain.at(-1);
  if (top === undefined)
    throw new CimletError(
      'failed-precondition',
      `${operation}: the chain is not merged, or its merged CIM does not fit its layers any more`,
      { hint: 'merge the chain first' },
    );
  return sourcePath(mergedImage(store, top));
}
