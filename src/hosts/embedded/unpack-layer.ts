/** One layer from blob to forked CIM, in one pass: decode, verify, read the tar, write the CIM. */

import { join } from 'node:path';
import { createCimWriter } from '../../cim/writer.ts';
import { CimletError, isErrorCode } from '../../errors.ts';
import { openLayerStream } from '../../images/decode.ts';
import { importLayer } from '../../layers/import-layer.ts';
import type { JobControl, JobResults, UnpackJob } from './jobs.ts';
import { withRepairHint } from './repair-hint.ts';

/** Leaves the CIM durable under temporary names, or nothing. */
export async function unpackForkedLayer(job: UnpackJob, control: JobControl): Promise<JobResults['unpack']> {
  try {
    return await unpack(job, control);
  } catch (error) {
    throw nameCulprit(error, job);
  }
}

async function unpack(job: UnpackJob, control: JobControl): Promise<JobResults['unpack']> {
  const writer = createCimWriter({
    directory: job.directory,
    name: job.name,
    regionGuid: job.regionGuid,
    ...(job.parent === undefined ? {} : { parent: job.parent }),
  });
  try {
    const tar = openLayerStream(job.blob, {
      diffId: job.diffId,
      signal: control.signal,
      onProgress: (done, total) => control.progress({ phase: 'unpacking', done, total }),
    });
    const { warnings } = await importLayer(tar, writer, {
      isBase: job.parent === undefined,
      signal: control.signal,
    });
    const { files, bytes, fileCount } = writer.finish();
    return { cimFiles: files, bytes, files: fileCount, warnings };
  } finally {
    writer.close();
  }
}

/** Faults of the tar don't say whose tar it is, and those of a parent's CIM not what to do about it. */
function nameCulprit(error: unknown, { blob, directory, parent }: UnpackJob): unknown {
  if (!isErrorCode(error, 'corrupt', 'unsupported-host')) return error;
  if (error.message.startsWith('read CIM: ') && parent !== undefined)
    return withRepairHint(error, join(directory, `${parent}.cim`));
  if (error.message.startsWith('read ')) return error;
  return new CimletError(error.code, `unpack layer ${blob.digest} from ${blob.file}: ${error.message}`, {
    hint: error.hint ?? "copy the image again; if that doesn't help, whoever built it has to build it right",
    cause: error,
  });
}
