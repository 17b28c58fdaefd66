/** One layer from blob to forked CIM, in one pass: decode, verify, read the tar, write the CIM. */

import { createCimWriter } from '../../cim/writer.ts';
import { openLayerStream } from '../../images/decode.ts';
import { importLayer } from '../../layers/import-layer.ts';
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
  } finally {
    writer.close();
  }
}
