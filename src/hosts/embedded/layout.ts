/**
 * Where the embedded host keeps things under its root:
 *
 *   cim-layers/<id>.cim, region_<guid>_<i>, objectid_<guid>_<i>   the layers' bytes; `tmp-` names until published
 *   snapshots/<id>/layer.json                                     what makes a layer committed; `tmp-<id>`, `rm-<id>`
 *   views/<id>.erofs                                              cache: EROFS image of the chain whose top is <id>
 *   mounts/<volume guid>.json                                     written before a mount is made, removed after it is gone
 *   extracted/<volume guid>/                                      an extracted view's tree
 *
 * <id> is the hexadecimal part of the chain ID.
 */

import { join } from 'node:path';
import { CimletError } from '../../errors.ts';
import type { ChainId, VolumeGuid } from '../host.ts';
import { hexOf, layerRegionGuid } from '../identity.ts';

export interface Layout {
  root: string;
  cimLayers: string;
  snapshots: string;
  views: string;
  mounts: string;
  extracted: string;
}

export function layoutOf(root: string): Layout {
  return {
    root,
    cimLayers: join(root, 'cim-layers'),
    snapshots: join(root, 'snapshots'),
    views: join(root, 'views'),
    mounts: join(root, 'mounts'),
    extracted: join(root, 'extracted'),
  };
}

/** The layer's name in file names. Throws for what isn't a digest, so that no path can be smuggled in. */
export function layerName(chainId: ChainId): string {
  if (!/^sha(256:[0-9a-f]{64}|512:[0-9a-f]{128})$/.test(chainId))
    throw new CimletError('invalid-manifest', `${JSON.stringify(chainId)} is not a chain ID`);
  return hexOf(chainId);
}

export function cimPath(layout: Layout, chainId: ChainId): string {
  return join(layout.cimLayers, `${layerName(chainId)}.cim`);
}

export function snapshotPath(layout: Layout, chainId: ChainId, prefix: '' | 'tmp-' | 'rm-' = ''): string {
  return join(layout.snapshots, prefix + layerName(chainId));
}

export function viewPath(layout: Layout, chainId: ChainId): string {
  return join(layout.views, `${layerName(chainId)}.erofs`);
}

export function mountRecordPath(layout: Layout, volumeGuid: VolumeGuid): string {
  return join(layout.mounts, `${guidName(volumeGuid)}.json`);
}

export function extractedPath(layout: Layout, volumeGuid: VolumeGuid, prefix: '' | 'tmp-' = ''): string {
  return join(layout.extracted, prefix + guidName(volumeGuid));
}

/** Whether a file in cim-layers belongs to the layer, under its final or its temporary name. */
export function isLayerFile(fileName: string, chainId: ChainId): boolean {
  const name = fileName.replace(/^tmp-/, '');
  const guid = layerRegionGuid(chainId);
  return (
    name === `${layerName(chainId)}.cim` ||
    name.startsWith(`region_${guid}_`) ||
    name.startsWith(`objectid_${guid}_`)
  );
}

/** Whether a file name in cim-layers is one this host could have made. */
export function isCimFileName(fileName: string): boolean {
  return /^(tmp-)?([0-9a-f]{64}([0-9a-f]{64})?\.cim|(region|objectid)_[0-9a-f-]{36}_\d+)$/.test(fileName);
}

function guidName(volumeGuid: VolumeGuid): string {
  if (!/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(volumeGuid))
    throw new CimletError('invalid-manifest', `${JSON.stringify(volumeGuid)} is not a volume GUID`);
  return volumeGuid;
}
