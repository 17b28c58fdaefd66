/** One layer from tar to forked CIM, in one pass: decode, verify, read the tar, write the CIM. */

import { join } from 'node:path';
import { openCim } from '../../cim/reader.ts';
import { createCimWriter } from '../../cim/writer.ts';
import { importLayer } from '../../layers/import-layer.ts';
import { lowerViewOf } from '../../layers/lower-view.ts';
import { layerRegionGuid } from '../identity.ts';
import type { JobControl } from '../job-thread.ts';
import { layerName } from '../layout.ts';
import type { JobResults, UnpackForkedJob, WrittenCim } from './jobs.ts';
import { type LayerTar, withLayerTar } from './layer-source.ts';

/** Leaves the CIM durable under temporary names, or nothing. */
export async function unpackForkedLayer(
  job: UnpackForkedJob,
  control: JobControl,
): Promise<JobResults['unpack-forked']> {
  const parent = job.parent === undefined ? undefined : layerName(job.parent);
  const lower = parent === undefined ? [] : [join(job.directory, `${parent}.cim`)];
  return withLayerTar(job, lower, control, (tar) => unpack(tar, job, parent, control));
}

async function unpack(
  tar: LayerTar,
  { directory, chainId }: UnpackForkedJob,
  parent: string | undefined,
  { signal }: JobControl,
): Promise<WrittenCim> {
  const lower = parent === undefined ? undefined : openCim(join(directory, `${parent}.cim`));
  try {
    const writer = createCimWriter({
      directory,
      name: layerName(chainId),
      regionGuid: layerRegionGuid(chainId),
      ...(parent === undefined ? {} : { parent }),
    });
    try {
      const { warnings } = await importLayer(tar.chunks, writer, {
        isBase: lower === undefined,
        lower: lower && lowerViewOf(lower),
        spoolDirectory: directory,
        signal,
      });
      const regionGuid = layerRegionGuid(tar.identity().chainId);
      const { files, bytes, fileCount } = writer.finish({ regionGuid });
      return { cimFiles: files, bytes, files: fileCount, warnings };
    } finally {
      writer.close();
    }
  } finally {
    lower?.close();
  }
}
