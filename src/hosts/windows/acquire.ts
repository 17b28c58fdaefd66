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
      throw await afterFailure(error, () => releaseAll(resources.slice(0, index)));
    }
}

/** Last first. Stops at the first that can't be given back: what it stands on is still in use. */
export async function releaseAll(resources: readonly Resource[]): Promise<void> {
  for (const resource of resources.toReversed()) await resource.release();
}

/** Resources as one. */
export function together(resources: readonly Resource[]): Resource {
  return { acquire: () => acquireAll(resources), release: () => releaseAll(resources) };
}

/** Runs `use` while the resource is held. */
export async function holding<T>(resource: Resource, use: () => Promise<T>): Promise<T> {
  await resource.acquire();
  let result: T;
  try {
    result = await use();
  } catch (error) {
    throw await afterFailure(error, () => resource.release());
  }
  await resource.release();
  return result;
}

/** Cleans up after an error and gives the one to throw: what went wrong first, told with what went wrong then. */
export async function afterFailure(error: unknown, cleanUp: () => Promise<void>): Promise<unknown> {
  try {
    await cleanUp();
    return error;
  } catch (second) {
    if (!(error instanceof CimletError) || !(second instanceof Error)) return error;
    const message = `${error.message}; taking back what was done before failed too: ${second.message}`;
    return new CimletError(error.code, message, { hint: error.hint, cause: error });
  }
}
