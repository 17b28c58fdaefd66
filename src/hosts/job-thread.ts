/** Runs a job in a thread of its own, so that the agent's event loop stays free. The thread's side is serve-job.ts. */

import { setFlagsFromString } from 'node:v8';
import { Worker } from 'node:worker_threads';
import { CimletError, type ErrorCode } from '../errors.ts';
import { type FailedCall, NativeError } from '../native/windows/native-error.ts';
import { throwIfAborted } from './abort.ts';
import type { EffectContext, Progress } from './host.ts';

/** What a job may ask while it runs. `checkpoint` throws `cancelled` once the caller has aborted. */
export interface JobControl {
  signal: AbortSignal;
  checkpoint(): void;
  progress(progress: Progress): void;
}

/** First message to the thread; `aborted` is an Int32 in shared memory that turns 1, for loops that hear no messages. */
export interface JobStart<Job> {
  job: Job;
  aborted: SharedArrayBuffer;
}

export interface SerializedError {
  code: ErrorCode | undefined;
  message: string;
  hint: string | undefined;
  cause: string | undefined;
  /** The call of Windows that failed, if one did. */
  call: FailedCall | undefined;
  stack: string | undefined;
}

export type JobMessage<Result> =
  | { type: 'progress'; progress: Progress }
  | { type: 'done'; result: Result }
  | { type: 'failed'; error: SerializedError };

/** A thread's code lies beside the file that starts it, as TypeScript in the repository and as JavaScript when installed. */
const FROM_SOURCES = import.meta.url.endsWith('.ts');

// Node strips types with WebAssembly, in each thread anew. V8 13 (Node 24) kills the process when one thread compiles an
// import wrapper while another, ending, frees the last use of it (nodejs/node#64500), so none is ever compiled.
if (FROM_SOURCES) setFlagsFromString('--wasm-wrapper-tiering-budget=2147483647');

/** The URL of a thread's entry, named without its extension, beside the module at `from`. */
export function threadEntry(name: string, from: string): URL {
  return new URL(`./${name}${FROM_SOURCES ? '.ts' : '.js'}`, from);
}

/**
 * On abort the job is told and waited for: it cleans up after itself, then this throws `cancelled`. Its thread has ended
 * when this returns, and is never terminated: while it loads koffi (3.3) that can abort the whole process.
 */
export async function runInThread<Job extends { kind: string }, Result>(
  entry: URL,
  job: Job,
  context: EffectContext,
): Promise<Result> {
  throwIfAborted(context.signal, `start ${job.kind}`);
  const aborted = new SharedArrayBuffer(4);
  const start: JobStart<Job> = { job, aborted };
  const worker = new Worker(entry, {
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
    return await new Promise<Result>((resolve, reject) => {
      worker.on('message', (message: JobMessage<Result>) => {
        if (message.type === 'progress') context.progress?.(message.progress);
        else if (message.type === 'done') resolve(message.result);
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
  const text = error.cause === undefined ? undefined : new Error(error.cause);
  const cause = error.call === undefined ? text : new NativeError(error.call);
  if (error.code !== undefined)
    return new CimletError(error.code, error.message, { hint: error.hint, cause });
  const bug = new Error(error.message, { cause });
  if (error.stack !== undefined) bug.stack = error.stack;
  return bug;
}
