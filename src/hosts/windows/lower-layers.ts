/** The layers below one that is unpacked, shown as a volume meanwhile: cimfs doesn't say otherwise what they hold. */

import { join } from 'node:path';
import { CimletError } from '../../errors.ts';
import { volumePath } from '../../native/windows/guid.ts';
import { requireLayers } from '../chain-layers.ts';
import type { ChainId, EffectContext, UnpackRequest } from '../host.ts';
import { lowerVolumeGuid } from '../identity.ts';
import { layerFolder } from '../layout.ts';
import { holding } from './acquire.ts';
import { LOWER_FILE, LOWER_IMAGE } from './cim-paths.ts';
import { runJob } from './jobs.ts';
import { layerImage, mergedImage, soundLayer, soundMerge, type WindowsLayerRecord } from './store.ts';
import type { ShownImage } from './volumes.ts';
import type { Workshop } from './workshop.ts';

/**
 * Runs `use` with the volume of the parents, which must be sound; with none for a base layer. What it takes to show them
 * is made in `folder`, the layer's own.
 */
export async function withLowerVolume<T>(
  workshop: Workshop,
  request: UnpackRequest,
  folder: string,
  context: EffectContext,
  use: (volume: string | undefined, parent: WindowsLayerRecord | undefined) => Promise<T>,
): Promise<T> {
  const chain = { chain: request.parents, format: request.format };
  const operation = `unpack layer ${request.chainId}`;
  const parents = await requireLayers(chain, operation, (ref) => soundLayer(workshop, ref));
  const parent = parents.at(-1);
  if (parent === undefined) return use(undefined, undefined);
  const guid = lowerVolumeGuid(workshop.layout.root, layerFolder(request));
  const shown = await shownLayers(workshop, parents, folder, context);
  // Images hold files that only SYSTEM may read; an administrator reads them as a backup does.
  return holding(workshop.volumes.resource(shown, guid), () =>
    workshop.privileges.withPrivileges(['SeBackupPrivilege'], () => use(volumePath(guid), parent)),
  );
}

/** What shows layers: a forked image holds all below it; block images are merged, in `folder` unless they are already. */
export async function shownLayers(
  workshop: Workshop,
  parents: readonly WindowsLayerRecord[],
  folder: string,
  context: EffectContext,
): Promise<ShownImage> {
  const top = parents.at(-1) as WindowsLayerRecord;
  const { format, rootHash } = top.layer;
  if (format === 'ForkedCIM') return { image: layerImage(workshop, top), sources: [], kind: 'forked' };
  if (parents.length === 1) return { image: layerImage(workshop, top), sources: [], kind: 'block', rootHash };
  const chain: ChainId[] = parents.map(({ layer }) => layer.chainId);
  const sources = parents.map((parent) => layerImage(workshop, parent)).reverse();
  const merge = (await soundMerge(workshop, chain))?.merge;
  if (merge !== undefined)
    return {
      image: mergedImage(workshop, top.layer.chainId),
      sources,
      kind: 'block',
      rootHash: merge.rootHash,
    };
  const image = { container: join(folder, LOWER_FILE), name: LOWER_IMAGE };
  const sealed = parents.filter(({ layer }) => layer.rootHash !== undefined).length;
  if (sealed > 0 && sealed < parents.length)
    throw new CimletError(
      'failed-precondition',
      `look into the layers below: ${sealed} of ${parents.length} are sealed, which Windows doesn't merge`,
      { hint: 'build the layers below anew, all of them with a seal or none' },
    );
  const written = await runJob(
    { kind: 'merge', image, sources, seal: sealed > 0, vhdFooter: false },
    context,
  );
  return { image, sources, kind: 'block', rootHash: written.rootHash };
}
