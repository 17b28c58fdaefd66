/** Manifests and resolved images -> what should exist: the chain of every LayerChain and Mount, and what is blocked. */

import { CimletError } from '../errors.ts';
import type { Capabilities, ChainId, DiffId, LayerBlob, LayerFormat } from '../hosts/host.ts';
import { chainIds } from '../hosts/identity.ts';
import {
  type LayerChainResource,
  type MountResource,
  type Resource,
  type ResourceKey,
  resourceKey,
} from '../manifests/resources.ts';
import type { ResourceRecord } from '../state/records.ts';
import { findPathCollisions, findPathProblem, type HostKind } from './mount-paths.ts';
import { dependenciesOf, sortByDependency } from './resource-graph.ts';
import type { Blocked, Plan, ResolvedImage } from './types.ts';

export interface DesiredLayer {
  chainId: ChainId;
  diffId: DiffId;
  blob: LayerBlob;
  /** The Image it comes from. */
  image: string;
}

export interface DesiredChain {
  format: LayerFormat;
  /** Base first. */
  layers: DesiredLayer[];
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
  /** Undefined offline. */
  capabilities: Capabilities | undefined;
  host: HostKind;
  root: string;
  recordOf: (key: ResourceKey) => ResourceRecord | undefined;
  /** Asked for each Mount whose chain is known: what on the host stands in its way. */
  assessMount: (mount: MountResource, chain: DesiredChain) => Obstacle | undefined;
}

