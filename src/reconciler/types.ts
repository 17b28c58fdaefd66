/** The plan and what executing it reports: plain data, the contract between reconciler, machines and command line. */

import type {
  ChainId,
  Digest,
  HostState,
  LayerBlob,
  LayerFormat,
  LayerRef,
  MergeRequest,
  MountRequest,
  Progress,
  SnapshotRequest,
  UnpackRequest,
  VolumeGuid,
} from '../hosts/host.ts';
import type {
  InvalidResource,
  Kind,
  Resource,
  ResourceKey,
  SourceFile,
  SourcePosition,
} from '../manifests/resources.ts';
import type { SuspensionNote } from './suspension.ts';

/** What one source of manifests declares now. */
export interface DeclaredSource {
  /** Names where the manifests came from (`sourceIdOf`). */
  id: string;
  revision: string;
  resources: readonly Resource[];
  /** Declared, but not validly: they are left as they are, and what depends on them waits. */
  invalid?: readonly InvalidResource[] | undefined;
  /** Declared for other hosts: here they are as if they weren't, and only said. */
  elsewhere?: readonly Resource[] | undefined;
  /** Whether what it declared before and no longer does is removed; with any true, layers nobody needs go too. */
  prune: boolean;
  /** What it declares stays as it is. */
  suspended?: SuspensionNote | undefined;
}

export type Verb = 'create' | 'change' | 'replace' | 'repair' | 'delete';

/** Machine-readable; the schema of `plan -o json` lists them too. */
export type ReasonCode =
  | 'new'
  | 'needed-by'
  | 'spec-changed'
  | 'image-changed'
  | 'layers-changed'
  | 'path-changed'
  | 'view-changed'
  | 'layer-missing'
  | 'file-missing'
  | 'file-size'
  | 'file-corrupt'
  | 'snapshot-folder-missing'
  | 'parent-missing'
  | 'parent-rebuilt'
  | 'builder-changed'
  | 'seal-changed'
  | 'footer-changed'
  | 'merge-missing'
  | 'source-changed'
  | 'interrupted'
  | 'unmounted'
  | 'covered'
  | 'removed-from-manifests'
  | 'delete-requested'
  | 'unreferenced';

export interface Reason {
  code: ReasonCode;
  message: string;
}

export type { ResolvedImage } from '../images/types.ts';

/** One durable side effect, as data. A machine owns its retries and its order. */
export type Work =
  | { do: 'resolveImage'; image: string; digest: Digest; blobs: LayerBlob[] }
  | { do: 'buildLayer'; request: UnpackRequest }
  | { do: 'mergeChain'; request: MergeRequest }
  | { do: 'removeMerge'; top: LayerRef }
  | { do: 'recordChain'; chain: string; format: LayerFormat; chainIds: ChainId[]; merged?: true }
  | {
      do: 'mountView';
      request: MountRequest;
      /** Prepared first: what takes the writes. */
      snapshot?: SnapshotRequest;
      /** Taken away first: the view at the old path or of the old content. */
      replaces?: VolumeGuid;
    }
  | {
      do: 'dismountView';
      volumeGuid: VolumeGuid;
      path: string;
      /** Key of the snapshot that goes with it. */
      snapshot?: string;
    }
  | { do: 'removeLayer'; ref: LayerRef }
  | { do: 'forget'; key: ResourceKey };

export type ActionKind = Kind | 'Snapshot' | 'Merge';

export interface PlannedAction {
  /** `Image/app`, `LayerChain/app`, `Mount/app`, `Snapshot/<format>/<chain ID>`, or `Merge/<format>/<chain ID>`. */
  id: string;
  kind: ActionKind;
  /** Resource name, or the chain ID of a snapshot or of a merged chain's topmost layer. */
  name: string;
  verb: Verb;
  /** True when the host moved away from what was applied, false when the manifests (or the image) changed. */
  drift: boolean;
  reasons: Reason[];
  /** Bytes of layer blobs that will be read (create, repair) or bytes on disk that will be freed (delete). */
  bytes: number;
  /** One line of facts: path, digest, layers, format. */
  detail: string;
  /** Ids of the actions that must succeed first; of a layer's image, only the layer's own blob has to be here. */
  dependsOn: string[];
  /** Of a snapshot or merged CIM: the first resource, in plan order, that needs it; its retry and timeout apply. */
  neededBy?: ResourceKey | undefined;
  work: Work;
}

/** A resource that cannot go on; it and what depends on it get no action. */
export interface Blocked {
  key: ResourceKey;
  /** An ErrorCode, or `internal` (a bug), `dependency`, `suspended`. */
  code: string;
  message: string;
  hint?: string | undefined;
  position?: SourcePosition | undefined;
  /** It failed and is tried again by itself; ISO 8601. */
  retryAt?: string | undefined;
}

export interface Plan {
  formatVersion: 1;
  /** What the plan was made for. */
  revision: string;
  mode: 'apply' | 'delete';
  host: { kind: HostState['host']['kind'] | 'offline'; root: string };
  actions: PlannedAction[];
  blocked: Blocked[];
  /** True but worth knowing: fallbacks taken, foreign things seen, resources kept. */
  notes: {
    key?: ResourceKey | undefined;
    message: string;
    /** Present for drift that is only reported (`driftPolicy: Report`). */
    drift?: true | undefined;
  }[];
  summary: Record<Verb, number> & { drift: number; blocked: number; unchanged: number; bytes: number };
}

/** `plan --out`: the plan, with what it must be checked against when it is applied. */
export interface SavedPlan {
  formatVersion: 1;
  plan: Plan;
  inputs: { arguments: string[]; files: SourceFile[]; targets: string[]; prune: boolean };
  /** sha256 over the plan's actions in canonical form. */
  fingerprint: string;
}

export type { Condition, ConditionType } from '../state/records.ts';

/** What executing a plan reports as it happens. */
export type ExecutionEvent =
  | { type: 'action.started'; action: PlannedAction }
  | ({ type: 'action.progressed'; action: PlannedAction } & Progress)
  | { type: 'action.retrying'; action: PlannedAction; attempt: number; delayMs: number; error: Error }
  | { type: 'action.warned'; action: PlannedAction; message: string }
  | { type: 'action.succeeded'; action: PlannedAction; durationMs: number; message?: string | undefined }
  | { type: 'action.failed'; action: PlannedAction; error: Error }
  | { type: 'action.skipped'; action: PlannedAction; because: string };

export interface ExecutionResult {
  succeeded: number;
  failed: { action: PlannedAction; error: Error }[];
  skipped: { action: PlannedAction; because: string }[];
}
