/** Layers on disk: unpacked under temporary names, committed by renames, removed in the opposite order. */

import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { publishCim } from '../../cim/publish.ts';
import { CimletError } from '../../errors.ts';
import { requireLayers } from '../chain-layers.ts';
import { ensureDirectory, listDirectory } from '../directories.ts';
import type { CommittedLayer, EffectContext, LayerRef, UnpackRequest } from '../host.ts';
import { blockRegionGuid, layerRegionGuid } from '../identity.ts';
import {
  containerPath,
  isLayerFile,
  LAYER_FILE,
  type Layout,
  layerFolder,
  layerName,
  viewPath,
} from '../layout.ts';
import { type LayerRecord, readLayerRecord, writeLayerRecord } from '../records.ts';
import {
  beginFolder,
  cleanUpAfterFailure,
  discardFolder,
  putInPlace,
  removeAside,
  setAside,
} from '../snapshot-folders.ts';
import { LAYER_DISK, layerDiskPath } from '../unpack-linux.ts';
import { checkUnpackRequest, suffices } from '../unpack-request.ts';
import { layerBuilder } from './builders.ts';
import type { SourceContainer, WrittenCim, WrittenContainer } from './jobs.ts';
import { layerFaults } from './observe.ts';
import { runJob } from './run-job.ts';
import { layerSealFaults } from './seal-faults.ts';
import { temporaryName } from './view-image.ts';

/** The layer's record, when it is committed and nothing of it or its parent is missing. Its seal is not verified. */
export async function soundLayer(layout: Layout, ref: LayerRef): Promise<LayerRecord | undefined> {
  const record = await readLayerRecord(layout, ref);
  if (record === undefined) return undefined;
  const { parent, format } = record.layer;
  if (parent !== undefined && (await readLayerRecord(layout, { chainId: parent, format })) === undefined)
    return undefined;
  return (await layerFaults(layout, record)).length === 0 ? record : undefined;
}

/** A block layer as a job builds on it: when it is sealed, with the root hash it had when it was committed. */
export function sourceContainer(
  layout: Layout,
  { layer: { chainId, rootHash } }: LayerRecord,
): SourceContainer {
  return { path: containerPath(layout, chainId), rootHash };
}

export async function unpackLayer(
  layout: Layout,
  request: UnpackRequest,
  context: EffectContext,
): Promise<void> {
  checkUnpackRequest(request);
  const { chainId, diffId, format, parents, vhdFooter } = request;
  const operation = `unpack layer ${chainId}`;
  const known = await soundLayer(layout, request);
  const isThere = known !== undefined && suffices(known.layer, request);
  if (isThere && (await layerSealFaults(layout, known, context.signal)).length === 0) return;
  const lower = await requireLayers({ chain: parents, format }, operation, (ref) => soundLayer(layout, ref));
  await removeUnpacked(layout, request);
  try {
    const written = await runUnpackJob(layout, request, lower, context);
    for (const warning of written.warnings) context.warn?.(warning);
    const { bytes, files, cimFiles, content, rootHash } = written;
    const layer: CommittedLayer = {
      chainId,
      format,
      diffId,
      parent: parents.at(-1),
      bytes,
      files,
      builder: layerBuilder(format),
      ...(rootHash === undefined ? {} : { rootHash }),
      ...(vhdFooter === true || format === 'LCOW' ? { vhdFooter: true } : {}),
    };
    await writeLayerRecord(layout, { formatVersion: 1, layer, cimFiles, content });
  } catch (error) {
    await cleanUpAfterFailure(context, () => removeUnpacked(layout, request));
    throw error;
  }
}

async function runUnpackJob(
  layout: Layout,
  request: UnpackRequest,
  lower: readonly LayerRecord[],
  context: EffectContext,
): Promise<WrittenCim & Partial<WrittenContainer>> {
  const { chainId, diffId, format, parents, blob, seal = false, vhdFooter = false } = request;
  if (format === 'BlockCIM')
    return runJob<'unpack-block'>(
      {
        kind: 'unpack-block',
        file: join(await beginFolder(layout, layerFolder(request)), LAYER_FILE),
        regionGuid: blockRegionGuid(chainId),
        lower: lower.map((layer) => sourceContainer(layout, layer)).reverse(),
        blob,
        diffId,
        seal,
        vhdFooter,
      },
      context,
    );
  if (format === 'LCOW') return unpackDisk(layout, request, context);
  const parent = parents.at(-1);
  await ensureDirectory(layout.cimLayers);
  await ensureDirectory(layout.snapshots);
  return runJob<'unpack-forked'>(
    {
      kind: 'unpack-forked',
      directory: layout.cimLayers,
      name: layerName(chainId),
      parent: parent === undefined ? undefined : layerName(parent),
      regionGuid: layerRegionGuid(chainId),
      blob,
      diffId,
    },
    context,
  );
}

