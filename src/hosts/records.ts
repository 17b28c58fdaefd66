/** What hosts record of what they keep: what a committed layer is, and what a merged CIM is. */

import { join } from 'node:path';
import { ensureDirectory, listDirectory, syncDirectory } from './directories.ts';
import type { ChainId, CommittedLayer, LayerRef, MergedChain } from './host.ts';
import {
  type FolderName,
  type FolderPrefix,
  type Layout,
  layerFolder,
  mergeFolder,
  parseFolderName,
  snapshotPath,
} from './layout.ts';
import { stampOf, Turns } from './quick-look.ts';
import { readRecord, writeRecord } from './record-file.ts';

export interface StoredFile {
  name: string;
  size: number;
}

export interface LayerRecord {
  formatVersion: 1;
  layer: CommittedLayer;
  /** The layer's own files under their final names: a forked layer's in cim-layers, a block layer's in its folder. */
  cimFiles: StoredFile[];
  /** SHA-256 of a block layer's content, in hexadecimal: what a merged CIM knows it by when it isn't sealed. */
  content?: string | undefined;
}

export interface MergeRecord {
  formatVersion: 1;
  merge: MergedChain;
  cimFiles: StoredFile[];
  /** What the layers were, base first; see `sourceIdentity`. */
  sources: string[];
}

export async function readLayerRecord(
  layout: Layout,
  ref: LayerRef,
  prefix: FolderPrefix = '',
): Promise<LayerRecord | undefined> {
  return readRecord<LayerRecord>(
    join(snapshotPath(layout, layerFolder(ref), prefix), 'layer.json'),
    ({ layer, cimFiles }) =>
      layer?.chainId === ref.chainId && layer.format === ref.format && Array.isArray(cimFiles),
  );
}

/** Every committed layer's record. Folders without a readable record are no layers. */
export async function readLayerRecords(layout: Layout): Promise<LayerRecord[]> {
  return readFolders(layout, 'layer.json', layersRead, ({ chainId, holds }) =>
    holds === 'merge' ? undefined : readLayerRecord(layout, { chainId, format: holds }),
  );
}

export async function readMergeRecord(
  layout: Layout,
  top: ChainId,
  prefix: FolderPrefix = '',
): Promise<MergeRecord | undefined> {
  return readRecord<MergeRecord>(
    join(snapshotPath(layout, mergeFolder(top), prefix), 'merge.json'),
    ({ merge, cimFiles, sources }) =>
      Array.isArray(merge?.chain) &&
      merge.chain.at(-1) === top &&
      Array.isArray(cimFiles) &&
      Array.isArray(sources),
  );
}

export async function readMergeRecords(layout: Layout): Promise<MergeRecord[]> {
  return readFolders(layout, 'merge.json', mergesRead, ({ chainId, holds }) =>
    holds === 'merge' ? readMergeRecord(layout, chainId) : undefined,
  );
}

/** What was read last, by folder: of thousands, only those whose files are other ones now are read again. */
type ReadBefore<T> = WeakMap<Layout, ReadonlyMap<string, { stamp: string; record: T }>>;
const layersRead: ReadBefore<LayerRecord> = new WeakMap();
const mergesRead: ReadBefore<MergeRecord> = new WeakMap();

async function readFolders<T>(
  layout: Layout,
  file: string,
  readBefore: ReadBefore<T>,
  read: (folder: FolderName) => Promise<T | undefined> | undefined,
): Promise<T[]> {
  const before = readBefore.get(layout);
  const now = new Map<string, { stamp: string; record: T }>();
  const turns = new Turns();
  for (const name of await listDirectory(layout.snapshots)) {
    const folder = parseFolderName(name);
    if (folder?.prefix !== '') continue;
    await turns.take();
    // Taken before it is read: what is written meanwhile has another.
    const stamp = stampOf(join(layout.snapshots, name, file));
    if (stamp === undefined) continue;
    const known = before?.get(name);
    const record = known?.stamp === stamp ? known.record : await read(folder);
    if (record !== undefined) now.set(name, { stamp, record });
  }
  readBefore.set(layout, now);
  return [...now.values()].map(({ record }) => record);
}

/** What a merged CIM knows a block layer by: its seal's root hash, or what it holds. */
export function sourceIdentity({ layer, content }: LayerRecord): string {
  return layer.rootHash ?? `unsealed:${content}`;
}

/** Completes a folder that isn't in place yet. */
export async function writeLayerRecord(layout: Layout, record: LayerRecord): Promise<void> {
  await writeFolderRecord(layout, layerFolder(record.layer), 'layer.json', record);
}

/** Completes a folder that isn't in place yet. */
export async function writeMergeRecord(layout: Layout, top: ChainId, record: MergeRecord): Promise<void> {
  await writeFolderRecord(layout, mergeFolder(top), 'merge.json', record);
}

async function writeFolderRecord(
  layout: Layout,
  folder: string,
  name: string,
  record: LayerRecord | MergeRecord,
): Promise<void> {
  const directory = snapshotPath(layout, folder, 'tmp-');
  await ensureDirectory(directory);
  await writeRecord(join(directory, name), record);
  await syncDirectory(layout.snapshots);
}
