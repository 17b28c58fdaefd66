/** What all followed sources declare together, as a plan takes it. */

import { type ResourceKey, resourceKey } from '../manifests/resources.ts';
import { carries, type HostLabels, splitByHost } from '../reconciler/host-labels.ts';
import type { SuspensionNote } from '../reconciler/suspension.ts';
import type { DeclaredSource } from '../reconciler/types.ts';
import type { Source } from '../sources/source.ts';
import type { ResourceRecord } from '../state/records.ts';
import type { Declaration } from './declaration.ts';
import { findPruneObstacle } from './prune-safety.ts';

export interface FollowedSource {
  source: Source;
  /** Under which what it declares is recorded. */
  id: string;
  /** Whether what it no longer declares is removed. */
  prune: boolean;
  /** Everything that it declares stays as it is. */
  suspended?: SuspensionNote | undefined;
}

export interface SourceWarning {
  source: string;
  reason: 'Duplicate' | 'PruneRefused';
  message: string;
}

/**
 * Every source that is in force, each resource that is for a host with these labels once. What a suspended one declares is
 * its own too. `largestShare` and `unread`: see prune-safety.ts.
 */
export function collectSources(
  followed: readonly FollowedSource[],
  declared: ReadonlyMap<string, Declaration>,
  records: readonly ResourceRecord[],
  largestShare: number,
  labels: HostLabels = {},
  unread: readonly string[] = [],
): { sources: DeclaredSource[]; warnings: SourceWarning[] } {
  const owners = new Map<ResourceKey, string>();
  const warnings: SourceWarning[] = [];
  const recorded = new Set(records.map(({ kind, name }): ResourceKey => `${kind}/${name}`));
  const inForce = followed.flatMap(({ source: { name }, id, prune, suspended }) => {
    const declaration = declared.get(name);
    if (declaration === undefined) return [];
    const isFirst = (key: ResourceKey) => {
      const owner = owners.get(key);
      if (owner === undefined) owners.set(key, name);
      else {
        const message = `${key} of source ${name} is left out: source ${owner} declares it too`;
        warnings.push({ source: name, reason: 'Duplicate', message });
      }
      return owner === undefined;
    };
    const { here, elsewhere } = splitByHost(declaration.resources, labels);
    const resources = here.filter((resource) => isFirst(resourceKey(resource)));
    // One that is here stays, whatever its manifest says now of hosts: it may be the mistake.
    const invalid = declaration.invalid.filter(
      ({ key, matchLabels }) => (recorded.has(key) || carries(labels, matchLabels)) && isFirst(key),
    );
    const { revision } = declaration;
    return [{ name, id, revision, resources, invalid, elsewhere, prune, suspended }];
  });
  const isDeclared = (key: ResourceKey) => owners.has(key);
  const sources = inForce.map(({ name, ...source }) => {
    const { id: sourceId, resources } = source;
    if (!source.prune || source.suspended !== undefined) return { ...source, prune: false };
    const others = unread.filter((each) => each !== name);
    const question = { sourceId, resources, isDeclared, records, largestShare, unread: others };
    const obstacle = findPruneObstacle(question);
    if (obstacle !== undefined) warnings.push({ source: name, reason: 'PruneRefused', message: obstacle });
    return { ...source, prune: obstacle === undefined };
  });
  return { sources, warnings };
}