const CIM_FORMATS: readonly LayerFormat[] = ['ForkedCIM', 'BlockCIM'];
const WINDOWS_FORMATS: readonly LayerFormat[] = ['BlockCIM', 'ForkedCIM', 'WCIFS'];

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
  const present = new Set(input.resources.map(resourceKey));
  const mounts = input.resources.filter((resource) => resource.kind === 'Mount');
  const collisions = findPathCollisions(mounts, input.host);

  for (const resource of order) {
    const obstacle =
      findUnsupported(resource) ??
      findSuspension(resource) ??
      findDependencyObstacle(resource, present, desired.blocked) ??
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

function findUnsupported(resource: Resource): Obstacle | undefined {
  const [first] = resource.unsupported;
  if (first === undefined) return undefined;
  const fields = resource.unsupported.map(({ field }) => field).join(', ');
  return {
    code: 'not-supported-yet',
    message: `not supported yet: ${fields}`,
    hint: 'leave it out until a later release supports it',
    position: first.position,
  };
}

function findSuspension(resource: Resource): Obstacle | undefined {
  const { suspend } = resource.spec;
  if (suspend === undefined || suspend === false) return undefined;
  if (suspend === true) return { code: 'suspended', message: 'suspended' };
  const by = suspend.by === undefined ? '' : ` by ${suspend.by}`;
  return { code: 'suspended', message: `suspended${by}: ${suspend.reason}` };
}

function findDependencyObstacle(
  resource: Resource,
  present: ReadonlySet<ResourceKey>,
  blocked: ReadonlyMap<ResourceKey, Blocked>,
): Obstacle | undefined {
  for (const key of dependenciesOf(resource)) {
    if (!present.has(key))
      return { code: 'not-found', message: `it needs ${key}, which no manifest declares` };
    const cause = blocked.get(key);
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
  const problem = findPathProblem(mount.spec.path, input.host, input.root);
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
    return findFormatObstacle(chain.format, 'mount', input.capabilities);
  }
  return deriveChain(resource, input, desired);
}

function assess(mount: MountResource, input: DesiredInput, desired: Desired): Obstacle | undefined {
  const chain = desired.chains.get(resourceKey(mount));
  if (chain === undefined) throw new Error(`${resourceKey(mount)} has no chain to show`);
  return input.assessMount(mount, chain);
}

function deriveChain(
  resource: LayerChainResource | MountResource,
  input: DesiredInput,
  desired: Desired,
): Obstacle | undefined {
  const key = resourceKey(resource);
  const names =
    resource.kind === 'LayerChain'
      ? resource.spec.layers.flatMap(({ image }) => image ?? [])
      : resource.spec.image === undefined
        ? []
        : [resource.spec.image];
  const layers: Omit<DesiredLayer, 'chainId'>[] = [];
  let os: string | undefined;
  for (const name of names) {
    const image = desired.images.get(name);
    if (image === undefined) throw new Error(`${key} was reached before Image/${name}`);
    if (os !== undefined && image.platform.os !== os) {
      return {
        code: 'invalid-manifest',
        message: `spec.layers mixes layers for ${os} and for ${image.platform.os} (Image/${name})`,
      };
    }
    os = image.platform.os;
    for (const { diffId, blob } of image.layers) layers.push({ diffId, blob, image: name });
  }
  if (os === undefined || layers.length === 0) {
    return {
      code: 'invalid-manifest',
      message: `it has no layers: ${names.map((name) => `Image/${name}`).join(', ')} is empty`,
    };
  }
  const asked = resource.kind === 'LayerChain' ? resource.spec.format : undefined;
  const format = chooseFormat(os, asked, input.recordOf(key)?.facts.chain?.format, input.capabilities);
  const obstacle =
    findMisfit(os, format) ??
    findFormatObstacle(format, 'write', input.capabilities) ??
    (resource.kind === 'Mount' ? findFormatObstacle(format, 'mount', input.capabilities) : undefined);
  if (obstacle !== undefined) return obstacle;
  if (asked === undefined && input.capabilities === undefined) {
    desired.notes.push({ key, message: `format ${format} assumed: the host chooses it` });
  }
  const ids = chainIds(layers.map(({ diffId }) => diffId));
  desired.chains.set(key, {
    format,
    layers: layers.map((layer, index) => ({ ...layer, chainId: ids[index] as ChainId })),
  });
  return undefined;
}

/** What was asked for, else what the chain was made with, else what suits the image's os and the host best. */
function chooseFormat(
  os: string,
  asked: LayerFormat | undefined,
  recorded: LayerFormat | undefined,
  capabilities: Capabilities | undefined,
): LayerFormat {
  if (asked !== undefined) return asked;
  if (recorded !== undefined && findMisfit(os, recorded) === undefined) return recorded;
  if (os !== 'windows') return 'LCOW';
  if (capabilities === undefined) return 'ForkedCIM';
  const fitting = WINDOWS_FORMATS.find(
    (format) => capabilities[`${format}.write`].available && capabilities[`${format}.mount`].available,
  );
  return fitting ?? 'ForkedCIM';
}

function findMisfit(os: string, format: LayerFormat): Obstacle | undefined {
  if (os === 'windows') {
    if (format !== 'LCOW') return undefined;
    return {
      code: 'invalid-manifest',
      message: 'spec.format: LCOW holds Linux layers, and this image is for windows',
      hint: 'leave spec.format out, or set ForkedCIM',
    };
  }
  if (format === 'LCOW') return undefined;
  const family = CIM_FORMATS.includes(format) ? 'CIM formats hold' : `${format} holds`;
  return {
    code: 'invalid-manifest',
    message: `spec.format: ${family} Windows layers, and this image is for ${os}: its format is LCOW`,
    hint: 'leave spec.format out, or set LCOW, on a host that supports it (see cimlet doctor)',
  };
}

function findFormatObstacle(
  format: LayerFormat,
  ability: 'write' | 'mount',
  capabilities: Capabilities | undefined,
): Obstacle | undefined {
  const state = capabilities?.[`${format}.${ability}`];
  if (state === undefined || state.available) return undefined;
  return {
    code: 'unsupported-host',
    message: `this host can't ${ability} ${format} layers: ${state.reason ?? 'not available'}`,
    hint: state.hint,
  };
}
