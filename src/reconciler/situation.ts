/** What was observed and what is recorded, indexed for planning. */

import type {
  ChainId,
  HostState,
  LayerFormat,
  LayerRef,
  ObservedLayer,
  ObservedMerge,
  ObservedMount,
  ObservedSnapshot,
  VolumeGuid,
} from '../hosts/host.ts';
import { type Resource, type ResourceKey, resourceKey } from '../manifests/resources.ts';
import type { NamedSnapshot } from '../state/named-snapshots.ts';
import type { MountRecord, ResourceRecord, SnapshotRecord, StateRecords } from '../state/records.ts';
import { digestOf } from './canonical.ts';
import { comparablePlace, type HostKind } from './mount-paths.ts';

export interface Situation {
  /** Undefined offline. */
  observed: HostState | undefined;
  host: HostKind;
  root: string;
  layers: ReadonlyMap<string, ObservedLayer>;
  /** By `mergeId` of the topmost layer. */
  merges: ReadonlyMap<string, ObservedMerge>;
  /** Merged CIMs that the records say were written. */
  mergedBefore: ReadonlySet<string>;
  mounts: ReadonlyMap<VolumeGuid, ObservedMount>;
  /** What is mounted by us, by comparable path. */
  mountedAt: ReadonlyMap<string, ObservedMount>;
  /** Snapshots by key. */
  scratches: ReadonlyMap<string, ObservedSnapshot>;
  /** False when planning for a host whose state database isn't at hand: then what is there counts as applied. */
  recordsKnown: boolean;
  resources: ReadonlyMap<ResourceKey, ResourceRecord>;
  snapshots: ReadonlyMap<string, SnapshotRecord>;
  mountRecords: ReadonlyMap<VolumeGuid, MountRecord>;
  /** Snapshots that somebody gave a name. */
  names: readonly NamedSnapshot[];
}

export function snapshotId({ format, chainId }: LayerRef): string {
  const known = snapshotIds[format].get(chainId);
  if (known !== undefined) return known;
  if (snapshotIds[format].size >= MOST_IDS) snapshotIds[format].clear();
  const id = `Snapshot/${format}/${chainId}`;
  snapshotIds[format].set(chainId, id);
  return id;
}

/** A plan asks for that of each of thousands of layers some twenty times: made anew, they would be most of its garbage. */
const snapshotIds: Record<LayerFormat, Map<ChainId, string>> = {
  ForkedCIM: new Map(),
  BlockCIM: new Map(),
  WCIFS: new Map(),
  LCOW: new Map(),
};
/** When there are more, all are forgotten: most are asked for no longer. */
const MOST_IDS = 50_000;

/** Names the merged CIM on a topmost layer. */
export function mergeId(top: LayerRef): string {
  return `Merge/${top.format}/${top.chainId}`;
}

/** By spec, which never changes: an unchanged file declares the same one in the next revision. */
const intentDigests = new WeakMap<Resource['spec'], { prune: boolean; digest: string }>();

/** Identifies what a resource asks for: its spec and whether it may be pruned; not labels and comments. */
export function intentDigest(resource: Resource): string {
  const { spec } = resource;
  const prune = mayPrune(resource);
  const known = intentDigests.get(spec);
  if (known?.prune === prune) return known.digest;
  const digest = digestOf({ spec, prune });
  intentDigests.set(spec, { prune, digest });
  return digest;
}

export function mayPrune(resource: Resource): boolean {
  return resource.metadata.annotations?.['cimlet.dev/prune'] !== 'disabled';
}

export function indexSituation(
  observed: HostState | undefined,
  records: StateRecords | undefined,
  root: string,
): Situation {
  const host = observed?.host.kind ?? 'offline';
  const mounts = observed?.mounts ?? [];
  return {
    observed,
    host,
    root: observed?.root ?? root,
    layers: indexLayers(observed?.layers ?? []),
    merges: indexMerges(observed),
    mergedBefore: new Set(
      records?.resources.flatMap(({ facts: { chain } }) => {
        const chainId = chain?.merged === true ? chain.chainIds.at(-1) : undefined;
        return chain === undefined || chainId === undefined
          ? []
          : [mergeId({ chainId, format: chain.format })];
      }),
    ),
    mounts: new Map(mounts.map((mount) => [mount.volumeGuid, mount])),
    mountedAt: new Map(
      mounts.filter(({ state }) => state === 'mounted').map((mount) => [comparablePlace(mount, host), mount]),
    ),
    scratches: new Map(observed?.snapshots.map((snapshot) => [snapshot.key, snapshot])),
    recordsKnown: records !== undefined,
    resources: new Map(
      records?.resources.map((record) => [resourceKey({ kind: record.kind, metadata: record }), record]),
    ),
    snapshots: indexLayers(records?.snapshots ?? []),
    mountRecords: new Map(records?.mounts.map((record) => [record.volumeGuid, record])),
    names: records?.names ?? [],
  };
}

/** By list, which stays the same one for as long as nothing in it changes. */
const indexes = new WeakMap<readonly LayerRef[], ReadonlyMap<string, LayerRef>>();

/** Layers, or what is recorded of them, by `snapshotId`; the same index for the same list. */
export function indexLayers<T extends LayerRef>(list: readonly T[]): ReadonlyMap<string, T> {
  const known = indexes.get(list);
  if (known !== undefined) return known as ReadonlyMap<string, T>;
  const index = new Map(list.map((each) => [snapshotId(each), each]));
  indexes.set(list, index);
  return index;
}

/** What the host has merged, by `mergeId` of the topmost layer. */
export function indexMerges(observed: HostState | undefined): Map<string, ObservedMerge> {
  return new Map(
    observed?.merges.flatMap((merge) => {
      const chainId = merge.chain.at(-1);
      return chainId === undefined ? [] : [[mergeId({ chainId, format: merge.format }), merge] as const];
    }),
  );
}
