/** Layers on disk: unpacked under temporary names, committed by renames, removed in the opposite order. */

import { rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { publishCim } from '../../cim/publish.ts';
import { CimletError, classify, isErrorCode } from '../../errors.ts';
import type { ChainId, CommittedLayer, EffectContext, LayerRef, UnpackRequest } from '../host.ts';
import { layerRegionGuid } from '../identity.ts';
import { ensureDirectory, listDirectory, removeTree, syncDirectory } from './directories.ts';
import { isLayerFile, type Layout, layerName, snapshotPath, viewPath } from './layout.ts';
import { layerFaults } from './observe.ts';
import { readLayerRecord, writeUnpackedRecord } from './records.ts';
import { runJob } from './run-job.ts';
import { temporaryName } from './view-image.ts';

/** Changes whenever the same tar would give other bytes; layers forked from one another must agree on it. */
export const BUILDER = 'embedded-forked-cim/1';

/** The layer, when it is committed and nothing of it or its parent is missing. */
export async function soundLayer(layout: Layout, ref: LayerRef): Promise<CommittedLayer | undefined> {
  const record = await readLayerRecord(layout, ref);
  if (record === undefined || record.layer.format !== ref.format) return undefined;
  const { parent } = record.layer;
  if (parent !== undefined && (await readLayerRecord(layout, { chainId: parent })) === undefined)
    return undefined;
  return (await layerFaults(layout, record, BUILDER)).length === 0 ? record.layer : undefined;
}

export async function unpackLayer(
  layout: Layout,
  request: UnpackRequest,
  context: EffectContext,
): Promise<void> {
  const { chainId, diffId, format, blob } = request;
  if ((await soundLayer(layout, request)) !== undefined) return;
  for (const parent of request.parents)
    if ((await soundLayer(layout, { chainId: parent, format })) === undefined)
      throw new CimletError(
        'failed-precondition',
        `unpack layer ${chainId}: parent ${parent} is not committed as ${format}, or is damaged`,
      );
  const parent = request.parents.at(-1);
  await ensureDirectory(layout.cimLayers);
  await ensureDirectory(layout.snapshots);
  await removeUnpacked(layout, chainId);
  try {
    const result = await runJob<'unpack'>(
      {
        kind: 'unpack',
        directory: layout.cimLayers,
        name: layerName(chainId),
        parent: parent === undefined ? undefined : layerName(parent),
        regionGuid: layerRegionGuid(chainId),
        blob,
        diffId,
      },
      context,
    );
    for (const warning of result.warnings) context.warn?.(warning);
    const { bytes, files, cimFiles } = result;
    const layer = { chainId, format, diffId, parent, bytes, files, builder: BUILDER };
    await writeUnpackedRecord(layout, { formatVersion: 1, layer, cimFiles });
  } catch (error) {
    await removeUnpacked(layout, chainId);
    throw error;
  }
}

/**
 * The record's rename commits. A damaged layer's record goes first, so that a crash between leaves no layer at all
 * rather than a mixture.
 */
export async function commitLayer(layout: Layout, ref: LayerRef): Promise<CommittedLayer> {
  const { chainId } = ref;
  const unpacked = await readLayerRecord(layout, ref, 'tmp-');
  if (unpacked === undefined || unpacked.layer.format !== ref.format) {
    const committed = await soundLayer(layout, ref);
    if (committed !== undefined) return committed;
    throw new CimletError('failed-precondition', `commit layer ${chainId}: it was not unpacked`);
  }
  const old = await setAside(layout, chainId);
  publishCim(layout.cimLayers, layerName(chainId), layerRegionGuid(chainId));
  await rename(snapshotPath(layout, chainId, 'tmp-'), snapshotPath(layout, chainId));
  await syncDirectory(layout.snapshots);
  if (old) {
    const kept = new Set(unpacked.cimFiles.map(({ name }) => name));
    await removeFiles(layout, chainId, (name) => !kept.has(name));
    await removeTree(snapshotPath(layout, chainId, 'rm-'));
  }
  return unpacked.layer;
}

export async function removeLayerFiles(layout: Layout, ref: LayerRef): Promise<void> {
  const { chainId } = ref;
  const record = await readLayerRecord(layout, ref);
  if (record !== undefined && record.layer.format !== ref.format) return;
  await setAside(layout, chainId);
  await removeFiles(layout, chainId, () => true);
  const view = viewPath(layout, chainId);
  await rm(view, { force: true });
  await rm(temporaryName(view), { force: true });
  await removeTree(snapshotPath(layout, chainId, 'tmp-'));
  await removeTree(snapshotPath(layout, chainId, 'rm-'));
}

/** Renames the committed layer's folder to `rm-*`, durably. False when there is none. */
async function setAside(layout: Layout, chainId: ChainId): Promise<boolean> {
  const aside = snapshotPath(layout, chainId, 'rm-');
  await removeTree(aside);
  try {
    await rename(snapshotPath(layout, chainId), aside);
  } catch (error) {
    const classified = classify(error, `remove layer ${chainId}`);
    if (isErrorCode(classified, 'not-found')) return false;
    throw classified;
  }
  await syncDirectory(layout.snapshots);
  return true;
}

async function removeUnpacked(layout: Layout, chainId: ChainId): Promise<void> {
  await removeTree(snapshotPath(layout, chainId, 'tmp-'));
  await removeFiles(layout, chainId, (name) => name.startsWith('tmp-'));
}

/** Deletes the layer's CIM files that `isDoomed` says; the `.cim` first, since without it the rest is nothing. */
async function removeFiles(
  layout: Layout,
  chainId: ChainId,
  isDoomed: (name: string) => boolean,
): Promise<void> {
  const names = (await listDirectory(layout.cimLayers)).filter(
    (name) => isLayerFile(name, chainId) && isDoomed(name),
  );
  const imageFirst = names.sort((a, b) => Number(b.endsWith('.cim')) - Number(a.endsWith('.cim')));
  for (const name of imageFirst) await rm(join(layout.cimLayers, name), { force: true });
}
