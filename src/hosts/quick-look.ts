/**
 * Looking at tens of thousands of files: asking the system in place takes a tenth of the time that asking for each through
 * the thread pool does. Whoever does so takes turns with everybody else.
 */

import { statSync } from 'node:fs';
import { setImmediate as giveWay } from 'node:timers/promises';
import { classify } from '../errors.ts';

/** Milliseconds that others wait at most for a turn, give or take one look. */
const TURN_MS = 5;

/** A row of quick looks, with pauses for others. */
export class Turns {
  #end = performance.now() + TURN_MS;

  /** Asked before each look, or few of them. */
  async take(): Promise<void> {
    if (performance.now() < this.#end) return;
    await giveWay();
    this.#end = performance.now() + TURN_MS;
  }
}

/** Bytes of a file; undefined when it isn't there. */
export function sizeOf(path: string): number | undefined {
  return look(path, () => statSync(path, { throwIfNoEntry: false })?.size);
}

/** Changes when the file is written or replaced; undefined when it isn't there. */
export function stampOf(path: string): string | undefined {
  return look(path, () => {
    const stats = statSync(path, { bigint: true, throwIfNoEntry: false });
    return stats === undefined ? undefined : `${stats.ino} ${stats.size} ${stats.mtimeNs} ${stats.ctimeNs}`;
  });
}

function look<T>(path: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw classify(error, `look at ${path}`);
  }
}
