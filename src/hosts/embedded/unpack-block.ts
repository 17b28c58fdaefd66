/** One layer from tar to sealed container, in one pass over the tar: decode, verify, read it, write the CIM. */

import { dirname } from 'node:path';
import { createBlockCimWriter } from '../../cim/block-writer.ts';
import { type CimReader, openCim } from '../../cim/reader.ts';
import { importBlockLayer } from '../../layers/import-layer.ts';
import { lowerViewOf } from '../../layers/lower-view.ts';
import { blockRegionGuid } from '../identity.ts';
import type { JobControl } from '../job-thread.ts';
import { completeContainer, readingSealed } from './containers.ts';
import type { JobResults, UnpackBlockJob, WrittenContainer } from './jobs.ts';
import { type LayerTar, withLayerTar } from './layer-source.ts';

/** Leaves the container durable. What is left of it on failure is the caller's to remove. */
export async function unpackBlockLayer(
  job: UnpackBlockJob,
  control: JobControl,
): Promise<JobResults['unpack-block']> {
  const { lower } = job;
  const paths = lower.map(({ path }) => path);
  return withLayerTar(job, paths, control, (tar) =>
    readingSealed(lower, control.signal, () => unpack(tar, job, control)),
  );
}

async function unpack(tar: LayerTar, job: UnpackBlockJob, control: JobControl): Promise<WrittenContainer> {
  const { file, chainId, seal, vhdFooter } = job;
  const { signal } = control;
  const lower: CimReader[] = [];
  try {
    for (const { path, rootHash } of job.lower) lower.push(openCim(path, { rootHash }));
    const writer = createBlockCimWriter({ file, name: 'layer', regionGuid: blockRegionGuid(chainId) });
    try {
      const { warnings } = await importBlockLayer(tar.chunks, writer, {
        lower: lower.length === 0 ? undefined : lowerViewOf(...lower),
        spoolDirectory: dirname(file),
        signal,
      });
      const finished = writer.finish({ regionGuid: blockRegionGuid(tar.identity().chainId) });
      return await completeContainer(file, finished, {
        seal,
        vhdFooter,
        checksumName: 'integrity_checksum',
        warnings,
        signal,
      });
    } finally {
      writer.close();
    }
  } finally {
    for (const reader of lower) reader.close();
  }
}