/** A seal is dm-verity. The disk always ends with a VHD footer. */
async function unpackDisk(
  layout: Layout,
  request: UnpackRequest,
  context: EffectContext,
): Promise<WrittenCim & Partial<WrittenContainer>> {
  const { blob, diffId, parents, seal = false } = request;
  const file = join(await beginFolder(layout, layerFolder(request)), LAYER_DISK);
  const lower = parents.map((chainId) => layerDiskPath(layout, chainId)).reverse();
  const job = { kind: 'unpack-linux' as const, blob, diffId, file, lower, seal };
  const disk = await runJob<'unpack-linux'>(job, context);
  return {
    cimFiles: [{ name: LAYER_DISK, size: disk.size }],
    bytes: disk.size,
    files: disk.entries,
    warnings: disk.warnings,
    ...(disk.rootHash === undefined ? {} : { rootHash: `sha256:${disk.rootHash}` }),
  };
}

/**
 * The folder's rename commits. A damaged layer's folder goes first, so that a crash between leaves no layer at all
 * rather than a mixture.
 */
export async function commitLayer(
  layout: Layout,
  ref: LayerRef,
  context: EffectContext,
): Promise<CommittedLayer> {
  const { chainId, format } = ref;
  const unpacked = await readLayerRecord(layout, ref, 'tmp-');
  if (unpacked === undefined) {
    const committed = await soundLayer(layout, ref);
    if (committed !== undefined) return committed.layer;
    throw new CimletError('failed-precondition', `commit layer ${chainId}: it was not unpacked`);
  }
  const folder = layerFolder(ref);
  const old = await setAside(layout, folder);
  if (format === 'ForkedCIM') publishCim(layout.cimLayers, layerName(chainId), layerRegionGuid(chainId));
  await putInPlace(layout, folder);
  if (old) {
    const kept = new Set(unpacked.cimFiles.map(({ name }) => name));
    await removeForkedFiles(layout, ref, (name) => !kept.has(name));
    await removeAside(layout, folder, context);
  }
  return unpacked.layer;
}

export async function removeLayerFiles(layout: Layout, ref: LayerRef, context: EffectContext): Promise<void> {
  const folder = layerFolder(ref);
  await setAside(layout, folder);
  await removeForkedFiles(layout, ref, () => true);
  await removeView(layout, ref);
  await discardFolder(layout, folder);
  await removeAside(layout, folder, context);
}

/** Removes the cached image of the chain whose top this is. */
export async function removeView(layout: Layout, top: LayerRef): Promise<void> {
  const view = viewPath(layout, top);
  await rm(view, { force: true });
  await rm(temporaryName(view), { force: true });
}

async function removeUnpacked(layout: Layout, ref: LayerRef): Promise<void> {
  await discardFolder(layout, layerFolder(ref));
  await removeForkedFiles(layout, ref, (name) => name.startsWith('tmp-'));
}

/**
 * Deletes the files in cim-layers that `isDoomed` says; the `.cim` first, since without it the rest is nothing. Only
 * forked layers have any.
 */
async function removeForkedFiles(
  layout: Layout,
  { chainId, format }: LayerRef,
  isDoomed: (name: string) => boolean,
): Promise<void> {
  if (format !== 'ForkedCIM') return;
  const names = (await listDirectory(layout.cimLayers)).filter(
    (name) => isLayerFile(name, chainId) && isDoomed(name),
  );
  const imageFirst = names.sort((a, b) => Number(b.endsWith('.cim')) - Number(a.endsWith('.cim')));
  for (const name of imageFirst) await rm(join(layout.cimLayers, name), { force: true });
}
