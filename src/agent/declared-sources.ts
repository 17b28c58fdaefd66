/** What all followed sources declare together, as a plan takes it. */

import { type ResourceKey, resourceKey } from '../manifests/resources.ts';
import { carries, type HostLabels, splitByHost } from '../reconciler/host-labels.ts';
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
  /** Everything it declared stays as it is. */
  isSuspended: boolean;
}

export interface SourceWarning {
  source: string;
  reason: 'Duplicate' | 'PruneRefused';
  message: string;
}

/**
 * Every source that is in force and not suspended, each resource that is for a host with these labels once.
 * `largestShare` and `unread`: see prune-safety.ts.
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
  const inForce = followed.flatMap(({ source: { name }, id, prune, isSuspended }) => {
    const declaration = declared.get(name);
    if (declaration === undefined || isSuspended) return [];
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
    return [{ name, id, revision: declaration.revision, resources, invalid, elsewhere, prune }];
  });
  const suspended = findSuspended(followed, declared, labels);
  const isDeclared = (key: ResourceKey) => owners.has(key);
  const sources = inForce.map(({ name, prune, ...source }) => {
    const { id: sourceId, resources } = source;
    const others = unread.filter((each) => each !== name);
    const obstacle = prune
      ? findPruneObstacle({
          sourceId,
          resources,
          isDeclared,
          records,
          largestShare,
          unread: others,
          suspended,
        })
      : undefined;
    if (obstacle !== undefined) warnings.push({ source: name, reason: 'PruneRefused', message: obstacle });
    return { ...source, prune: prune && obstacle === undefined };
  });
  return { sources, warnings };
}

/** What suspended sources declare for a host with these labels, and which of them. */
function findSuspended(
  followed: readonly FollowedSource[],
  declared: ReadonlyMap<string, Declaration>,
  labels: HostLabels,
): Map<ResourceKey, string> {
  const suspended = new Map<ResourceKey, string>();
  for (const { source, isSuspended } of followed) {
    if (!isSuspended) continue;
    const { resources = [], invalid = [] } = declared.get(source.name) ?? {};
    for (const resource of splitByHost(resources, labels).here)
      suspended.set(resourceKey(resource), source.name);
    for (const { key } of invalid) suspended.set(key, source.name);
  }
  return suspended;
}
