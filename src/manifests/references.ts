/** What holds between resources, across all files: names are unique, references lead somewhere, and nowhere in circles. */

import { type FieldPath, formatField } from './field-path.ts';
import type { Kind, Problem, Resource, ResourceKey, SourcePosition } from './resources.ts';
import { formatPosition, resourceKey } from './resources.ts';
import { didYouMean, suggest } from './suggest.ts';

/** One resource naming another. */
export interface Reference {
  field: FieldPath;
  key: ResourceKey;
}

/** A reference with its place in the source. */
export interface PlacedReference {
  field: string;
  key: ResourceKey;
  position: SourcePosition;
}

export interface Referrer {
  resource: Resource;
  references: PlacedReference[];
}

/** Every reference in a resource's spec. */
export function referencesOf(resource: Resource): Reference[] {
  const found: Reference[] = [];
  const add = (kind: Kind, name: string | undefined, ...field: (string | number)[]): void => {
    if (name !== undefined) found.push({ field: ['spec', ...field], key: `${kind}/${name}` });
  };
  if (resource.kind === 'LayerChain') {
    for (const [index, { image }] of resource.spec.layers.entries())
      add('Image', image, 'layers', index, 'image');
  } else if (resource.kind === 'Mount') {
    add('LayerChain', resource.spec.chain, 'chain');
    add('Image', resource.spec.image, 'image');
    add('Mount', resource.spec.scratch?.shareWith, 'scratch', 'shareWith');
  }
  for (const [index, { kind, name }] of (resource.spec.dependsOn ?? []).entries()) {
    add(kind, name, 'dependsOn', index, 'name');
  }
  return found;
}

/** Looking for a name that was meant costs a look at every name; a few hints are as good as thousands. */
const MOST_SUGGESTIONS = 50;

/**
 * Duplicates, dangling references and cycles. `broken` are the resources that are there but invalid: what refers to
 * them isn't at fault.
 */
export function checkReferences(referrers: readonly Referrer[], broken: ReadonlySet<string>): Problem[] {
  const byKey = new Map<ResourceKey, Referrer>();
  const problems: Problem[] = [];
  for (const referrer of referrers) {
    const { resource } = referrer;
    const key = resourceKey(resource);
    const first = byKey.get(key);
    if (first === undefined) {
      byKey.set(key, referrer);
      continue;
    }
    const message = `${key} is already declared at ${formatPosition(first.resource.position)}`;
    const { position } = resource;
    problems.push({ position, resource: key, field: 'metadata.name', code: 'duplicate', message });
  }
  problems.push(...danglingReferences(byKey, broken), ...cycles(byKey));
  return problems;
}

function danglingReferences(
  byKey: ReadonlyMap<ResourceKey, Referrer>,
  broken: ReadonlySet<string>,
): Problem[] {
  const namesByKind = new Map<string, string[]>();
  for (const { resource } of byKey.values()) {
    const names = namesByKind.get(resource.kind) ?? [];
    if (names.length === 0) namesByKind.set(resource.kind, names);
    names.push(resource.metadata.name);
  }
  const problems: Problem[] = [];
  for (const [resource, { references }] of byKey) {
    for (const { field, key, position } of references) {
      if (byKey.has(key) || broken.has(key)) continue;
      const [kind = '', name = ''] = key.split('/');
      const mayHint = problems.length < MOST_SUGGESTIONS;
      const suggestion = didYouMean(mayHint ? suggest(name, namesByKind.get(kind) ?? []) : undefined);
      const message = `${field} refers to ${key}, which isn't declared`;
      problems.push({ position, resource, field, code: 'dangling-reference', message, suggestion });
    }
  }
  return problems;
}

/** Depth first, without recursion, since chains of references may be long. Each resource is reported in one cycle at most. */
function cycles(byKey: ReadonlyMap<ResourceKey, Referrer>): Problem[] {
  const problems: Problem[] = [];
  const finished = new Set<ResourceKey>();
  const reported = new Set<ResourceKey>();
  for (const root of byKey.keys()) {
    if (finished.has(root)) continue;
    const path: { key: ResourceKey; next: number }[] = [{ key: root, next: 0 }];
    const depths = new Map<ResourceKey, number>([[root, 0]]);
    for (let top = path.at(-1); top !== undefined; top = path.at(-1)) {
      const reference = byKey.get(top.key)?.references[top.next++];
      if (reference === undefined) {
        finished.add(top.key);
        depths.delete(top.key);
        path.pop();
        continue;
      }
      const { key } = reference;
      const depth = depths.get(key);
      if (depth === undefined) {
        if (finished.has(key) || !byKey.has(key)) continue;
        depths.set(key, path.length);
        path.push({ key, next: 0 });
      } else if (!reported.has(key) && !reported.has(top.key)) {
        const members = path.slice(depth);
        for (const member of members) reported.add(member.key);
        problems.push(describeCycle(members.map((member) => lastFollowed(byKey, member))));
      }
    }
  }
  return problems;
}

interface Step {
  key: ResourceKey;
  reference: PlacedReference;
}

function lastFollowed(
  byKey: ReadonlyMap<ResourceKey, Referrer>,
  { key, next }: { key: ResourceKey; next: number },
): Step {
  const reference = byKey.get(key)?.references[next - 1];
  if (reference === undefined) throw new Error(`no reference was followed from ${key}`);
  return { key, reference };
}

function describeCycle(steps: readonly Step[]): Problem {
  const [first] = steps;
  if (first === undefined) throw new Error('a cycle has a member');
  const round = [...steps.map(({ key }) => key), first.key].join(' -> ');
  const places = steps.map(({ reference }) => formatPosition(reference.position)).join(', ');
  return {
    position: first.reference.position,
    resource: first.key,
    field: first.reference.field,
    code: 'cycle',
    message: `${round} is a cycle (by ${places})`,
  };
}

/** A reference at its place. */
export function placeReference(reference: Reference, position: SourcePosition): PlacedReference {
  return { field: formatField(reference.field), key: reference.key, position };
}
