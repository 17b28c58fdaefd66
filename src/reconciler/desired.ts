/** Manifests and resolved images -> what should exist: the chain of every LayerChain and Mount, and what is blocked. */

import { CimletError } from '../errors.ts';
import type { Capabilities, ChainId, DiffId, LayerBlob, LayerFormat } from '../hosts/host.ts';
import type { ResolvedArchive } from '../images/archive.ts';
import {
  type InvalidResource,
  type MountResource,
  type Resource,
  type ResourceKey,
  resourceKey,
} from '../manifests/resources.ts';
import type { ResourceRecord } from '../state/records.ts';
import { deriveChain, findChainObstacle, findExpectationObstacle } from './derive-chain.ts';
import { explainElsewhere } from './host-labels.ts';
import { findPathCollisions, findPathProblem, type HostKind } from './mount-paths.ts';
import { dependenciesOf, sortByDependency } from './resource-graph.ts';
import { describeSuspension, suspensionNote } from './suspension.ts';
import type { Blocked, Plan, ResolvedImage } from './types.ts';

export interface DesiredLayer {
  chainId: ChainId;
  diffId: DiffId;
  blob: LayerBlob;
  /** The Image it is a layer of, or the archive it is, as the manifest names it. */
  from: { image: string } | { archive: string };
}

export interface DesiredChain {
  format: LayerFormat;
  /** Base first. */
  layers: readonly DesiredLayer[];
  /** A merged CIM is written over the layers. */
  merged: boolean;
  /** `integrity: Verified`: layers and merged CIM are sealed. */
  verified: boolean;
  vhdFooter: boolean;
}

export interface Desired {
  /** Those that aren't blocked, dependencies first. */
  resources: Resource[];
  images: Map<string, ResolvedImage>;
  /** Of each LayerChain and each Mount. */
  chains: Map<ResourceKey, DesiredChain>;
  blocked: Map<ResourceKey, Blocked>;
  notes: Plan['notes'];
}

export interface DesiredInput {
  resources: readonly Resource[];
  resolved: ReadonlyMap<string, ResolvedImage | CimletError>;
  /** By `archiveKey`. */
  archives: ReadonlyMap<string, ResolvedArchive | CimletError>;
  /** Undefined offline. */
  capabilities: Capabilities | undefined;
  host: HostKind;
  root: string;
  /** Declared for other hosts. */
  elsewhere: readonly Resource[];
  recordOf: (key: ResourceKey) => ResourceRecord | undefined;
  /** Sources of which nothing was read yet: what is missed may be declared there. */
  unread: readonly string[];
  /** Declared too, but not validly. */
  invalid: readonly InvalidResource[];
  /** Known beforehand. */
  obstacles: ReadonlyMap<string, Obstacle>;
  /** Asked for each Mount whose chain is known: what on the host stands in its way. */
  assessMount: (mount: MountResource, chain: DesiredChain) => Obstacle | undefined;
}

/** Why a resource can't go on. */
export type Obstacle = Omit<Blocked, 'key' | 'position'> & { position?: Blocked['position'] };

/** Pure. One obstacle per resource: the first that stands in its way. */
export function deriveDesired(input: DesiredInput): Desired {
  const { order, cyclic } = sortByDependency(input.resources);
  const desired: Desired = {
    resources: [],
    images: new Map(),
    chains: new Map(),
    blocked: new Map(),
    notes: [],
  };
  for (const { key, position, message } of input.invalid) {
    const hint = 'mend its manifest; until then it stays as it is';
    desired.blocked.set(key, { key, code: 'invalid-manifest', message, hint, position });
  }
  const present = new Set(input.resources.map(resourceKey));
  const elsewhere = new Map(input.elsewhere.map((resource) => [resourceKey(resource), resource]));
  for (const [key, resource] of elsewhere) desired.notes.push({ key, message: explainElsewhere(resource) });
  const mounts = input.resources.filter((resource) => resource.kind === 'Mount');
  const collisions = findPathCollisions(mounts, input.host);

  for (const resource of order) {
    const held = input.obstacles.get(resourceKey(resource));
    const obstacle =
      findSuspension(resource) ??
      (held?.code === 'suspended' ? held : undefined) ??
      findDependencyObstacle(resource, { present, elsewhere, unread: input.unread }, desired.blocked) ??
      held ??
      (resource.kind === 'Mount' ? findPathObstacle(resource, collisions, input) : undefined) ??
      resolve(resource, input, desired) ??
      (resource.kind === 'Mount' ? assess(resource, input, desired) : undefined);
    if (obstacle === undefined) desired.resources.push(resource);
    else block(resource, obstacle, desired);
  }
  for (const resource of cyclic) {
    block(resource, { code: 'invalid-manifest', message: 'it depends on itself, by way of others' }, desired);
  }
  return desired;
}

