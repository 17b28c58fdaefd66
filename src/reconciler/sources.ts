/** Which source declares what. */

import { type ResourceKey, resourceKey } from '../manifests/resources.ts';
import type { DeclaredSource } from './types.ts';

export type SourceOf = (key: ResourceKey) => DeclaredSource;

/** Finds the source of a declared resource; asking for any other is a bug. */
export function indexSources(sources: readonly DeclaredSource[]): SourceOf {
  const known = new Map(
    sources.flatMap((source) => source.resources.map((resource) => [resourceKey(resource), source] as const)),
  );
  return (key) => {
    const source = known.get(key);
    if (source === undefined) throw new Error(`${key} is planned but no source declares it`);
    return source;
  };
}

/**
 * Names a source by the absolute paths its manifests are read from, whatever their order. Standard input names
 * nothing that could be read again: don't prune by it.
 */
export function sourceIdOf(absolutePaths: readonly string[]): string {
  return `files:${[...new Set(absolutePaths)].sort().join(',')}`;
}
