/**
 * Committed layers given back as tars. Windows exports WCIFS layers itself; of CIMs it says only what they show, so what a
 * layer shows is compared with what the layers below it show.
 */

import { stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { CimletError } from '../../errors.ts';
import { volumePath } from '../../native/windows/guid.ts';
import { ensureDirectory, removeTree } from '../directories.ts';
import { exportFolder, findExportLeftovers, whileRecorded } from '../exports.ts';
import type { ChainId, EffectContext, LayerRef, VolumeGuid } from '../host.ts';
import { exportVolumeGuids } from '../identity.ts';
import { type Layout, layerFolder } from '../layout.ts';
import { layerDiskPath } from '../unpack-linux.ts';
import { holding, type Resource, together } from './acquire.ts';
import { runJob } from './jobs.ts';
import { shownLayers } from './lower-layers.ts';
import { soundLayer, type WindowsLayerRecord } from './store.ts';
import { isMounted } from './volumes.ts';
import { topmostFirst } from './wcifs-paths.ts';
import type { Workshop } from './workshop.ts';

/** Where the tar goes. */
interface Target {
  file: string;
  temporary: string;
}

/** The caller holds the lock of the layer's folder. */
export async function exportLayerTar(
  workshop: Workshop,
  ref: LayerRef,
  file: string,
  context: EffectContext,
): Promise<void> {
  const { layout } = workshop;
  const operation = `export layer ${ref.chainId}`;
  const layers = await chainOf(workshop, ref, operation);
  const rootHash = layers.at(-1)?.layer.rootHash;
  if (ref.format === 'LCOW') return exportLinux(workshop, { ...ref, rootHash }, file, context);
  const folder = exportFolder(layout, layerFolder(ref));
  const leave = () => leaveExport(workshop, layerFolder(ref));
  const meanwhile: Resource = {
    acquire: async () => {
      await leave();
      await ensureDirectory(folder);
    },
    // A volume that couldn't be given back may be given back now; while it can't, the folder tells of it.
    release: leave,
  };
  const write = ref.format === 'WCIFS' ? exportWcifs : exportCim;
  await whileRecorded(layout, layerFolder(ref), file, (temporary) =>
    holding(meanwhile, () => write(workshop, layers, { file, temporary }, folder, context)),
  );
}

async function exportLinux(
  { layout }: Workshop,
  { rootHash, ...ref }: LayerRef & { rootHash: string | undefined },
  file: string,
  context: EffectContext,
): Promise<void> {
  const disk = layerDiskPath(layout, ref.chainId);
  const { size: bytes } = await stat(disk);
  await whileRecorded(layout, layerFolder(ref), file, (temporary) =>
    runJob<'export-disk'>({ kind: 'export-disk', disk, rootHash, file, temporary, bytes }, context),
  );
}

/** Takes away the volumes and files of an export of a layer, be it one that died. Nothing is fine. */
async function leaveExport({ layout, volumes }: Workshop, layer: string): Promise<void> {
  const folder = exportFolder(layout, layer);
  for (const guid of exportVolumeGuids(layout.root, basename(folder))) await volumes.dismount(guid);
  await removeTree(folder);
}

/** What exports of layers left that nobody is at, and the volumes that they mounted. */
export async function exportLeftovers(
  layout: Layout,
  running: ReadonlySet<string>,
): Promise<{ path: string; reason: string; volumeGuid?: VolumeGuid }[]> {
  const found: Awaited<ReturnType<typeof exportLeftovers>> = [];
  for (const leftover of await findExportLeftovers(layout, (folder) => running.has(folder))) {
    const guids = leftover.path.endsWith('.files')
      ? exportVolumeGuids(layout.root, basename(leftover.path))
      : [];
    for (const volumeGuid of guids)
      if (await isMounted(volumeGuid))
        found.push({
          path: volumePath(volumeGuid),
          reason: 'a volume that showed a layer for its export',
          volumeGuid,
        });
    found.push(leftover);
  }
  return found;
}

/** The layer and those below it, base first. */
async function chainOf(
  workshop: Workshop,
  { chainId, format }: LayerRef,
  operation: string,
): Promise<WindowsLayerRecord[]> {
  const layers: WindowsLayerRecord[] = [];
  for (let id: ChainId | undefined = chainId; id !== undefined; ) {
    const record: WindowsLayerRecord | undefined = await soundLayer(workshop, { chainId: id, format });
    if (record === undefined)
      throw new CimletError(
        'failed-precondition',
        `${operation}: layer ${id} is not committed as ${format}, or is damaged`,
      );
    layers.unshift(record);
    id = record.layer.parent;
  }
  return layers;
}

async function exportWcifs(
  { layout, vmcompute, privileges }: Workshop,
  layers: readonly WindowsLayerRecord[],
  target: Target,
  folder: string,
  context: EffectContext,
): Promise<void> {
  const chain = layers.map(({ layer }) => layer.chainId);
  const [layer = '', ...parents] = topmostFirst(layout, chain);
  const bytes = layers.at(-1)?.layer.bytes ?? 0;
  await privileges.withPrivileges(['SeBackupPrivilege', 'SeRestorePrivilege'], async () => {
    if (parents.length > 0) await vmcompute.exportLayer(layer, folder, parents);
    const from = parents.length > 0 ? folder : layer;
    await runJob({ kind: 'export-folder', folder: from, bytes, ...target }, context);
  });
}

async function exportCim(
  workshop: Workshop,
  layers: readonly WindowsLayerRecord[],
  target: Target,
  folder: string,
  context: EffectContext,
): Promise<void> {
  const guids = exportVolumeGuids(workshop.layout.root, basename(folder));
  const below = layers.slice(0, -1);
  const volumes: Resource[] = [];
  for (const [index, shown] of [layers, below].entries()) {
    const guid = guids[index];
    if (shown.length === 0 || guid === undefined) continue;
    const place = join(folder, guid);
    await ensureDirectory(place);
    const image = await shownLayers(workshop, shown, place, context);
    volumes.push(workshop.volumes.resource(image, guid));
  }
  const [upper, lower] = guids.map(volumePath);
  const job = {
    kind: 'export-tree' as const,
    upper: upper ?? '',
    ...(below.length > 0 ? { lower } : {}),
    below: '' as const,
    hidesHives: true,
    ...target,
  };
  await holding(together(volumes), () =>
    workshop.privileges.withPrivileges(['SeBackupPrivilege'], () => runJob(job, context)),
  );
}
