/** Names derived from what they name, so that a restarted agent finds what a dead one made. */

import { createHash } from 'node:crypto';
import { parse as parseUuid, v5 as uuidV5 } from 'uuid';
import type { ChainId, DiffId, VolumeGuid } from './host.ts';

/** Namespace of every UUIDv5 cimlet derives. */
const NAMESPACE = '3a1f3b57-5a3c-5f64-9c1e-1d6c4f0f7a11';

/**
 * Chain IDs of a stack of layers, base first (OCI image-spec, config.md, "Layer ChainID"): the first is its diff ID,
 * each further one sha256("<chain ID below> <diff ID>").
 */
export function chainIds(diffIds: readonly DiffId[]): ChainId[] {
  const result: ChainId[] = [];
  for (const diffId of diffIds) result.push(chainIdOn(result.at(-1), diffId));
  return result;
}

/** The chain ID of a layer on another, or on nothing. */
export function chainIdOn(parent: ChainId | undefined, diffId: DiffId): ChainId {
  if (parent === undefined) return diffId as string as ChainId;
  return `sha256:${createHash('sha256').update(`${parent} ${diffId}`).digest('hex')}` as ChainId;
}

/** What the layer that a snapshot becomes is called by until its content, and so its chain ID, is known. */
export function provisionalChainId(key: string): ChainId {
  return `sha256:${createHash('sha256').update(`cimlet snapshot ${key}`).digest('hex')}` as ChainId;
}

/** What a snapshot's folder is called: a key may hold anything. */
export function snapshotGuid(key: string): string {
  return uuidV5(`snapshot/${key}`, NAMESPACE);
}

/** What a Mount resource is known by to the host; on Linux its volume's GUID as well. */
export function mountVolumeGuid(mountName: string): VolumeGuid {
  return uuidV5(`mount/${mountName}`, NAMESPACE) as VolumeGuid;
}

/** The GUID of the volume that shows a mount of a root: a machine has one set of volumes for all roots. */
export function shownVolumeGuid(root: string, mount: VolumeGuid): VolumeGuid {
  return uuidV5(`shown/${root}/${mount}`, NAMESPACE) as VolumeGuid;
}

/** The GUID in a forked CIM's region file names. */
export function layerRegionGuid(chainId: ChainId): string {
  return uuidV5(`forked-cim/${chainId}`, NAMESPACE);
}

/** The GUID of a block CIM's regions. */
export function blockRegionGuid(chainId: ChainId): string {
  return uuidV5(`block-cim/${chainId}`, NAMESPACE);
}

/** The GUID of the regions of the merged CIM on a layer. */
export function mergedRegionGuid(top: ChainId): string {
  return uuidV5(`merged-cim/${top}`, NAMESPACE);
}

/** The UUID, 16 bytes, of the view image that `builder` makes of a chain of layers, named by its top. */
export function viewImageUuid(chainId: ChainId, builder: string): Uint8Array {
  return parseUuid(uuidV5(`view/${builder}/${chainId}`, NAMESPACE));
}

/** A digest's hexadecimal part, as used in file names. */
export function hexOf(digest: string): string {
  return digest.slice(digest.indexOf(':') + 1);
}

/** The GUID of the volume that shows the layers below one while that is unpacked into a snapshot folder of a root. */
export function lowerVolumeGuid(root: string, folder: string): VolumeGuid {
  return uuidV5(`lower/${root}/${folder}`, NAMESPACE) as VolumeGuid;
}

/** The GUID of the volume that shows the chain below a snapshot while what was written to that is looked at. */
export function snapshotVolumeGuid(root: string, folder: string): VolumeGuid {
  return uuidV5(`snapshot/${root}/${folder}`, NAMESPACE) as VolumeGuid;
}

/** The GUIDs of the volumes that show a layer with those below it, and those below it, in an export that has this folder. */
export function exportVolumeGuids(root: string, folder: string): readonly [VolumeGuid, VolumeGuid] {
  const guidOf = (what: string) => uuidV5(`export-${what}/${root}/${folder}`, NAMESPACE) as VolumeGuid;
  return [guidOf('upper'), guidOf('lower')];
}

/**
 * What stands for the root hashes of a chain of disks, base first: the only one, else the sha256 of all of them. Undefined when one has none.
 */
export function chainRootHash(rootHashes: readonly (string | undefined)[]): string | undefined {
  const [first, ...others] = rootHashes;
  if (others.length === 0) return first;
  const hash = createHash('sha256');
  for (const each of rootHashes) {
    if (each === undefined) return undefined;
    hash.update(Buffer.from(hexOf(each), 'hex'));
  }
  return `sha256:${hash.digest('hex')}`;
}
