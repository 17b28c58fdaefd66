/**
 * Where hosts keep things under their root:
 *
 *   cim-layers/<id>.cim, region_<guid>_<i>, objectid_<guid>_<i>   the bytes of forked layers; `tmp-` names until published
 *   snapshots/<id>/layer.json                                     what makes a forked layer committed
 *   snapshots/<id>.block/layer.json, layer.bcim                   a block layer
 *   snapshots/<id>.merged/merge.json, merged.bcim                 the merged CIM of the chain of block layers whose top is <id>
 *   snapshots/…/integrity_checksum, merged_integrity_checksum     beside a sealed container: its root hash
 *   snapshots/…/check.json                                        beside a sealed container: what verifying it found last
 *   views/<id>.erofs, <id>.block.erofs                            cache: EROFS image of the chain whose top is <id>
 *   mounts/<volume guid>.json                                     written before a mount is made, removed after it is gone
 *   extracted/<volume guid>/                                      an extracted view's tree
 *   exports/<snapshot's folder>.json                              while a layer is exported: where, outside the root, it is written
 *
 * <id> is the hexadecimal part of the chain ID. Folders of snapshots are `tmp-…` until they are whole, and `rm-…` once they are doomed.
 */

import { join } from 'node:path';
import { CimletError } from '../errors.ts';
import type { ChainId, LayerFormat, LayerRef, VolumeGuid } from './host.ts';
import { hexOf, layerRegionGuid } from './identity.ts';

export interface Layout {
  root: string;
  cimLayers: string;
  snapshots: string;
  views: string;
  mounts: string;
  extracted: string;
  exports: string;
}

export type FolderPrefix = '' | 'tmp-' | 'rm-';

/** The folder of a snapshot, taken apart. */
export interface FolderName {
  prefix: FolderPrefix;
  chainId: ChainId;
  holds: LayerFormat | 'merge';
}

/** A block layer's container in its folder, and a merged CIM's in its. Each holds one CIM, of the same name but `.cim`. */
export const LAYER_FILE = 'layer.bcim';
export const MERGED_FILE = 'merged.bcim';

const SUFFIXES: Record<FolderName['holds'], string> = {
  ForkedCIM: '',
  BlockCIM: '.block',
  WCIFS: '.wcifs',
  LCOW: '.lcow',
  merge: '.merged',
};
const HOLDINGS = new Map(
  Object.entries(SUFFIXES).map(([holds, suffix]) => [suffix, holds as FolderName['holds']]),
);
const CHAIN_HEX = '[0-9a-f]{64}(?:[0-9a-f]{64})?';
/** What couldn't be deleted when it was removed again has a number in the end. */
const FOLDER_NAME = new RegExp(`^(tmp-|rm-)?(${CHAIN_HEX})(\\.[a-z]+)?(?:(?<=^rm-.*)~\\d+)?$`);
const CIM_FILE_NAME = new RegExp(`^(tmp-)?(${CHAIN_HEX}\\.cim|(region|objectid)_[0-9a-f-]{36}_\\d+)$`);
const VIEW_NAME = new RegExp(`^(tmp-)?(${CHAIN_HEX}(?:\\.[a-z]+)?)\\.erofs$`);

export function layoutOf(root: string): Layout {
  return {
    root,
    cimLayers: join(root, 'cim-layers'),
    snapshots: join(root, 'snapshots'),
    views: join(root, 'views'),
    mounts: join(root, 'mounts'),
    extracted: join(root, 'extracted'),
    exports: join(root, 'exports'),
  };
}

/** A forked layer's name in file names. Throws for what isn't a digest, so that no path can be smuggled in. */
export function layerName(chainId: ChainId): string {
  if (!/^sha(256:[0-9a-f]{64}|512:[0-9a-f]{128})$/.test(chainId))
    throw new CimletError('invalid-manifest', `${JSON.stringify(chainId)} is not a chain ID`);
  return hexOf(chainId);
}

/** The name of a layer's folder, which also names the layer among all formats. */
export function layerFolder({ chainId, format }: LayerRef): string {
  return layerName(chainId) + SUFFIXES[format];
}

/** The name of the folder that holds the merged CIM on a block layer. */
export function mergeFolder(top: ChainId): string {
  return layerName(top) + SUFFIXES.merge;
}

/** Undefined for a name that this host doesn't give. */
export function parseFolderName(name: string): FolderName | undefined {
  const [, prefix = '', hex = '', suffix = ''] = FOLDER_NAME.exec(name) ?? [];
  const holds = HOLDINGS.get(suffix);
  if (hex === '' || holds === undefined) return undefined;
  const chainId = `sha${hex.length === 64 ? 256 : 512}:${hex}` as ChainId;
  return { prefix: prefix as FolderPrefix, chainId, holds };
}

export function cimPath(layout: Layout, chainId: ChainId): string {
  return join(layout.cimLayers, `${layerName(chainId)}.cim`);
}

/** A committed block layer's container. */
export function containerPath(layout: Layout, chainId: ChainId): string {
  return join(snapshotPath(layout, layerFolder({ chainId, format: 'BlockCIM' })), LAYER_FILE);
}

/** A merged CIM's container. */
export function mergedPath(layout: Layout, top: ChainId): string {
  return join(snapshotPath(layout, mergeFolder(top)), MERGED_FILE);
}

export function snapshotPath(layout: Layout, folder: string, prefix: FolderPrefix = ''): string {
  return join(layout.snapshots, prefix + folder);
}

export function viewPath(layout: Layout, top: LayerRef): string {
  return join(layout.views, `${layerFolder(top)}.erofs`);
}

/** The layer folder's name in a view image's name; undefined for a file this host doesn't make. */
export function parseViewName(name: string): { isTemporary: boolean; folder: string } | undefined {
  const [, prefix, folder] = VIEW_NAME.exec(name) ?? [];
  return folder === undefined ? undefined : { isTemporary: prefix !== undefined, folder };
}

export function mountRecordPath(layout: Layout, volumeGuid: VolumeGuid): string {
  return join(layout.mounts, `${guidName(volumeGuid)}.json`);
}

export function extractedPath(layout: Layout, volumeGuid: VolumeGuid, prefix: FolderPrefix = ''): string {
  return join(layout.extracted, prefix + guidName(volumeGuid));
}

/** Whether a file in cim-layers belongs to the forked layer, under its final or its temporary name. */
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
  return CIM_FILE_NAME.test(fileName) || isSpoolName(fileName);
}

/** Whether it is a spool's name (src/layers/spool.ts), which it has for an instant. */
export function isSpoolName(fileName: string): boolean {
  return /^tmp-spool-[0-9a-f-]{36}$/.test(fileName);
}

function guidName(volumeGuid: VolumeGuid): string {
  if (!/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(volumeGuid))
    throw new CimletError('invalid-manifest', `${JSON.stringify(volumeGuid)} is not a volume GUID`);
  return volumeGuid;
}
