/** What the state database keeps: what was applied and what is being done to the host. Never secrets. */

import type {
  ChainId,
  DiffId,
  Digest,
  LayerFormat,
  MountAccess,
  ViewKind,
  VolumeGuid,
} from '../hosts/host.ts';
import type { Kind, ResourceKey } from '../manifests/resources.ts';
import type { NamedSnapshot } from './named-snapshots.ts';

export type ConditionType = 'Ready' | 'Reconciling' | 'Stalled';

export interface Condition {
  type: ConditionType;
  status: 'True' | 'False';
  reason: string;
  message: string;
  /** ISO 8601. */
  lastTransitionTime: string;
  observedGeneration: number;
}

/** How an attempt at a resource ended. */
export interface OutcomeRecord {
  result: 'Ready' | 'Retrying' | 'Stalled';
  reason: string;
  message: string;
  revision: string;
  /** How often in a row. */
  count: number;
  firstTime: string;
  lastTime: string;
}

export interface ImageFacts {
  /** What led to it, where a registry did. */
  reference?: string | undefined;
  digest: Digest;
  platform: { os: string; architecture: string; osVersion?: string | undefined };
  layers: { diffId: DiffId; digest: Digest; bytes: number }[];
  bytes: number;
}

export interface ChainFacts {
  format: LayerFormat;
  /** Base first. */
  chainIds: ChainId[];
  /** Present and true when it is shown through a merged CIM. */
  merged?: boolean | undefined;
  /** Of the merged CIM, or of the only layer, when that is sealed. */
  rootHash?: string | undefined;
}

export interface MountFacts {
  volumeGuid: VolumeGuid;
  path: string;
  view: ViewKind;
  access: MountAccess;
  /** That it is attached to; the path is its guest's then. */
  utilityVM?: string | undefined;
  /** Of what was shown when it was mounted, when that was sealed. */
  rootHash?: string | undefined;
  /** ISO 8601. */
  since: string;
}

/** What became of a resource when it was last applied. A Mount has a chain too (its own, if it names an image). */
export interface ResourceFacts {
  image?: ImageFacts;
  /** Layers of what an Image resolved to last, until all of them were here. */
  fetching?: Digest[];
  chain?: ChainFacts;
  mount?: MountFacts;
}

export type DeletionPolicy = 'Delete' | 'Orphan';

/** What a resource asks for, recorded before the host is touched for it. */
export interface ResourceIntent {
  kind: Kind;
  name: string;
  /** Names where its manifests came from; only that source prunes it. */
  sourceId: string;
  spec: unknown;
  specDigest: string;
  /** Resources it refers to or depends on. */
  dependencies: ResourceKey[];
  revision: string;
  /** False when `cimlet.dev/prune: disabled`. */
  prune: boolean;
  deletionPolicy: DeletionPolicy;
}

export interface ResourceRecord extends ResourceIntent {
  /** Counts the specs seen. */
  generation: number;
  /** Digest of the spec last applied in full; absent until the first success. */
  appliedDigest?: string | undefined;
  appliedRevision?: string | undefined;
  facts: ResourceFacts;
  conditions: Condition[];
  /** The last few, the latest first. */
  history: OutcomeRecord[];
  /** ISO 8601. */
  createdAt: string;
  updatedAt: string;
}

export interface SnapshotIntent {
  chainId: ChainId;
  format: LayerFormat;
  diffId: DiffId;
  parent?: ChainId | undefined;
  /** For whom it is made. */
  neededBy?: ResourceKey | undefined;
}

export interface SnapshotRecord extends SnapshotIntent {
  /** `intended`: may be half made; `removing`: may be half gone. */
  state: 'intended' | 'committed' | 'removing';
  bytes: number;
  builder?: string | undefined;
  createdAt: string;
  committedAt?: string | undefined;
}

export interface MountIntent {
  volumeGuid: VolumeGuid;
  /** The Mount resource. */
  name: string;
  path: string;
  /** The topmost layer. */
  chainId: ChainId;
  format: LayerFormat;
  view: ViewKind;
  access: MountAccess;
}

export interface MountRecord extends MountIntent {
  state: 'intended' | 'mounted' | 'removing';
  /** When it reached its state, ISO 8601. */
  since: string;
}

export interface EventRecord {
  key: string;
  type: 'Normal' | 'Warning';
  reason: string;
  message: string;
  count: number;
  firstTime: string;
  lastTime: string;
}

/** An event that somebody may not have been told yet. */
export interface News extends EventRecord {
  /** Its place in the order of news: an event that happens again soon keeps it, one that does after long gets a new one. */
  seq: number;
}

/** Of a source of manifests, by its name in cimlet.yaml. */
export type SourceKey = `Source/${string}`;

/** A resource or a source that is left as it is because somebody said so on this host, whatever its manifest says. */
export interface Suspension {
  key: ResourceKey | SourceKey;
  reason: string;
  /** Who said so. */
  by: string;
  /** ISO 8601. */
  since: string;
}

/** Everything a plan needs to know of the past. A list that says the same as before is the very same one. */
export interface StateRecords {
  resources: readonly ResourceRecord[];
  snapshots: readonly SnapshotRecord[];
  mounts: readonly MountRecord[];
  /** Snapshots that somebody gave a name. */
  names: readonly NamedSnapshot[];
}
