/** An effect under way: known while it runs, and explained when it fails. */

import { classify } from '../errors.ts';
import { throwIfAborted } from './abort.ts';
import type { EffectContext, VolumeGuid } from './host.ts';

/** What the host itself is doing right now, which therefore isn't left over. */
export interface Running {
  /** Names of snapshots' folders. */
  folders: Set<string>;
  volumeGuids: Set<VolumeGuid>;
}

/** Gives the error to throw for one that an effect threw. */
export type Explain = (error: unknown) => Promise<unknown>;

/** Runs an effect on `key`, which is one of the `running` meanwhile. Throws `cancelled` when it needn't begin. */
export async function runEffect<K, T>(
  running: Set<K>,
  key: K,
  { context, operation, explain }: { context: EffectContext; operation: string; explain: Explain },
  effect: () => Promise<T>,
): Promise<T> {
  throwIfAborted(context.signal, operation);
  running.add(key);
  try {
    return await effect();
  } catch (error) {
    throw await explain(classify(error, operation));
  } finally {
    running.delete(key);
  }
}
