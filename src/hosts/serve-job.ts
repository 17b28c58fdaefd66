/** The job thread's side of job-thread.ts. Imported by entries of threads only. */

import { parentPort, workerData } from 'node:worker_threads';
import { CimletError, classify } from '../errors.ts';
import { nativeErrorIn } from '../native/windows/native-error.ts';
import type { Progress } from './host.ts';
import type { JobControl, JobMessage, JobStart, SerializedError } from './job-thread.ts';

const PROGRESS_INTERVAL_MS = 100;

/** Runs the thread's one job, reports how it went, and lets the thread end. */
export async function serveJob<Job extends { kind: string }, Result>(
  run: (job: Job, control: JobControl) => Promise<Result>,
): Promise<void> {
  const { job, aborted } = workerData as JobStart<Job>;
  const post = (message: JobMessage<Result>): void => parentPort?.postMessage(message);
  try {
    const report = (progress: Progress) => post({ type: 'progress', progress });
    const result = await run(job, createControl(new Int32Array(aborted), report));
    post({ type: 'done', result });
  } catch (error) {
    post({ type: 'failed', error: serializeError(error, job.kind) });
  } finally {
    parentPort?.close();
  }
}

function createControl(aborted: Int32Array, report: (progress: Progress) => void): JobControl {
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
      report(progress);
    },
  };
}

function serializeError(thrown: unknown, operation: string): SerializedError {
  const error = classify(thrown, operation);
  if (!(error instanceof Error))
    return {
      ...{ code: undefined, message: String(error), hint: undefined },
      ...{ cause: undefined, call: undefined, stack: undefined },
    };
  const known = error instanceof CimletError ? error : undefined;
  const cause = error.cause instanceof Error ? error.cause.message : undefined;
  const call = nativeErrorIn(error)?.call;
  return { code: known?.code, message: error.message, hint: known?.hint, cause, call, stack: error.stack };
}
