/** One layer from blob to forked CIM, in one pass: decode, verify, read the tar, write the CIM. */

import { createCimWriter } from '../../cim/writer.ts';
import { CimletError, isErrorCode } from '../../errors.ts';
import { openLayerStream } from '../../images/decode.ts';
import { importLayer } from '../../layers/import-layer.ts';
import type { LayerBlob } from '../host.ts';
import type { JobControl, JobResults, UnpackJob } from './jobs.ts';

/** Leaves the CIM durable under temporary names, or nothing. */
export async function unpackForkedLayer(job: UnpackJob, control: JobControl): Promise<JobResults['unpack']> {
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
  } catch (error) {
    throw nameBlob(error, job.blob);
  } finally {
    writer.close();
  }
}

/** Faults of the tar don't say whose tar it is; whatever else was read (`read layer`, `read CIM`) says so itself. */
function nameBlob(error: unknown, { digest, file }: LayerBlob): unknown {
  if (!isErrorCode(error, 'corrupt', 'unsupported-host') || error.message.startsWith('read ')) return error;
  return new CimletError(error.code, `unpack layer ${digest} from ${file}: ${error.message}`, {
    hint: error.hint ?? "copy the image again; if that doesn't help, whoever built it has to build it right",
    cause: error,
  });
}
