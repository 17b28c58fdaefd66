/** Archives that LayerChains name, each read once however many chains name it. */

import { resolve } from 'node:path';
import pLimit from 'p-limit';
import { CimletError } from '../errors.ts';
import type { Digest } from '../hosts/host.ts';
import { type ResolvedArchive, resolveArchive } from '../images/archive.ts';
import type { Resource } from '../manifests/resources.ts';

/** Archives read at the same time: each keeps a processor busy with hashing. */
const READING = 2;

interface ArchiveLayer {
  archive?: string | undefined;
  digest?: string | undefined;
}

/** Names an archive by its file and the digest it must have. */
export function archiveKey(baseDirectory: string, { archive = '', digest = 'any' }: ArchiveLayer): string {
  return `${digest} ${resolve(baseDirectory, archive)}`;
}

/** Reads every archive that may be used, by `archiveKey`. An archive's failure is its own. */
export async function resolveArchives(
  resources: readonly Resource[],
  signal: AbortSignal,
): Promise<Map<string, ResolvedArchive | CimletError>> {
  const limit = pLimit(READING);
  const found = new Map<string, Promise<ResolvedArchive | CimletError>>();
  for (const { kind, spec, baseDirectory } of resources) {
    if (kind !== 'LayerChain' || spec.suspend) continue;
    for (const layer of spec.layers) {
      const key = archiveKey(baseDirectory, layer);
      if (layer.archive === undefined || found.has(key)) continue;
      const file = resolve(baseDirectory, layer.archive);
      found.set(
        key,
        limit(() => resolveOrExplain(file, layer.digest as Digest | undefined, signal)),
      );
    }
  }
  return new Map(await Promise.all([...found].map(async ([key, each]) => [key, await each] as const)));
}

async function resolveOrExplain(
  file: string,
  digest: Digest | undefined,
  signal: AbortSignal,
): Promise<ResolvedArchive | CimletError> {
  try {
    return await resolveArchive(file, digest, signal);
  } catch (error) {
    if (error instanceof CimletError && error.code !== 'cancelled') return error;
    throw error;
  }
}
