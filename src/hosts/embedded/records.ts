/** The two records the embedded host keeps: what a committed layer is, and what a mount is meant to be. */

import { open, readFile, rename, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { classify, isErrorCode } from '../../errors.ts';
import type { ChainId, CommittedLayer, LayerRef, MountRequest, VolumeGuid } from '../host.ts';
import { ensureDirectory, listDirectory, syncDirectory } from './directories.ts';
import { type Layout, mountRecordPath, snapshotPath } from './layout.ts';

export interface LayerRecord {
  formatVersion: 1;
  layer: CommittedLayer;
  /** The layer's own files in cim-layers, under their final names. */
  cimFiles: { name: string; size: number }[];
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
  /** A layer was built anew under the view: the kernel still reads the files that were replaced. */
  stale?: boolean | undefined;
}

export async function readLayerRecord(
  layout: Layout,
  { chainId }: Pick<LayerRef, 'chainId'>,
  prefix: '' | 'tmp-' = '',
): Promise<LayerRecord | undefined> {
  return readRecord<LayerRecord>(
    join(snapshotPath(layout, chainId, prefix), 'layer.json'),
    (record) => record.layer?.chainId === chainId && Array.isArray(record.cimFiles),
  );
}

/** Every committed layer's record. Folders without a readable record are no layers. */
export async function readLayerRecords(layout: Layout): Promise<LayerRecord[]> {
  const records: LayerRecord[] = [];
  for (const name of await listDirectory(layout.snapshots)) {
    if (!/^[0-9a-f]+$/.test(name)) continue;
    const chainId = `sha${name.length === 64 ? 256 : 512}:${name}` as ChainId;
    if (name.length !== 64 && name.length !== 128) continue;
    const record = await readLayerRecord(layout, { chainId });
    if (record !== undefined) records.push(record);
  }
  return records;
}

export async function writeUnpackedRecord(layout: Layout, record: LayerRecord): Promise<void> {
  const directory = snapshotPath(layout, record.layer.chainId, 'tmp-');
  await ensureDirectory(directory);
  await writeRecord(join(directory, 'layer.json'), record);
  await syncDirectory(layout.snapshots);
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

export async function writeMountRecord(layout: Layout, record: MountRecord): Promise<void> {
  await ensureDirectory(layout.mounts);
  await writeRecord(mountRecordPath(layout, record.request.volumeGuid), record);
}

export async function removeMountRecord(layout: Layout, volumeGuid: VolumeGuid): Promise<void> {
  await rm(mountRecordPath(layout, volumeGuid), { force: true });
  await syncDirectory(layout.mounts);
}

/** Undefined when it isn't there or isn't what it should be: a torn record is the same as none. */
async function readRecord<T extends { formatVersion: 1 }>(
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

async function writeRecord(file: string, record: LayerRecord | MountRecord): Promise<void> {
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
