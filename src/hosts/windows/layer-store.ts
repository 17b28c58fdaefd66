/** Layers on disk: written by cimfs, committed by the rename of their folder, removed record first. */

import { join } from 'node:path';
import { CimletError, isErrorCode } from '../../errors.ts';
import { ensureDirectory, listDirectory, removeTree } from '../directories.ts';
import type { CommittedLayer, EffectContext, LayerRef, UnpackRequest } from '../host.ts';
import { lowerVolumeGuid } from '../identity.ts';
import { LAYER_FILE, layerFolder, layerName, parseFolderName } from '../layout.ts';
import { type LayerRecord, readLayerRecord, readLayerRecords, writeLayerRecord } from '../records.ts';
import { beginFolder, discardFolder, putInPlace, removeAside, setAside } from '../snapshot-folders.ts';
import { checkUnpackRequest, suffices } from '../unpack-request.ts';
import { afterFailure } from './acquire.ts';
import { builderOf } from './builders.ts';
import { isForkedFile, LAYER_IMAGE } from './cim-paths.ts';
import { runJob, type WrittenImage } from './jobs.ts';
import { writeLinuxLayer } from './linux-layers.ts';
import { withLowerVolume } from './lower-layers.ts';
import { type Store, soundLayer, type WindowsLayerRecord } from './store.ts';
import { isWcifsFolder } from './wcifs-paths.ts';
import { destroyScratch, isViewScratch } from './wcifs-scratch.ts';
import { deleteWcifsFolder, writeWcifsLayer } from './wcifs-store.ts';
import type { Workshop } from './workshop.ts';

export async function unpackLayer(
  workshop: Workshop,
  request: UnpackRequest,
  context: EffectContext,
): Promise<void> {
  checkUnpackRequest(request);
  const known = (await soundLayer(workshop, request))?.layer;
  if (known !== undefined && suffices(known, request)) return;
  await discardUnpacked(workshop, request);
  try {
    // One forked image at a time: what an image leaves behind when it fails can't be told from another's files.
    if (request.format === 'ForkedCIM')
      await workshop.locks.run('forked images', () => writeLayer(workshop, request, context));
    else await writeLayer(workshop, request, context);
  } catch (error) {
    throw await afterFailure(error, () => discardUnpacked(workshop, request));
  }
}

async function writeLayer(workshop: Workshop, request: UnpackRequest, context: EffectContext): Promise<void> {
  const { chainId, diffId, format, parents, vhdFooter } = request;
  const { layout } = workshop;
  await ensureDirectory(layout.cimLayers);
  const folder = await beginFolder(layout, layerFolder(request));
  const { written, parent } = await writeInto(workshop, request, folder, context);
  for (const warning of written.warnings) context.warn?.(warning);
  const layer: CommittedLayer = {
    chainId,
    format,
    diffId,
    parent: parents.at(-1),
    bytes: written.bytes,
    files: written.files,
    builder: builderOf(format, workshop.build),
    ...(written.rootHash === undefined ? {} : { rootHash: written.rootHash }),
    ...(vhdFooter === true || format === 'LCOW' ? { vhdFooter: true } : {}),
  };
  const isForked = format === 'ForkedCIM';
  const record: WindowsLayerRecord = {
    formatVersion: 1,
    layer,
    cimFiles: written.cimFiles,
    content: isForked ? regionGuidIn(written) : chainId,
    forkedFrom: isForked ? parent?.content : undefined,
  };
  await writeLayerRecord(layout, record);
}

/** `parent`: what an image was forked from. */
async function writeInto(
  workshop: Workshop,
  request: UnpackRequest,
  folder: string,
  context: EffectContext,
): Promise<{ written: WrittenImage; parent?: WindowsLayerRecord | undefined }> {
  switch (request.format) {
    case 'WCIFS':
      return { written: await writeWcifsLayer(workshop, request, folder, context) };
    case 'LCOW':
      return { written: await writeLinuxLayer(workshop, request, folder, context) };
    default:
      return writeCimLayer(workshop, request, folder, context);
  }
}

async function writeCimLayer(
  workshop: Workshop,
  request: UnpackRequest,
  folder: string,
  context: EffectContext,
): Promise<{ written: WrittenImage; parent: WindowsLayerRecord | undefined }> {
  const write = async (lower: string | undefined, parent: WindowsLayerRecord | undefined) => ({
    parent,
    written: await writeImage(workshop, request, { folder, lower, parent }, context),
  });
  const layer = await withLowerVolume(workshop, request, folder, context, write);
  await removeLowerImage(folder);
  return layer;
}

async function writeImage(
  workshop: Workshop,
  request: UnpackRequest,
  place: { folder: string; lower: string | undefined; parent: WindowsLayerRecord | undefined },
  context: EffectContext,
): Promise<WrittenImage> {
  const { blob, diffId, format, seal = false, vhdFooter = false } = request;
  const { layout } = workshop;
  const input = { blob, diffId, lower: place.lower, folder: place.folder };
  if (format === 'BlockCIM') {
    const image = { container: join(place.folder, LAYER_FILE), name: LAYER_IMAGE };
    return runJob({ kind: 'unpack-block', ...input, image, seal, vhdFooter }, context);
  }
  await removeUnlisted(workshop);
  const image = await freeImageName(workshop, request);
  const parent = place.parent?.cimFiles[0]?.name;
  return runJob({ kind: 'unpack-forked', ...input, directory: layout.cimLayers, image, parent }, context);
}

