/** Layers on disk: unpacked under temporary names, committed by renames, removed in the opposite order. */

import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { type ImageNames, publishCim, renameUnpublished } from '../../cim/publish.ts';
import { CimletError } from '../../errors.ts';
import { requireLayers } from '../chain-layers.ts';
import { ensureDirectory, listDirectory, move } from '../directories.ts';
import type { CommittedLayer, EffectContext, LayerRef, UnpackRequest } from '../host.ts';
import { layerRegionGuid } from '../identity.ts';
import {
  containerPath,
  isLayerFile,
  LAYER_FILE,
  type Layout,
  layerFolder,
  layerName,
  snapshotPath,
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
import type {
  LayerIdentity,
  LayerSource,
  SourceContainer,
  UnpackInput,
  WrittenCim,
  WrittenContainer,
} from './jobs.ts';
import { layerFaults } from './observe.ts';
import { runJob } from './run-job.ts';
import { removeUnmounted } from './scratch.ts';
import { layerSealFaults } from './seal-faults.ts';
import { temporaryName } from './view-image.ts';

/** The layer's record, when it is committed and nothing of it or its parent is missing. Its seal is not verified. */
export async function soundLayer(layout: Layout, ref: LayerRef): Promise<LayerRecord | undefined> {
  const record = await readLayerRecord(layout, ref);
  if (record === undefined) return undefined;
  const { parent, format } = record.layer;
  if (parent !== undefined && (await readLayerRecord(layout, { chainId: parent, format })) === undefined)
    return undefined;
  return layerFaults(layout, record).length === 0 ? record : undefined;
}

/** A block layer as a job builds on it: when it is sealed, with the root hash it had when it was committed. */
export function sourceContainer(
  layout: Layout,
  { layer: { chainId, rootHash } }: LayerRecord,
): SourceContainer {
  return { path: containerPath(layout, chainId), rootHash };
}

/** What a layer is made of, on which others, and how. */
export interface LayerPlan
  extends Pick<UnpackRequest, 'chainId' | 'format' | 'parents' | 'seal' | 'vhdFooter'> {
  source: LayerSource;
}

export async function unpackLayer(
  layout: Layout,
  request: UnpackRequest,
  context: EffectContext,
): Promise<void> {
  checkUnpackRequest(request);
  if (await isThere(layout, request, context.signal)) return;
  const { blob, diffId } = request;
  await buildLayer(layout, { ...request, source: { kind: 'blob', blob, diffId } }, context, (record) =>
    writeLayerRecord(layout, record),
  );
}

/** Whether the layer is there, sound, and all that is asked for. */
async function isThere(
  layout: Layout,
  wanted: Omit<LayerPlan, 'source'>,
  signal: AbortSignal,
): Promise<boolean> {
  const known = await soundLayer(layout, wanted);
  if (known === undefined || !suffices(known.layer, wanted)) return false;
  return (await layerSealFaults(layout, known, signal)).length === 0;
}

/** Writes a layer under temporary names, for `keep` to complete; when that or the writing fails, they are gone again. */
export async function buildLayer<T>(
  layout: Layout,
  plan: LayerPlan,
  context: EffectContext,
  keep: (record: LayerRecord) => Promise<T>,
): Promise<T> {
  const { chainId, format, parents } = plan;
  const lower = await requireLayers({ chain: parents, format }, `unpack layer ${chainId}`, (ref) =>
    soundLayer(layout, ref),
  );
  await removeUnpacked(layout, plan);
  try {
    const written = await runUnpackJob(layout, plan, lower, context);
    for (const warning of written.warnings) context.warn?.(warning);
    const { bytes, files, cimFiles, content, rootHash } = written;
    const layer: CommittedLayer = {
      chainId: written.chainId,
      format,
      diffId: written.diffId,
      parent: parents.at(-1),
      bytes,
      files,
      builder: layerBuilder(format),
      ...(rootHash === undefined ? {} : { rootHash }),
      ...(plan.vhdFooter === true || format === 'LCOW' ? { vhdFooter: true } : {}),
    };
    return await keep({ formatVersion: 1, layer, cimFiles, content });
  } catch (error) {
    await cleanUpAfterFailure(context, () => removeUnpacked(layout, plan));
    throw error;
  }
}

/**
 * Gives what was written for `plan` the names of the layer that it turned out to be. One that is there already stays when it is all that is
 * asked for.
 */
export async function adoptLayer(
  layout: Layout,
  plan: LayerPlan,
  record: LayerRecord,
  context: EffectContext,
): Promise<void> {
  const { layer, cimFiles } = record;
  if (await isThere(layout, { ...plan, chainId: layer.chainId }, context.signal)) {
    await removeUnpacked(layout, plan);
    return;
  }
  await removeUnpacked(layout, layer);
  try {
    if (plan.format !== 'ForkedCIM') {
      const folderOf = (ref: LayerRef) => snapshotPath(layout, layerFolder(ref), 'tmp-');
      await move(folderOf(plan), folderOf(layer));
      await writeLayerRecord(layout, record);
      return;
    }
    const [from, to] = [imageNames(plan), imageNames(layer)];
    renameUnpublished(layout.cimLayers, from, to);
    const renamed = cimFiles.map(({ name, size }) => ({
      name: name.replace(from.name, to.name).replace(from.regionGuid, to.regionGuid),
      size,
    }));
    await writeLayerRecord(layout, { ...record, cimFiles: renamed });
  } catch (error) {
    await cleanUpAfterFailure(context, () => removeUnpacked(layout, layer));
    throw error;
  }
}

function imageNames({ chainId }: LayerRef): ImageNames {
  return { name: layerName(chainId), regionGuid: layerRegionGuid(chainId) };
}

async function runUnpackJob(
  layout: Layout,
  plan: LayerPlan,
  lower: readonly LayerRecord[],
  context: EffectContext,
): Promise<WrittenCim & Partial<WrittenContainer> & LayerIdentity> {
  const { chainId, format, parents, source, seal = false, vhdFooter = false } = plan;
  const input = { source, chainId, parent: parents.at(-1) };
  if (format === 'BlockCIM')
    return runJob<'unpack-block'>(
      {
        ...input,
        kind: 'unpack-block',
        file: join(await beginFolder(layout, layerFolder(plan), removeUnmounted), LAYER_FILE),
        lower: lower.map((layer) => sourceContainer(layout, layer)).reverse(),
        seal,
        vhdFooter,
      },
      context,
    );
  if (format === 'LCOW') return unpackDisk(layout, plan, input, context);
  await ensureDirectory(layout.cimLayers);
  await ensureDirectory(layout.snapshots);
  return runJob<'unpack-forked'>({ ...input, kind: 'unpack-forked', directory: layout.cimLayers }, context);
}

/** A seal is dm-verity. The disk always ends with a VHD footer. */
async function unpackDisk(
  layout: Layout,
  plan: LayerPlan,
  input: UnpackInput,
  context: EffectContext,
): Promise<WrittenCim & Partial<WrittenContainer> & LayerIdentity> {
  const { parents, seal = false } = plan;
  const file = join(await beginFolder(layout, layerFolder(plan), removeUnmounted), LAYER_DISK);
  const lower = parents.map((each) => layerDiskPath(layout, each)).reverse();
  const job = { ...input, kind: 'unpack-disk' as const, file, lower, seal };
  const { chainId, diffId, size, entries, warnings, rootHash } = await runJob<'unpack-disk'>(job, context);
  return {
    chainId,
    diffId,
    cimFiles: [{ name: LAYER_DISK, size }],
    bytes: size,
    files: entries,
    warnings,
    ...(rootHash === undefined ? {} : { rootHash: `sha256:${rootHash}` }),
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
  context.progress?.({ phase: 'committing', done: 0, total: 0 });
  const folder = layerFolder(ref);
  const old = await setAside(layout, folder);
  if (format === 'ForkedCIM') publishCim(layout.cimLayers, layerName(chainId), layerRegionGuid(chainId));
  await putInPlace(layout, folder);
  if (old) {
    const kept = new Set(unpacked.cimFiles.map(({ name }) => name));
    await removeForkedFiles(layout, ref, (name) => !kept.has(name));
    await removeAside(layout, folder, context, removeUnmounted);
  }
  return unpacked.layer;
}

export async function removeLayerFiles(layout: Layout, ref: LayerRef, context: EffectContext): Promise<void> {
  const folder = layerFolder(ref);
  await setAside(layout, folder);
  await removeForkedFiles(layout, ref, () => true);
  await removeView(layout, ref);
  await discardFolder(layout, folder, removeUnmounted);
  await removeAside(layout, folder, context, removeUnmounted);
}

/** Removes the cached image of the chain whose top this is. */
export async function removeView(layout: Layout, top: LayerRef): Promise<void> {
  const view = viewPath(layout, top);
  await rm(view, { force: true });
  await rm(temporaryName(view), { force: true });
}

async function removeUnpacked(layout: Layout, ref: LayerRef): Promise<void> {
  await discardFolder(layout, layerFolder(ref), removeUnmounted);
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
