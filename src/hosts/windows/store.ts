/** What is recorded of layers and merged CIMs under a root, and what is wrong with them. Changes nothing. */

import { join } from 'node:path';
import { fileSize } from '../../cim/image.ts';
import type { CimImagePath } from '../../native/windows/cimfs.ts';
import type { ChainId, LayerFault, LayerRef, MergeFault } from '../host.ts';
import { containerPath, type Layout, layerFolder, mergedPath, mergeFolder, snapshotPath } from '../layout.ts';
import {
  type LayerRecord,
  type MergeRecord,
  readLayerRecord,
  readMergeRecord,
  type StoredFile,
  sourceIdentity,
} from '../records.ts';
import { builderOf } from './builders.ts';
import { forkedImage, LAYER_IMAGE, MERGED_IMAGE } from './cim-paths.ts';
import { wcifsFaults } from './wcifs-paths.ts';

export interface Store {
  layout: Layout;
  /** Of Windows. */
  build: number;
}

/**
 * `content` is the GUID in the names of a forked layer's region files, which Windows chooses: images forked from it hold on
 * to those very files. A block layer's is its chain ID, since the same layer gives the same bytes.
 */
export interface WindowsLayerRecord extends LayerRecord {
  content: string;
  /** `content` of the layer it was forked from. */
  forkedFrom?: string | undefined;
}

export async function readLayer(store: Store, ref: LayerRef): Promise<WindowsLayerRecord | undefined> {
  const record = await readLayerRecord(store.layout, ref);
  return record && asWindows(record);
}

/** A layer that another host wrote into this root has the fault that its builder is another. */
export function asWindows(record: LayerRecord): WindowsLayerRecord {
  return { ...record, content: record.content ?? 'unknown' };
}

/** Faults of a layer's own files, and of what it builds on. */
export async function layerFaults(store: Store, record: WindowsLayerRecord): Promise<LayerFault[]> {
  const { layer, cimFiles, forkedFrom } = record;
  const faults: LayerFault[] = [];
  if (layer.parent !== undefined) {
    const parent = await readLayer(store, { ...layer, chainId: layer.parent });
    if (parent === undefined)
      faults.push({ code: 'parent-missing', message: `its parent ${layer.parent} is not there` });
    if (forkedFrom !== undefined && parent?.content !== forkedFrom)
      faults.push({
        code: 'parent-rebuilt',
        message: `it was forked from files of its parent ${layer.parent} that are gone, or were built anew since`,
      });
  }
  return [
    ...faults,
    ...builderFaults(layer.builder, builderOf(layer.format, store.build)),
    ...fileFaults(filesFolder(store.layout, layer), cimFiles),
    ...(layer.format === 'WCIFS' ? wcifsFaults(store.layout, layer.chainId) : []),
  ];
}

/** The layer's record, when it is committed and has no faults. */
export async function soundLayer(store: Store, ref: LayerRef): Promise<WindowsLayerRecord | undefined> {
  const record = await readLayer(store, ref);
  return record !== undefined && (await layerFaults(store, record)).length === 0 ? record : undefined;
}

export async function mergeFaults(
  store: Store,
  { merge: { chain, format, builder }, cimFiles, sources }: MergeRecord,
): Promise<MergeFault[]> {
  const top = chain.at(-1) as ChainId;
  const faults: MergeFault[] = [
    ...builderFaults(builder, builderOf('merge', store.build)),
    ...fileFaults(snapshotPath(store.layout, mergeFolder(top)), cimFiles),
  ];
  for (const [index, chainId] of chain.entries()) {
    const record = await readLayer(store, { chainId, format });
    const isSound =
      record !== undefined &&
      (await layerFaults(store, record)).every(({ code }) => code === 'parent-missing');
    if (!isSound) faults.push({ code: 'source-missing', message: `its layer ${chainId} is gone or damaged` });
    else if (sourceIdentity(record) !== sources[index])
      faults.push({ code: 'source-changed', message: `its layer ${chainId} was built again otherwise` });
  }
  return faults;
}

/** The merged CIM of this very chain, when it is there and has no faults. */
export async function soundMerge(store: Store, chain: readonly ChainId[]): Promise<MergeRecord | undefined> {
  const top = chain.at(-1);
  const record = top === undefined ? undefined : await readMergeRecord(store.layout, top);
  if (record === undefined || record.merge.chain.join() !== chain.join()) return undefined;
  return (await mergeFaults(store, record)).length === 0 ? record : undefined;
}

/** The image that a committed layer is. */
export function layerImage({ layout }: Store, { layer, cimFiles }: LayerRecord): CimImagePath {
  if (layer.format === 'BlockCIM')
    return { container: containerPath(layout, layer.chainId), name: LAYER_IMAGE };
  return forkedImage(join(layout.cimLayers, cimFiles[0]?.name ?? ''));
}

export function mergedImage({ layout }: Store, top: ChainId): CimImagePath {
  return { container: mergedPath(layout, top), name: MERGED_IMAGE };
}

function filesFolder(layout: Layout, ref: LayerRef): string {
  return ref.format === 'ForkedCIM' ? layout.cimLayers : snapshotPath(layout, layerFolder(ref));
}

function builderFaults(actual: string, wanted: string): { code: 'builder-changed'; message: string }[] {
  if (actual === wanted) return [];
  return [{ code: 'builder-changed', message: `it was written by ${actual}, this is ${wanted}` }];
}

interface FileFault {
  code: 'file-missing' | 'file-size';
  message: string;
  path: string;
}

function fileFaults(folder: string, files: readonly StoredFile[]): FileFault[] {
  return files.flatMap(({ name, size }): FileFault[] => {
    const path = join(folder, name);
    const actual = fileSize(path);
    if (actual === size) return [];
    return actual === undefined
      ? [{ code: 'file-missing', message: `${name} is gone`, path }]
      : [{ code: 'file-size', message: `${name} has ${actual} bytes instead of ${size}`, path }];
  });
}
