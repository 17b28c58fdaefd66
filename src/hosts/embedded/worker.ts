/** Entry of the worker thread: runs one job and ends. Imported by nothing; `run-job.ts` starts it. */

import { parentPort, workerData } from 'node:worker_threads';
import { CimletError, classify } from '../../errors.ts';
import type { Progress } from '../host.ts';
import { extractView, writeView } from './build-view.ts';
import type { Job, JobControl, JobMessage, JobResults, JobStart, SerializedError } from './jobs.ts';
import { writeLayerTar } from './layer-tar.ts';
import { mergeLayers } from './merge-layers.ts';
import { unpackBlockLayer } from './unpack-block.ts';
import { unpackForkedLayer } from './unpack-forked.ts';

const PROGRESS_INTERVAL_MS = 100;

async function runJob(job: Job, control: JobControl): Promise<JobResults[Job['kind']]> {
  switch (job.kind) {
    case 'unpack-forked':
      return unpackForkedLayer(job, control);
    case 'unpack-block':
      return unpackBlockLayer(job, control);
    case 'merge':
      return mergeLayers(job, control);
    case 'view':
      return writeView(job, control);
    case 'extract':
      return extractView(job, control);
    case 'export':
      return writeLayerTar(job, control);
  }
}

function post(message: JobMessage): void {
  parentPort?.postMessage(message);
}

function createControl(aborted: Int32Array): JobControl {
  const controller = new AbortController();
  const cancelled = () => new CimletError('cancelled', 'cancelled by the caller');
  parentPort?.on('message', () => controller.abort(cancelled()));
  let reported = Number.NEGATIVE_INFINITY;
  return {
    signal: controller.signal,
    checkpoint: () => {
      if (Atomics.load(aborted, 0) !== 0) throw cancelled();
    },
    progress: (progress: Progress) => {
      const now = performance.now();
      if (now - reported < PROGRESS_INTERVAL_MS && progress.done < progress.total) return;
      reported = now;
      post({ type: 'progress', progress });
    },
  };
}

function serializeError(thrown: unknown, operation: string): SerializedError {
  const error = classify(thrown, operation);
  if (!(error instanceof Error))
    return { code: undefined, message: String(error), hint: undefined, cause: undefined, stack: undefined };
  const known = error instanceof CimletError ? error : undefined;
  const cause = error.cause instanceof Error ? error.cause.message : undefined;
  return { code: known?.code, message: error.message, hint: known?.hint, cause, stack: error.stack };
}

const { job, aborted } = workerData as JobStart;
try {
  const result = await runJob(job, createControl(new Int32Array(aborted)));
  post({ type: 'done', result });
} catch (error) {
  post({ type: 'failed', error: serializeError(error, job.kind) });
} finally {
  parentPort?.close();
}
