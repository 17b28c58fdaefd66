/** The operations the command line calls, over one host and one state. */

import pLimit from 'p-limit';
import { CimletError } from '../errors.ts';
import type { Focus, Host, HostState } from '../hosts/host.ts';
import { KeyedLock } from '../hosts/keyed-lock.ts';
import type { ResolvedArchive } from '../images/archive.ts';
import type { Clock } from '../machines/drive-machine.ts';
import { type ImageResource, type Resource, type ResourceKey, resourceKey } from '../manifests/resources.ts';
import type { StateRecords } from '../state/records.ts';
import type { State } from '../state/state.ts';
import { resolveArchives } from './archives.ts';
import { canonicalJson } from './canonical.ts';
import type { Obstacle } from './desired.ts';
import { type ExecuteOptions, type Execution, executePlan } from './execute.ts';
import type { DiscardDamaged, FetchLayer, RecordImage, ResolveImage } from './perform-context.ts';
import { planApply, planDelete } from './plan.ts';
import { selectTargets } from './resource-graph.ts';
import type { Concurrency } from './schedule.ts';
import { cutRecords, cutSources, focusOn, reachesBeyond, type Scope, widenScope } from './scope.ts';
import { mergeStatus, type Status, type StatusOptions } from './status.ts';
import { describeSuspension, obstaclesOfSources } from './suspension.ts';
import type { DeclaredSource, Plan, ResolvedImage } from './types.ts';

/** Images resolved at the same time. */
const RESOLVING = 8;

/** Resources beyond which looking at everything, much of which is known from the last time, takes less than looking at each. */
const LARGEST_PART = 300;

export interface EngineServices {
  host: Host;
  state: State;
  resolveImage: ResolveImage;
  /** Absent where no image comes from a registry. */
  fetchLayer?: FetchLayer | undefined;
  recordImage?: RecordImage | undefined;
  discardDamaged?: DiscardDamaged | undefined;
  concurrency?: Concurrency | undefined;
  clock?: Clock | undefined;
}

export interface PlanRequest {
  /** No two declare the same resource. */
  sources: readonly DeclaredSource[];
  targets?: readonly ResourceKey[] | undefined;
  /** Names of sources of which nothing was read yet: what is missed may be declared there. */
  unread?: readonly string[] | undefined;
  /** By resource or, for removals, action: what must not be tried now, and why. */
  held?: ReadonlyMap<string, Obstacle> | undefined;
  /**
   * What may not be as it is declared; the rest is taken to be, and looked at only as far as this can touch it. Default:
   * anything may not be.
   */
  unsettled?: ReadonlySet<ResourceKey> | undefined;
}

/** A plan with what it was made from, so that exactly it can be executed. */
export interface Planned {
  plan: Plan;
  /** With the resources that were selected; none for a deletion. */
  sources: readonly DeclaredSource[];
  observed: HostState;
  /** What the plan is about; undefined for everything. The rest is as it is declared. */
  scope?: Scope | undefined;
}

export interface Engine {
  /** What the host shows, the mount points of these resources included. Writes nothing. */
  observe(resources: readonly Resource[], signal: AbortSignal): Promise<HostState>;
  plan(request: PlanRequest, signal: AbortSignal): Promise<Planned>;
  planDelete(
    request: { keys: readonly ResourceKey[]; revision: string },
    signal: AbortSignal,
  ): Promise<Planned>;
  /** Executes what was planned. Also with an empty plan: it cleans leftovers and settles conditions. */
  apply(planned: Planned, options: ExecuteOptions): Promise<Execution>;
  /** `isFollowed`: an agent is at work, and repairs what drifted. */
  status(signal: AbortSignal, options?: Pick<StatusOptions, 'isFollowed'>): Promise<Status>;
}

/** What a part of all resources names. */
interface Resolved {
  scope: Scope;
  images: ReadonlyMap<string, ResolvedImage | CimletError>;
  archives: ReadonlyMap<string, ResolvedArchive | CimletError>;
}

