/** The records the embedded host keeps: what a committed layer is, what a merged CIM is, and what a mount is meant to be. */

import { open, readFile, rename, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { classify, isErrorCode } from '../errors.ts';
import { ensureDirectory, listDirectory, syncDirectory } from './directories.ts';
import type {
  ChainId,
  CommittedLayer,
  LayerRef,
  MergedChain,
  MountedView,
  MountRequest,
  VolumeGuid,
} from './host.ts';
import { KeyedLock } from './keyed-lock.ts';
import {
  type FolderName,
  type FolderPrefix,
  type Layout,
  layerFolder,
  mergeFolder,
  mountRecordPath,
  parseFolderName,
  snapshotPath,
} from './layout.ts';
import { viewOf } from './mounted-view.ts';

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

export interface MountRecord {
  formatVersion: 1;
  request: MountRequest;
  /** The EROFS image mounted, or the tree the path links to. */
  source: string;
  /** Whether the kernel was given a loop device over `source`. */
  loop: boolean;
  /** Directories made for the mount, outermost first; removed with it when empty. */
  created: string[];
  /** Whether an extracted view's link stands where an empty directory was. */
  replacedDirectory: boolean;
  /** Root hash of what is shown, when that is sealed. */
  rootHash?: string | undefined;
  /** A layer was built anew under the view: the kernel still reads the files that were replaced. */
  stale?: boolean | undefined;
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
  return readFolders(layout, ({ chainId, holds }) =>
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
  return readFolders(layout, ({ chainId, holds }) =>
    holds === 'merge' ? readMergeRecord(layout, chainId) : undefined,
  );
}

async function readFolders<T>(
  layout: Layout,
  read: (folder: FolderName) => Promise<T | undefined> | undefined,
): Promise<T[]> {
  const records: T[] = [];
  for (const name of await listDirectory(layout.snapshots)) {
    const folder = parseFolderName(name);
    const record = folder?.prefix === '' ? await read(folder) : undefined;
    if (record !== undefined) records.push(record);
  }
  return records;
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

/** What a recorded mount shows. */
export function recordedView({ request, rootHash }: MountRecord): MountedView {
  return { ...viewOf(request), ...(rootHash === undefined ? {} : { rootHash }) };
}

export async function readMountRecord(
  layout: Layout,
  volumeGuid: VolumeGuid,
): Promise<MountRecord | undefined> {
  return readRecord<MountRecord>(
    mountRecordPath(layout, volumeGuid),
    (record) =>
      record.request?.volumeGuid === volumeGuid &&
      typeof record.request.path === 'string' &&
      Array.isArray(record.request.chain) &&
      record.request.chain.length > 0 &&
      Array.isArray(record.created),
  );
}

export async function readMountRecords(layout: Layout): Promise<MountRecord[]> {
  const records: MountRecord[] = [];
  for (const name of await listDirectory(layout.mounts)) {
    if (!/^[0-9a-f-]{36}\.json$/.test(name)) continue;
    const record = await readMountRecord(layout, basename(name, '.json') as VolumeGuid);
    if (record !== undefined) records.push(record);
  }
  return records;
}

/** A mount's record is also written by others: what goes hands its directories over to what stays. */
const writing = new KeyedLock();

export async function writeMountRecord(layout: Layout, record: MountRecord): Promise<void> {
  await ensureDirectory(layout.mounts);
  const path = mountRecordPath(layout, record.request.volumeGuid);
  await writing.run(path, () => writeRecord(path, record));
}

/** Changes a record as it is now, if it is still there; `change` returns undefined to leave it. */
export async function changeMountRecord(
  layout: Layout,
  volumeGuid: VolumeGuid,
  change: (record: MountRecord) => MountRecord | undefined,
): Promise<void> {
  const path = mountRecordPath(layout, volumeGuid);
  await writing.run(path, async () => {
    const record = await readMountRecord(layout, volumeGuid);
    const changed = record === undefined ? undefined : change(record);
    if (changed !== undefined) await writeRecord(path, changed);
  });
}

export async function removeMountRecord(layout: Layout, volumeGuid: VolumeGuid): Promise<void> {
  const path = mountRecordPath(layout, volumeGuid);
  await writing.run(path, () => rm(path, { force: true }));
  await syncDirectory(layout.mounts);
}

/** Undefined when it isn't there or isn't what it should be: a torn record is the same as none. */
export async function readRecord<T extends { formatVersion: 1 }>(
  file: string,
  isWhole: (record: Partial<T>) => boolean,
): Promise<T | undefined> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (error) {
    const classified = classify(error, `read ${file}`);
    if (isErrorCode(classified, 'not-found', 'failed-precondition')) return undefined;
    throw classified;
  }
  const record = parseJson(text) as Partial<T> | null | undefined;
  return typeof record === 'object' && record !== null && record.formatVersion === 1 && isWhole(record)
    ? (record as T)
    : undefined;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}

/** Durable when this returns. */
export async function writeRecord(file: string, record: object): Promise<void> {
  const temporary = join(dirname(file), `tmp-${basename(file)}`);
  try {
    const handle = await open(temporary, 'w');
    try {
      await handle.writeFile(`${JSON.stringify(record, undefined, 2)}\n`);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, file);
    await syncDirectory(dirname(file));
  } catch (error) {
    await rm(temporary, { force: true });
    throw classify(error, `write ${file}`);
  }
}
