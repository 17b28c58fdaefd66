/** Tars written to files. Calls block; for the job's thread. */

import { closeSync, fsyncSync, openSync, renameSync, rmSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import { syncDirectory } from '../cim/durable-files.ts';
import type { JobControl } from './job-thread.ts';

const WRITE_BYTES = 1024 * 1024;

export interface TarFile {
  file: string;
  /** Where it is written first; `file` itself when that is a pipe or device. */
  temporary: string;
  /** About how many bytes it will have, for progress. */
  bytes: number;
}

/** Writes a tar, and renames it to `file`, durably, when it is whole. Returns its bytes; `onBatch` sees them all. */
export function writeTarFile(
  { file, temporary, bytes }: TarFile,
  chunks: Iterable<Uint8Array>,
  { checkpoint, progress }: JobControl,
  onBatch?: (batch: Buffer) => void,
): number {
  try {
    const descriptor = openSync(temporary, 'w');
    let done = 0;
    try {
      for (const batch of inBatches(chunks)) {
        checkpoint();
        onBatch?.(batch);
        for (let at = 0; at < batch.length; ) at += writeSync(descriptor, batch, at);
        done += batch.length;
        progress({ phase: 'exporting', done, total: Math.max(done, bytes) });
      }
      if (temporary !== file) fsyncSync(descriptor);
    } finally {
      closeSync(descriptor);
    }
    if (temporary !== file) {
      renameSync(temporary, file);
      syncDirectory(dirname(file));
    }
    return done;
  } catch (error) {
    if (temporary !== file) rmSync(temporary, { force: true });
    throw error;
  }
}

function* inBatches(chunks: Iterable<Uint8Array>): Generator<Buffer> {
  let pending: Uint8Array[] = [];
  let bytes = 0;
  for (const chunk of chunks) {
    pending.push(chunk);
    bytes += chunk.length;
    if (bytes < WRITE_BYTES) continue;
    yield Buffer.concat(pending);
    pending = [];
    bytes = 0;
  }
  yield Buffer.concat(pending);
}
