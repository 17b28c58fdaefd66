/** What hosts record of what they keep: what a committed layer is, and what a merged CIM is. */

import { join, sep } from 'node:path';
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
import { type Stamp, stampOf, Turns } from './quick-look.ts';
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

/** Every committed layer's record; the very same list when none has changed. Folders without a readable record are no layers. */
export async function readLayerRecords(layout: Layout): Promise<readonly LayerRecord[]> {
  return readFolders(layout, 'layer.json', layersRead, ({ chainId, holds }) =>
    holds === 'merge' ? undefined : () => readLayerRecord(layout, { chainId, format: holds }),
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

export async function readMergeRecords(layout: Layout): Promise<readonly MergeRecord[]> {
  return readFolders(layout, 'merge.json', mergesRead, ({ chainId, holds }) =>
    holds === 'merge' ? () => readMergeRecord(layout, chainId) : undefined,
  );
}

interface KnownRecord<T> {
  folder: string;
  stamp: Stamp;
  record: T;
}

interface Reading<T> {
  byFolder: ReadonlyMap<string, KnownRecord<T>>;
  inOrder: readonly KnownRecord<T>[];
  records: readonly T[];
}

/** What was read last: of thousands, only those whose files are other ones now are read again. */
type ReadBefore<T> = WeakMap<Layout, Reading<T>>;
const layersRead: ReadBefore<LayerRecord> = new WeakMap();
const mergesRead: ReadBefore<MergeRecord> = new WeakMap();

/** `readerOf`: undefined for a folder that holds something else. */
async function readFolders<T>(
  layout: Layout,
  file: string,
  readBefore: ReadBefore<T>,
  readerOf: (folder: FolderName) => (() => Promise<T | undefined>) | undefined,
): Promise<readonly T[]> {
  const before = readBefore.get(layout);
  const found: KnownRecord<T>[] = [];
  const turns = new Turns();
  for (const name of await listDirectory(layout.snapshots)) {
    const folder = parseFolderName(name);
    const read = folder?.prefix === '' ? readerOf(folder) : undefined;
    if (read === undefined) continue;
    if (turns.isOver) await turns.giveWay();
    const known = before?.byFolder.get(name);
    // Taken before it is read: what is written meanwhile has another.
    const stamp = stampOf(`${layout.snapshots}${sep}${name}${sep}${file}`, known?.stamp);
    if (stamp === undefined) continue;
    if (known?.stamp === stamp) found.push(known);
    else {
      const record = await read();
      if (record !== undefined) found.push({ folder: name, stamp, record });
    }
  }
  const isAsBefore = (each: KnownRecord<T>, index: number) => each === before?.inOrder[index];
  if (before !== undefined && found.length === before.inOrder.length && found.every(isAsBefore))
    return before.records;
  const byFolder = new Map(found.map((each) => [each.folder, each]));
  const reading = { byFolder, inOrder: found, records: found.map(({ record }) => record) };
  readBefore.set(layout, reading);
  return reading.records;
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
