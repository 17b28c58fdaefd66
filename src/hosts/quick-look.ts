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

  /** Asked before each look, or few of them: whether it is others' turn. */
  get isOver(): boolean {
    return performance.now() >= this.#end;
  }

  async giveWay(): Promise<void> {
    await giveWay();
    this.#end = performance.now() + TURN_MS;
  }
}

/** Bytes of a file; undefined when it isn't there. */
export function sizeOf(path: string): number | undefined {
  return look(path, () => statSync(path, { throwIfNoEntry: false })?.size);
}

/** What a file or directory was at a time. Times are in milliseconds, told apart to a quarter of a microsecond. */
export type Stamp = readonly [ino: number, size: number, mtimeMs: number, ctimeMs: number];

/**
 * Undefined when it isn't there; `before` itself when it is as it was then. It isn't once the file was written or replaced, or a
 * name came to the directory or left it.
 */
export function stampOf(path: string, before?: Stamp): Stamp | undefined {
  return look(path, () => {
    const stats = statSync(path, { throwIfNoEntry: false });
    if (stats === undefined) return undefined;
    const { ino, size, mtimeMs, ctimeMs } = stats;
    const isAsBefore =
      before !== undefined &&
      before[0] === ino &&
      before[1] === size &&
      before[2] === mtimeMs &&
      before[3] === ctimeMs;
    return isAsBefore ? before : [ino, size, mtimeMs, ctimeMs];
  });
}

function look<T>(path: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw classify(error, `look at ${path}`);
  }
}