export function createEngine(services: EngineServices): Engine {
  const { host, state } = services;
  const locks = new KeyedLock();
  const observeFor = (resources: readonly Resource[], signal: AbortSignal, focus?: Focus) => {
    const paths = resources.flatMap((resource) => (resource.kind === 'Mount' ? [resource.spec.path] : []));
    return host.observe({ signal, paths: [...new Set(paths)], focus });
  };
  const observe: Engine['observe'] = (resources, signal) => observeFor(resources, signal);
  const resolve = (
    resources: readonly Resource[],
    held: ReadonlyMap<string, Obstacle>,
    signal: AbortSignal,
  ) =>
    Promise.all([
      resolveImages(
        resources.filter((resource) => !held.has(resourceKey(resource))),
        services.resolveImage,
        signal,
      ),
      resolveArchives(resources, signal),
    ]);

  const planAll = async (
    request: PlanRequest,
    records: StateRecords,
    signal: AbortSignal,
    part?: Resolved,
  ) => {
    const sources = selectResources(request, records);
    const resources = sources.flatMap((source) => source.resources);
    const rest = resources.filter((resource) => part?.scope.has(resourceKey(resource)) !== true);
    const [observed, others] = await Promise.all([
      observe(resources, signal),
      resolve(rest, request.held ?? new Map(), signal),
    ]);
    const resolved = new Map([...others[0], ...(part?.images ?? [])]);
    const archives = new Map([...others[1], ...(part?.archives ?? [])]);
    const plan = planApply({ ...request, resolved, archives, observed, records, root: host.root });
    return { plan, sources, observed };
  };
  /** Without a plan when all must be looked at. */
  const planPart = async (
    request: PlanRequest & { unsettled: ReadonlySet<ResourceKey> },
    records: StateRecords,
    signal: AbortSignal,
  ): Promise<{ planned?: Planned; resolved?: Resolved }> => {
    const { sources, unsettled, unread, held = new Map<string, Obstacle>() } = request;
    const scope = widenScope(unsettled, sources, records, host.kind);
    if (scope.size > LARGEST_PART) return {};
    const parts = cutSources(sources, scope);
    const resources = parts.flatMap((source) => source.resources);
    const [resolved, archives] = await resolve(resources, held, signal);
    const focus = focusOn(scope, resources, records, resolved, archives);
    const observed = await observeFor(resources, signal, focus);
    const known = cutRecords(records, scope, focus.layers);
    const plan = planApply({
      sources: parts,
      unread,
      held,
      resolved,
      archives,
      observed,
      records: known,
      root: host.root,
    });
    if (reachesBeyond(plan)) return { resolved: { scope, images: resolved, archives } };
    return { planned: { plan, sources, observed, scope } };
  };
  return {
    observe,
    plan: async (request, signal) => {
      const heldAlone = new Map<string, Obstacle>([...(request.held ?? []), ...findSuspensions(state)]);
      const held = new Map([...obstaclesOfSources(request.sources), ...heldAlone]);
      const records = state.records();
      const { unsettled, targets = [] } = request;
      if (unsettled === undefined || targets.length > 0)
        return planAll({ ...request, held }, records, signal);
      const touched = new Set([...unsettled, ...(heldAlone.keys() as Iterable<ResourceKey>)]);
      const part = await planPart({ ...request, held, unsettled: touched }, records, signal);
      return part.planned ?? planAll({ ...request, held }, records, signal, part.resolved);
    },
    planDelete: async ({ keys, revision }, signal) => {
      const observed = await observe([], signal);
      const plan = planDelete({ keys, observed, records: state.records(), revision });
      return { plan, sources: [], observed };
    },
    apply: (planned, options) => executePlan(planned, { ...services, locks }, options),
    status: async (signal, options) => {
      const observed = await observe([], signal);
      const suspensions = state.suspensions();
      return mergeStatus(state.records(), observed, new Date().toISOString(), { ...options, suspensions });
    },
  };
}

/** Plans with no host at hand: offline (`observed` undefined), or against an observation made elsewhere. */
export async function planElsewhere(
  request: PlanRequest,
  options: { observed: HostState | undefined; root: string; resolveImage: ResolveImage },
  signal: AbortSignal,
): Promise<Plan> {
  const { observed, root } = options;
  const resources = selectResources(request, undefined).flatMap((source) => source.resources);
  const [resolved, archives] = await Promise.all([
    resolveImages(resources, options.resolveImage, signal),
    resolveArchives(resources, signal),
  ]);
  return planApply({ ...request, resolved, archives, observed, records: undefined, root });
}

/** What was suspended on this host, whatever its manifest says. */
function findSuspensions(state: State): [string, Obstacle][] {
  return state.suspensions().map((suspension) => {
    const { key } = suspension;
    const message = describeSuspension(suspension);
    return [key, { code: 'suspended', message, hint: `to go on: cimlet resume ${key}` }];
  });
}

/** The sources with the resources that are targets, or that targets need; with all without targets. */
function selectResources(
  { sources, targets = [] }: PlanRequest,
  records: StateRecords | undefined,
): DeclaredSource[] {
  const known = new Set(records?.resources.map(({ kind, name }): ResourceKey => `${kind}/${name}`));
  const declared = sources.flatMap((source) => source.resources);
  const selected = new Set(selectTargets(declared, targets, (key) => known.has(key)));
  return sources.map((source) => ({
    ...source,
    resources: source.resources.filter((resource) => selected.has(resource)),
  }));
}

/** Resolves every Image that may be used, each source and platform once. An Image's failure is its own. */
export async function resolveImages(
  resources: readonly Resource[],
  resolveImage: ResolveImage,
  signal: AbortSignal,
): Promise<Map<string, ResolvedImage | CimletError>> {
  const limit = pLimit(RESOLVING);
  const shared = new Map<string, Promise<ResolvedImage | CimletError>>();
  const resolveOnce = (image: ImageResource) => {
    const { source, platform, digest, pullPolicy, foreignLayers, interval, policy, verify } = image.spec;
    const identity = canonicalJson([
      image.baseDirectory,
      source,
      platform,
      digest,
      pullPolicy,
      foreignLayers,
      interval,
      policy,
      verify,
    ]);
    const known = shared.get(identity);
    if (known !== undefined) return known;
    const resolving = limit(() => resolveOrExplain(image, resolveImage, signal));
    shared.set(identity, resolving);
    return resolving;
  };
  const images = resources.filter((resource) => resource.kind === 'Image');
  const wanted = images.filter(({ spec }) => !spec.suspend);
  return new Map(
    await Promise.all(wanted.map(async (image) => [image.metadata.name, await resolveOnce(image)] as const)),
  );
}

async function resolveOrExplain(
  image: ImageResource,
  resolveImage: ResolveImage,
  signal: AbortSignal,
): Promise<ResolvedImage | CimletError> {
  try {
    return await resolveImage(image, signal);
  } catch (error) {
    if (error instanceof CimletError && error.code !== 'cancelled') return error;
    throw error;
  }
}
