/**
 * The part of everything that a few resources can touch, cut out so that it can be looked at and planned for alone: the
 * same plan, as long as the rest is as it is declared.
 */

import { CimletError } from '../errors.ts';
import type { ChainId, Focus } from '../hosts/host.ts';
import { chainIds, mountVolumeGuid } from '../hosts/identity.ts';
import type { ResolvedArchive } from '../images/archive.ts';
import { type Resource, type ResourceKey, resourceKey } from '../manifests/resources.ts';
import type { StateRecords } from '../state/records.ts';
import { archiveKey } from './archives.ts';
import { comparablePlace, type HostKind, overlap, placeOf } from './mount-paths.ts';
import { keyOfRecord } from './plan-removals.ts';
import { dependenciesOf } from './resource-graph.ts';
import type { DeclaredSource, Plan, ResolvedImage } from './types.ts';
import { mountSnapshotKey } from './writable-mounts.ts';

export type Scope = ReadonlySet<ResourceKey>;

/** These resources, what needs them, Mounts at, in or around their places, and what all of these need. */
export function widenScope(
  start: Iterable<ResourceKey>,
  sources: readonly DeclaredSource[],
  records: StateRecords,
  host: HostKind,
): Scope {
  const needs = new Map<ResourceKey, ResourceKey[]>();
  const places = new Map<ResourceKey, string[]>();
  const add = <T>(map: Map<ResourceKey, T[]>, key: ResourceKey, values: readonly T[]) => {
    const known = map.get(key);
    if (known === undefined) map.set(key, [...values]);
    else known.push(...values);
  };
  for (const record of records.resources) add(needs, keyOfRecord(record), record.dependencies);
  for (const { name, path } of records.mounts)
    add(places, `Mount/${name}`, [comparablePlace({ path }, host)]);
  for (const resource of sources.flatMap((source) => source.resources)) {
    const key = resourceKey(resource);
    add(needs, key, dependenciesOf(resource));
    if (resource.kind === 'Mount') add(places, key, [comparablePlace(placeOf(resource), host)]);
  }
  const neededBy = new Map<ResourceKey, ResourceKey[]>();
  for (const [key, dependencies] of needs) for (const needed of dependencies) add(neededBy, needed, [key]);

  const neighboursOf = (key: ResourceKey): ResourceKey[] => {
    const own = places.get(key) ?? [];
    if (own.length === 0) return [];
    const isNear = ([, others]: readonly [ResourceKey, string[]]) =>
      others.some((other) => own.some((place) => overlap(place, other)));
    return [...places].filter(isNear).map(([other]) => other);
  };
  const touched = reach(start, (key) => [...(neededBy.get(key) ?? []), ...neighboursOf(key)]);
  return reach(touched, (key) => needs.get(key) ?? []);
}

function reach(
  start: Iterable<ResourceKey>,
  next: (key: ResourceKey) => readonly ResourceKey[],
): Set<ResourceKey> {
  const reached = new Set(start);
  for (const key of reached) for (const other of next(key)) reached.add(other);
  return reached;
}

export function cutSources(sources: readonly DeclaredSource[], scope: Scope): DeclaredSource[] {
  return sources.map((source) => ({
    ...source,
    resources: source.resources.filter((resource) => scope.has(resourceKey(resource))),
    invalid: source.invalid?.filter(({ key }) => scope.has(key)),
  }));
}

/** `layers`: as `focusOn` gives them. Snapshots with names are few, and stay. */
export function cutRecords(records: StateRecords, scope: Scope, layers: readonly ChainId[]): StateRecords {
  const wanted = new Set(layers);
  return {
    resources: records.resources.filter((record) => scope.has(keyOfRecord(record))),
    snapshots: records.snapshots.filter(({ chainId }) => wanted.has(chainId)),
    mounts: records.mounts.filter(({ name }) => scope.has(`Mount/${name}`)),
    names: records.names,
  };
}

/** What of the host these resources are to be made of, and were made of. */
export function focusOn(
  scope: Scope,
  resources: readonly Resource[],
  records: StateRecords,
  images: ReadonlyMap<string, ResolvedImage | CimletError>,
  archives: ReadonlyMap<string, ResolvedArchive | CimletError>,
): Focus {
  const mounts = [...scope]
    .filter((key) => key.startsWith('Mount/'))
    .map((key) => key.slice('Mount/'.length));
  const layers = new Set([
    ...resources.flatMap((resource) => chainIds(diffIdsOf(resource, images, archives))),
    ...records.resources.flatMap((record) =>
      scope.has(keyOfRecord(record)) ? (record.facts.chain?.chainIds ?? []) : [],
    ),
  ]);
  addBegun(layers, scope, records);
  return {
    layers: [...layers],
    mounts: mounts.map(mountVolumeGuid),
    snapshots: mounts.map(mountSnapshotKey),
  };
}

/** Layers that were made for these resources although they are of none of their chains by now, and what is below them. */
function addBegun(layers: Set<ChainId>, scope: Scope, { snapshots }: StateRecords): void {
  const begun = snapshots.filter(
    ({ chainId, neededBy }) => neededBy !== undefined && scope.has(neededBy) && !layers.has(chainId),
  );
  if (begun.length === 0) return;
  const parents = new Map(snapshots.map(({ chainId, parent }) => [chainId, parent]));
  for (const { chainId } of begun)
    for (let each: ChainId | undefined = chainId; each !== undefined; each = parents.get(each))
      layers.add(each);
}

/** Of the layers that it names itself, as far as they are known. */
function diffIdsOf(
  resource: Resource,
  images: ReadonlyMap<string, ResolvedImage | CimletError>,
  archives: ReadonlyMap<string, ResolvedArchive | CimletError>,
): ResolvedArchive['diffId'][] {
  const ofImage = (name: string | undefined) => {
    const image = name === undefined ? undefined : images.get(name);
    return image === undefined || image instanceof CimletError
      ? []
      : image.layers.map(({ diffId }) => diffId);
  };
  if (resource.kind === 'Mount') return ofImage(resource.spec.image);
  if (resource.kind === 'Image') return [];
  return resource.spec.layers.flatMap((layer) => {
    const archive = archives.get(archiveKey(resource.baseDirectory, layer));
    return archive === undefined || archive instanceof CimletError ? ofImage(layer.image) : [archive.diffId];
  });
}

/** Whether a plan for a part does something to layers that the rest may need as they are: then it takes all to plan. */
export function reachesBeyond({ actions }: Plan): boolean {
  return actions.some(({ kind, verb }) => (kind === 'Snapshot' || kind === 'Merge') && verb !== 'create');
}
