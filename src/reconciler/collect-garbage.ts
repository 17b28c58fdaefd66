/** Collecting what nothing needs any more: layers that no resource's chain has, images and blobs that none was made of. */

import { statfs } from 'node:fs/promises';
import { CimletError, classify } from '../errors.ts';
import type { BlobStore } from '../images/blob-store.ts';
import {
  type DiskUse,
  findGarbage,
  type Garbage,
  type GarbagePolicy,
  type ImagesInUse,
  removeGarbage,
} from '../images/garbage.ts';
import type { StateRecords } from '../state/records.ts';
import type { State } from '../state/state.ts';
import type { Engine } from './engine.ts';
import type { ExecutionEvent, ExecutionResult } from './types.ts';

export interface GarbageServices {
  engine: Engine;
  state: State;
  store: BlobStore;
  root: string;
  policy: GarbagePolicy;
}

export interface FoundGarbage {
  /** Takes the layers away. */
  planned: Awaited<ReturnType<Engine['planDelete']>>;
  garbage: Garbage;
}

/** Looks, changes nothing. */
export async function lookForGarbage(
  { engine, ...images }: GarbageServices,
  signal: AbortSignal,
): Promise<FoundGarbage> {
  const planned = await engine.planDelete({ keys: [], revision: 'gc' }, signal);
  return { planned, garbage: await lookForImageGarbage(images) };
}

/** Images and blobs only. */
export async function lookForImageGarbage({
  state,
  store,
  root,
  policy,
}: Omit<GarbageServices, 'engine'>): Promise<Garbage> {
  const inUse = imagesInUse(state.records());
  return findGarbage(store, { inUse, policy, disk: await diskUseAt(root), now: Date.now() });
}

/** Removes what was found. Nothing may be fetched or built meanwhile: the caller owns the root, and nothing is running. */
export async function collectGarbage(
  { engine, store }: GarbageServices,
  { planned, garbage }: FoundGarbage,
  { signal, onEvent }: { signal: AbortSignal; onEvent?: (event: ExecutionEvent) => void },
): Promise<ExecutionResult> {
  const result = await engine.apply(planned, { signal, ...(onEvent === undefined ? {} : { onEvent }) });
  if (signal.aborted)
    throw new CimletError('cancelled', 'collect garbage: cancelled', { cause: signal.reason });
  await removeGarbage(store, garbage, { now: Date.now(), signal });
  return result;
}

/** Images that resources were made of, and layers, also those being fetched: to build a damaged one again takes its blob. */
function imagesInUse({ resources }: StateRecords): ImagesInUse {
  const images = resources.flatMap(({ facts }) => facts.image ?? []);
  return {
    references: new Set(images.flatMap(({ reference }) => reference ?? [])),
    manifests: new Set(images.map(({ digest }) => digest)),
    layers: new Set([
      ...images.flatMap(({ layers }) => layers.map(({ digest }) => digest)),
      ...resources.flatMap(({ facts }) => facts.fetching ?? []),
    ]),
  };
}

async function diskUseAt(root: string): Promise<DiskUse | undefined> {
  try {
    const { blocks, bavail, bsize } = await statfs(root);
    return { usedBytes: (blocks - bavail) * bsize, totalBytes: blocks * bsize };
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw classify(error, `look at the disk of ${root}`);
  }
}
