import type { EffectContext } from '../host.ts';
import { runInThread, threadEntry } from '../job-thread.ts';
import type { Job, JobResults } from './jobs.ts';

const WORKER = threadEntry('worker', import.meta.url);

/** Runs a job in a thread of its own; on abort it cleans up after itself, then this throws `cancelled`. */
export async function runJob<K extends Job['kind']>(
  job: Extract<Job, { kind: K }>,
  context: EffectContext,
): Promise<JobResults[K]> {
  return runInThread<Job, JobResults[K]>(WORKER, job, context);
}
