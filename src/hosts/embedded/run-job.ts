/** Runs a job in a thread of its own, so that the agent's event loop stays free. */

import { setFlagsFromString } from 'node:v8';
import { Worker } from 'node:worker_threads';
import { CimletError } from '../../errors.ts';
import type { EffectContext } from '../host.ts';
import type { Job, JobMessage, JobResults, JobStart, SerializedError } from './jobs.ts';
import { throwIfAborted } from './observe.ts';

/** The thread's code lies beside this file, as TypeScript in the repository and as JavaScript when installed. */
const FROM_SOURCES = import.meta.url.endsWith('.ts');
const WORKER = new URL(FROM_SOURCES ? './worker.ts' : './worker.js', import.meta.url);

// Node strips types with WebAssembly, in each thread anew. V8 13 (Node 24) kills the process when one thread compiles an
// import wrapper while another, ending, frees the last use of it (nodejs/node#64500), so none is ever compiled.
if (FROM_SOURCES) setFlagsFromString('--wasm-wrapper-tiering-budget=2147483647');

/**
 * On abort the job is told and waited for: it cleans up after itself, then this throws `cancelled`. Its thread has ended
 * when this returns, and is never terminated: while it loads koffi (3.3) that can abort the whole process.
 */
export async function runJob<K extends Job['kind']>(
  job: Extract<Job, { kind: K }>,
  context: EffectContext,
): Promise<JobResults[K]> {
  throwIfAborted(context.signal, `start ${job.kind}`);
  const aborted = new SharedArrayBuffer(4);
  const start: JobStart = { job, aborted };
  const worker = new Worker(WORKER, {
    workerData: start,
    execArgv: ['--disable-warning=ExperimentalWarning'],
    name: `cimlet ${job.kind}`,
  });
  const ended = new Promise<void>((resolve) => {
    worker.once('exit', () => resolve());
  });
  const abort = (): void => {
    Atomics.store(new Int32Array(aborted), 0, 1);
    worker.postMessage('abort');
  };
  context.signal.addEventListener('abort', abort, { once: true });
  try {
    return await new Promise<JobResults[K]>((resolve, reject) => {
      worker.on('message', (message: JobMessage) => {
        if (message.type === 'progress') context.progress?.(message.progress);
        else if (message.type === 'done') resolve(message.result as JobResults[K]);
        else reject(restoreError(message.error));
      });
      worker.on('error', reject);
      worker.on('exit', (code) => reject(new Error(`the ${job.kind} thread ended with code ${code}`)));
    });
  } finally {
    context.signal.removeEventListener('abort', abort);
    await ended;
  }
}

function restoreError(error: SerializedError): Error {
  const cause = error.cause === undefined ? undefined : new Error(error.cause);
  if (error.code !== undefined)
    return new CimletError(error.code, error.message, { hint: error.hint, cause });
  const bug = new Error(error.message, { cause });
  if (error.stack !== undefined) bug.stack = error.stack;
  return bug;
}
