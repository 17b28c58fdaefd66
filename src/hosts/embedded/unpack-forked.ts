/** One layer from blob to forked CIM, in one pass: decode, verify, read the tar, write the CIM. */

import { join } from 'node:path';
import { openCim } from '../../cim/reader.ts';
import { createCimWriter } from '../../cim/writer.ts';
import { importLayer } from '../../layers/import-layer.ts';
import { lowerViewOf } from '../../layers/lower-view.ts';
import type { JobControl } from '../job-thread.ts';
import { nameCulprit, openJobTar } from '../unpack-input.ts';
import type { UnpackForkedJob, WrittenCim } from './jobs.ts';

/** Leaves the CIM durable under temporary names, or nothing. */
export async function unpackForkedLayer(job: UnpackForkedJob, control: JobControl): Promise<WrittenCim> {
  const parent = job.parent === undefined ? undefined : join(job.directory, `${job.parent}.cim`);
  try {
    return await unpack(job, parent, control);
  } catch (error) {
    throw nameCulprit(error, job, parent === undefined ? [] : [parent]);
  }
}

async function unpack(
  job: UnpackForkedJob,
  parent: string | undefined,
  control: JobControl,
): Promise<WrittenCim> {
  const lower = parent === undefined ? undefined : openCim(parent);
  try {
    const writer = createCimWriter({
      directory: job.directory,
      name: job.name,
      regionGuid: job.regionGuid,
      ...(job.parent === undefined ? {} : { parent: job.parent }),
    });
    try {
      const { warnings } = await importLayer(openJobTar(job, control), writer, {
        isBase: lower === undefined,
        lower: lower && lowerViewOf(lower),
        spoolDirectory: job.directory,
        signal: control.signal,
      });
      const { files, bytes, fileCount } = writer.finish();
      return { cimFiles: files, bytes, files: fileCount, warnings };
    } finally {
      writer.close();
    }
  } finally {
    lower?.close();
  }
}
