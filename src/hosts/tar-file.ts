/** Tars written to files. Calls block; for the job's thread. */

import { closeSync, fsyncSync, openSync, renameSync, rmSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import { syncDirectory } from '../cim/durable-files.ts';
import type { JobControl } from './job-thread.ts';

const BATCH_BYTES = 1024 * 1024;

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
  onBatch?: (batch: Uint8Array) => void,
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

/** The same bytes in pieces that are worth a call each. A piece is good until the next. */
export function* inBatches(chunks: Iterable<Uint8Array>): Generator<Uint8Array> {
  const batch = Buffer.allocUnsafeSlow(BATCH_BYTES);
  let filled = 0;
  for (const chunk of chunks) {
    if (filled + chunk.length > BATCH_BYTES) {
      if (filled > 0) yield batch.subarray(0, filled);
      filled = 0;
    }
    if (chunk.length >= BATCH_BYTES) yield chunk;
    else {
      batch.set(chunk, filled);
      filled += chunk.length;
    }
  }
  if (filled > 0) yield batch.subarray(0, filled);
}