function block(resource: Resource, obstacle: Obstacle, desired: Desired): void {
  const key = resourceKey(resource);
  desired.chains.delete(key);
  desired.blocked.set(key, { key, position: resource.position, ...obstacle });
}

function findSuspension(resource: Resource): Obstacle | undefined {
  const note = suspensionNote(resource.spec.suspend);
  return note === undefined ? undefined : { code: 'suspended', message: describeSuspension(note) };
}

function findDependencyObstacle(
  resource: Resource,
  {
    present,
    elsewhere,
    unread,
  }: {
    present: ReadonlySet<ResourceKey>;
    elsewhere: ReadonlyMap<ResourceKey, Resource>;
    unread: readonly string[];
  },
  blocked: ReadonlyMap<ResourceKey, Blocked>,
): Obstacle | undefined {
  for (const key of dependenciesOf(resource)) {
    const cause = blocked.get(key);
    const missed = elsewhere.get(key);
    if (missed !== undefined && !present.has(key))
      return { code: 'not-found', message: `it needs ${key}, which is ${explainElsewhere(missed)}` };
    if (cause === undefined && !present.has(key)) {
      const message = `it needs ${key}, which no manifest declares`;
      return unread.length === 0
        ? { code: 'not-found', message }
        : { code: 'dependency', message: `${message} that was read; not read yet: ${unread.join(', ')}` };
    }
    if (cause === undefined) continue;
    return cause.code === 'suspended'
      ? { code: 'suspended', message: `it needs ${key}, which is suspended` }
      : { code: 'dependency', message: `it needs ${key}, which is blocked` };
  }
  return undefined;
}

function findPathObstacle(
  mount: MountResource,
  collisions: ReturnType<typeof findPathCollisions>,
  input: DesiredInput,
): Obstacle | undefined {
  const problem = findPathProblem(mount, input.host, input.root);
  if (problem !== undefined) return { code: 'invalid-manifest', message: problem };
  const collision = collisions.get(resourceKey(mount));
  if (collision === undefined) return undefined;
  const { other, nested } = collision;
  const { file, line } = other.position;
  return {
    code: 'invalid-manifest',
    message: nested
      ? `spec.path ${mount.spec.path} and ${other.spec.path} of Mount/${other.metadata.name} (${file}:${line}) lie inside one another`
      : `spec.path ${mount.spec.path} is also that of Mount/${other.metadata.name} (${file}:${line})`,
    hint: 'give each Mount a path of its own',
  };
}

function resolve(resource: Resource, input: DesiredInput, desired: Desired): Obstacle | undefined {
  if (resource.kind === 'Image') {
    const { name } = resource.metadata;
    const image = input.resolved.get(name);
    if (image === undefined) return { code: 'unavailable', message: 'the image was not resolved' };
    if (image instanceof CimletError) return { code: image.code, message: image.message, hint: image.hint };
    desired.images.set(name, image);
    for (const message of image.warnings ?? []) desired.notes.push({ key: `Image/${name}`, message });
    return undefined;
  }
  const key = resourceKey(resource);
  if (resource.kind === 'Mount' && resource.spec.chain !== undefined) {
    const chain = desired.chains.get(`LayerChain/${resource.spec.chain}`);
    if (chain === undefined) throw new Error(`${key} was reached before its chain`);
    desired.chains.set(key, chain);
    return findChainObstacle(resource, chain, input.capabilities);
  }
  return deriveChain(resource, input, desired);
}

function assess(mount: MountResource, input: DesiredInput, desired: Desired): Obstacle | undefined {
  const chain = desired.chains.get(resourceKey(mount));
  if (chain === undefined) throw new Error(`${resourceKey(mount)} has no chain to show`);
  return findExpectationObstacle(mount, chain) ?? input.assessMount(mount, chain);
}