/** The folder's rename commits. A damaged layer's folder goes first, so that a crash between leaves no mixture. */
export async function commitLayer(
  workshop: Workshop,
  ref: LayerRef,
  context: EffectContext,
): Promise<CommittedLayer> {
  const { layout } = workshop;
  const unpacked = await readLayerRecord(layout, ref, 'tmp-');
  if (unpacked === undefined) {
    const committed = await soundLayer(workshop, ref);
    if (committed !== undefined) return committed.layer;
    throw new CimletError('failed-precondition', `commit layer ${ref.chainId}: it was not unpacked`);
  }
  context.progress?.({ phase: 'committing', done: 0, total: 0 });
  const old = await readLayerRecord(layout, ref);
  const folder = layerFolder(ref);
  await setAside(layout, folder);
  await putInPlace(layout, folder);
  const kept = new Set(unpacked.cimFiles.map(({ name }) => name));
  const gone = old?.cimFiles.filter(({ name }) => !kept.has(name)) ?? [];
  if (ref.format === 'ForkedCIM')
    await removeForked(
      workshop,
      gone.map(({ name }) => name),
      context,
    );
  await removeAside(layout, folder, context, removalOf(workshop, folder));
  return unpacked.layer;
}

export async function removeLayerFiles(
  workshop: Workshop,
  ref: LayerRef,
  context: EffectContext,
): Promise<void> {
  const { layout } = workshop;
  const folder = layerFolder(ref);
  const record = await readLayerRecord(layout, ref);
  await setAside(layout, folder);
  if (ref.format === 'ForkedCIM')
    await removeForked(workshop, record?.cimFiles.map(({ name }) => name) ?? [], context);
  await discardUnpacked(workshop, ref);
  await removeAside(layout, folder, context, removalOf(workshop, folder));
}

/**
 * Names of files in cim-layers that a layer consists of; unpacked ones count unless told. Those are looked for first: one
 * that is committed meanwhile is found twice rather than never.
 */
export async function listedFiles(
  { layout }: Store,
  { unpacked = true }: { unpacked?: boolean } = {},
): Promise<Set<string>> {
  const records: LayerRecord[] = [];
  for (const name of unpacked ? await listDirectory(layout.snapshots) : []) {
    const { prefix, holds, chainId } = parseFolderName(name) ?? {};
    if (prefix !== 'tmp-' || chainId === undefined || holds !== 'ForkedCIM') continue;
    const record = await readLayerRecord(layout, { chainId, format: holds }, prefix);
    if (record !== undefined) records.push(record);
  }
  records.push(...(await readLayerRecords(layout)));
  return new Set(records.flatMap(({ cimFiles }) => cimFiles.map(({ name }) => name)));
}

/** How a layer's folder, whatever its prefix, or a view's scratch is deleted. */
export function removalOf(
  { vmcompute }: Pick<Workshop, 'vmcompute'>,
  folder: string,
): (path: string) => Promise<void> {
  if (isWcifsFolder(folder)) return (path) => deleteWcifsFolder(vmcompute, path);
  return isViewScratch(folder) ? (path) => destroyScratch(vmcompute, path) : removeTree;
}

/** Takes away what was unpacked, and what a run that died while it unpacked has mounted. */
async function discardUnpacked(workshop: Workshop, ref: LayerRef): Promise<void> {
  const { layout } = workshop;
  const folder = layerFolder(ref);
  await workshop.volumes.dismount(lowerVolumeGuid(layout.root, folder));
  await discardFolder(layout, folder, removalOf(workshop, folder));
  if (ref.format === 'ForkedCIM') await workshop.locks.run('forked images', () => removeUnlisted(workshop));
}

/** The caller holds the lock of forked images, so that nothing that is being written is taken for left over. */
async function removeUnlisted(store: Store): Promise<void> {
  const listed = await listedFiles(store);
  const names = await listDirectory(store.layout.cimLayers);
  await removeForked(
    store,
    names.filter((name) => isForkedFile(name) && !listed.has(name)),
  );
}

/** The `.cim` first, since without it the rest is nothing. What can't be deleted now is left over, for `cleanLeftovers`. */
async function removeForked(
  { layout }: Store,
  names: readonly string[],
  context?: EffectContext,
): Promise<void> {
  for (const name of names) {
    const path = join(layout.cimLayers, name);
    try {
      await removeTree(path);
    } catch (error) {
      if (!isErrorCode(error, 'busy', 'access-denied')) throw error;
      context?.warn?.(`${path} cannot be deleted yet: ${error.message}`);
    }
  }
}

async function removeLowerImage(folder: string): Promise<void> {
  for (const name of await listDirectory(folder))
    if (name.startsWith('parents.') || name === 'merged_integrity_checksum')
      await removeTree(join(folder, name));
}

/** An image that is to be replaced keeps its name until the new one is committed. */
async function freeImageName({ layout }: Store, { chainId }: LayerRef): Promise<string> {
  const taken = new Set(await listDirectory(layout.cimLayers));
  const name = layerName(chainId);
  for (let number = 0; ; number++) {
    const image = `${name}-${number}.cim`;
    if (!taken.has(image)) return image;
  }
}

function regionGuidIn({ cimFiles }: WrittenImage): string {
  const [, guid] = cimFiles.map(({ name }) => /^region_([0-9a-f-]{36})_/i.exec(name)).find(Boolean) ?? [];
  if (guid === undefined)
    throw new CimletError('corrupt', 'the image that cimfs wrote has no region file of its own');
  return guid;
}
