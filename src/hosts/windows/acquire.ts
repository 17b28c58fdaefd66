/** What is taken step by step and given back in reverse, when a step fails and in the end. */

import { CimletError } from '../../errors.ts';

export interface Resource {
  acquire(): Promise<void>;
  /** Fine when it isn't held any more, as after a restart of Windows. */
  release(): Promise<void>;
}

/** All of them, or none: what was taken is given back when one can't be. */
export async function acquireAll(resources: readonly Resource[]): Promise<void> {
  for (const [index, resource] of resources.entries())
    try {
      await resource.acquire();
    } catch (error) {
      await releaseAfter(error, resources.slice(0, index));
      throw error;
    }
}

/** Last first. Stops at the first that can't be given back: what it stands on is still in use. */
export async function releaseAll(resources: readonly Resource[]): Promise<void> {
  for (const resource of resources.toReversed()) await resource.release();
}

/** The first error is what went wrong; one of cleaning up after it is told with it. */
async function releaseAfter(error: unknown, acquired: readonly Resource[]): Promise<void> {
  try {
    await releaseAll(acquired);
  } catch (second) {
    if (!(error instanceof CimletError) || !(second instanceof Error)) throw second;
    const message = `${error.message}; taking back what was done before failed too: ${second.message}`;
    throw new CimletError(error.code, message, { hint: error.hint, cause: error });
  }
}
