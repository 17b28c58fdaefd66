/** Committed layers given back as tars. */

import { CimletError } from '../../errors.ts';
import { whileRecorded } from '../exports.ts';
import type { EffectContext, LayerRef } from '../host.ts';
import { cimPath, containerPath, type Layout, layerFolder } from '../layout.ts';
import { layerDiskPath } from '../unpack-linux.ts';
import { soundLayer } from './layer-store.ts';
import { runJob } from './run-job.ts';

export async function exportLayerTar(
  layout: Layout,
  ref: LayerRef,
  file: string,
  context: EffectContext,
): Promise<void> {
  const layer = (await soundLayer(layout, ref))?.layer;
  if (layer === undefined)
    throw new CimletError(
      'failed-precondition',
      `export layer ${ref.chainId}: it is not committed as ${ref.format}, or is damaged`,
    );
  const { chainId, parent, format, bytes, rootHash } = layer;
  if (format === 'LCOW') {
    const disk = layerDiskPath(layout, chainId);
    await whileRecorded(layout, layerFolder(ref), file, (temporary) =>
      runJob<'export-disk'>({ kind: 'export-disk', disk, rootHash, file, temporary, bytes }, context),
    );
    return;
  }
  const source =
    format === 'BlockCIM'
      ? { cim: containerPath(layout, chainId), rootHash }
      : { cim: cimPath(layout, chainId), parent: parent === undefined ? undefined : cimPath(layout, parent) };
  await whileRecorded(layout, layerFolder(ref), file, (temporary) =>
    runJob<'export'>({ kind: 'export', ...source, file, temporary, bytes }, context),
  );
}
