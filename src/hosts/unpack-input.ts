/** What all unpacking has in common: the blob as a verified tar, and whose fault an error is. */

import { CimletError, isErrorCode } from '../errors.ts';
import { openLayerStream } from '../images/decode.ts';
import type { DiffId, LayerBlob } from './host.ts';
import type { JobControl } from './job-thread.ts';

interface JobInput {
  blob: LayerBlob;
  diffId: DiffId;
}

export async function* openJobTar(
  { blob, diffId }: JobInput,
  { signal, progress }: JobControl,
): AsyncGenerator<Uint8Array, void, undefined> {
  const onProgress = (done: number, total: number) => progress({ phase: 'unpacking', done, total });
  yield* openLayerStream(blob, { diffId, signal, onProgress });
  // What is left takes a while as well: to end the image, to seal it, to have it on disk.
  progress({ phase: 'committing', done: 0, total: 0 });
}

/** Faults of the tar don't say whose tar it is, and those of the layers below, in `cims`, not what to do about it. */
export function nameCulprit(error: unknown, { blob }: JobInput, cims: readonly string[]): unknown {
  if (!isErrorCode(error, 'corrupt', 'unsupported-host')) return error;
  if (error.message.startsWith('read CIM: ') && cims.length > 0) return error;
  if (error.message.startsWith('read ') || cims.some((path) => error.message.includes(path))) return error;
  return new CimletError(error.code, `unpack layer ${blob.digest} from ${blob.file}: ${error.message}`, {
    hint: error.hint ?? "copy the image again; if that doesn't help, whoever built it has to build it right",
    cause: error,
  });
}
