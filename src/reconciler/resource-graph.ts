/** Which resources take part, and in which order: references and dependsOn as one graph. */

import { CimletError } from '../errors.ts';
import { type Resource, type ResourceKey, resourceKey } from '../manifests/resources.ts';
import { compareText } from './canonical.ts';

/** The resources a resource refers to or depends on, without repetition, in a stable order. */
export function dependenciesOf(resource: Resource): ResourceKey[] {
  const keys = new Set<ResourceKey>();
  if (resource.kind === 'LayerChain') {
    for (const { image } of resource.spec.layers) if (image !== undefined) keys.add(`Image/${image}`);
  }
  if (resource.kind === 'Mount') {
    if (resource.spec.chain !== undefined) keys.add(`LayerChain/${resource.spec.chain}`);
    if (resource.spec.image !== undefined) keys.add(`Image/${resource.spec.image}`);
    const { shareWith } = resource.spec.scratch ?? {};
    if (shareWith !== undefined && shareWith !== resource.metadata.name) keys.add(`Mount/${shareWith}`);
  }
  for (const { kind, name } of resource.spec.dependsOn ?? []) keys.add(`${kind}/${name}`);
  return [...keys].sort(compareText);
}

/** The targets and everything they need; all resources when there are no targets. */
export function selectTargets(
  resources: readonly Resource[],
  targets: readonly ResourceKey[],
  isKnown: (key: ResourceKey) => boolean,
): Resource[] {
  if (targets.length === 0) return [...resources];
  const byKey = new Map(resources.map((resource) => [resourceKey(resource), resource]));
  const selected = new Set<ResourceKey>();
  const queue = [...targets];
  for (const target of targets) {
    if (byKey.has(target) || isKnown(target)) continue;
    throw new CimletError(
      'not-found',
      `target ${target}: neither in the manifests nor applied on this host`,
      {
        hint: 'a target is named kind/name, e.g. Mount/app',
      },
    );
  }
  for (let key = queue.pop(); key !== undefined; key = queue.pop()) {
    if (selected.has(key)) continue;
    selected.add(key);
    const resource = byKey.get(key);
    if (resource !== undefined) queue.push(...dependenciesOf(resource));
  }
  return resources.filter((resource) => selected.has(resourceKey(resource)));
}

/**
 * Resources with what they need first, otherwise in the order of their kinds and names. `cyclic` are those that wait
 * for themselves, or for one that does.
 */
export function sortByDependency(resources: readonly Resource[]): { order: Resource[]; cyclic: Resource[] } {
  const rank = { Image: '0', LayerChain: '1', Mount: '2' };
  const sorted = [...resources].sort((a, b) =>
    compareText(`${rank[a.kind]}${a.metadata.name}`, `${rank[b.kind]}${b.metadata.name}`),
  );
  const byKey = new Map(sorted.map((resource) => [resourceKey(resource), resource]));
  const waiting = new Map<ResourceKey, number>();
  const dependants = new Map<ResourceKey, Resource[]>();
  for (const resource of sorted) {
    const dependencies = dependenciesOf(resource).filter((key) => byKey.has(key));
    waiting.set(resourceKey(resource), dependencies.length);
    for (const key of dependencies) {
      const known = dependants.get(key);
      if (known === undefined) dependants.set(key, [resource]);
      else known.push(resource);
    }
  }
  const order = sorted.filter((resource) => waiting.get(resourceKey(resource)) === 0);
  for (let index = 0; index < order.length; index++) {
    const done = order[index];
    if (done === undefined) break;
    for (const dependant of dependants.get(resourceKey(done)) ?? []) {
      const key = resourceKey(dependant);
      const left = (waiting.get(key) ?? 0) - 1;
      waiting.set(key, left);
      if (left === 0) order.push(dependant);
    }
  }
  return { order, cyclic: sorted.filter((resource) => (waiting.get(resourceKey(resource)) ?? 0) > 0) };
}
