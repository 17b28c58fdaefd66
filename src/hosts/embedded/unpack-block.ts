/** One layer from blob to sealed container, in one pass over the tar: decode, verify, read it, write the CIM. */

import { dirname } from 'node:path';
import { createBlockCimWriter } from '../../cim/block-writer.ts';
import { type CimReader, openCim } from '../../cim/reader.ts';
import { importBlockLayer } from '../../layers/import-layer.ts';
import { lowerViewOf } from '../../layers/lower-view.ts';
import type { JobControl } from '../job-thread.ts';
import { nameCulprit, openJobTar } from '../unpack-input.ts';
import { completeContainer, readingSealed } from './containers.ts';
import type { UnpackBlockJob, WrittenContainer } from './jobs.ts';

/** Leaves the container durable. What is left of it on failure is the caller's to remove. */
export async function unpackBlockLayer(job: UnpackBlockJob, control: JobControl): Promise<WrittenContainer> {
  try {
    return await readingSealed(job.lower, control.signal, () => unpack(job, control));
  } catch (error) {
    const lower = job.lower.map(({ path }) => path);
    throw nameCulprit(error, job, lower);
  }
}

async function unpack(job: UnpackBlockJob, control: JobControl): Promise<WrittenContainer> {
  const { file, regionGuid, seal, vhdFooter } = job;
  const { signal } = control;
  const lower: CimReader[] = [];
  try {
    for (const { path, rootHash } of job.lower) lower.push(openCim(path, { rootHash }));
    const writer = createBlockCimWriter({ file, name: 'layer', regionGuid });
    try {
      const { warnings } = await importBlockLayer(openJobTar(job, control), writer, {
        lower: lower.length === 0 ? undefined : lowerViewOf(...lower),
        spoolDirectory: dirname(file),
        signal,
      });
      return await completeContainer(file, writer.finish(), {
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
