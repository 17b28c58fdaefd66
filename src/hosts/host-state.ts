/** What a host says when it is looked at (`Host.observe`), and what may be asked of it. */

import type {
  Capabilities,
  ChainId,
  CommittedLayer,
  LayerRef,
  MergedChain,
  MountedView,
  SnapshotRequest,
  VolumeGuid,
} from './host.ts';

/** A fault found by observation: the layer must be built again. Codes are machine-readable plan reasons. */
export interface LayerFault {
  code:
    | 'file-missing'
    | 'file-size'
    | 'file-corrupt'
    | 'snapshot-folder-missing'
    | 'parent-missing'
    | 'parent-rebuilt'
    | 'builder-changed';
  message: string;
  path?: string | undefined;
}

export interface ObservedLayer extends CommittedLayer {
  faults: LayerFault[];
}

/**
 * A fault of a merged CIM. `source-missing` (a layer is gone or damaged) passes when that layer is built again as it
 * was; with any other the chain must be merged again.
 */
export interface MergeFault {
  code:
    | 'file-missing'
    | 'file-size'
    | 'file-corrupt'
    | 'source-missing'
    | 'source-changed'
    | 'builder-changed';
  message: string;
  path?: string | undefined;
}

export interface ObservedMerge extends MergedChain {
  faults: MergeFault[];
}

export interface ObservedMount extends MountedView {
  /** `missing`: recorded as ours but no longer there; `covered`: something else is mounted on top of it. */
  state: 'mounted' | 'missing' | 'covered';
  message?: string | undefined;
  /** What the Host Compute Service takes for the storage of a container in it (Container.Storage); on Windows, while it is mounted. */
  hcsStorage?: HcsStorage | undefined;
}

/** In the service's own words. `Path`: of the scratch, or of the view in its guest. */
export interface HcsStorage {
  Layers: { Id: string; Path: string }[];
  Path?: string | undefined;
}

/** What is at a path somebody wants to mount on, seen without touching it. */
export interface PathState {
  kind:
    | 'absent'
    | 'empty-directory'
    | 'directory'
    | 'file'
    | 'symlink'
    | 'foreign-mount'
    | 'own-mount'
    | 'unreadable';
  detail?: string | undefined;
}

export interface Leftover {
  path: string;
  reason: string;
  bytes: number;
}

/** A compute system that runs on this machine: a Windows container, or a virtual machine. */
export interface ObservedComputeSystem {
  id: string;
  /** As the Host Compute Service spells it: `Container` or `VirtualMachine`. */
  type: string;
  /** The program that made it. */
  owner?: string | undefined;
  state?: string | undefined;
  guestOs?: string | undefined;
  /** The virtual machine it runs in. */
  hostedBy?: string | undefined;
  /** What it says it uses of this root. */
  uses: { layers: LayerRef[]; mounts: VolumeGuid[]; snapshots: string[] };
}

/** A CIM that is mounted as a volume. */
export interface ObservedCimVolume {
  path: string;
  /** What of this root it is; none: it is somebody else's, and never touched. */
  ours?: string | undefined;
}

export interface HostState {
  formatVersion: 1;
  host: {
    kind: 'windows' | 'embedded' | 'memory';
    platform: string;
    osVersion: string;
    architecture: string;
  };
  root: string;
  capabilities: Capabilities;
  /** The very same list as before when that is known to say the same. */
  layers: readonly ObservedLayer[];
  merges: ObservedMerge[];
  mounts: ObservedMount[];
  snapshots: ObservedSnapshot[];
  /** Of hosts that have such. `unknown`: why they can't be seen. */
  computeSystems?: { running: ObservedComputeSystem[]; unknown?: string | undefined } | undefined;
  /** Of hosts that have such. */
  cimVolumes?: ObservedCimVolume[] | undefined;
  /** Why there are no `cimVolumes`, on a host that should have them. */
  cimVolumesUnknown?: string | undefined;
  /** One entry for each path asked for. */
  paths: Record<string, PathState>;
  leftovers: Leftover[];
  /** Free bytes on the file system that holds the root; undefined where the host can't tell. */
  freeBytes?: number | undefined;
}

export interface ObserveOptions {
  signal: AbortSignal;
  /** Mount points to look at as well. */
  paths?: readonly string[] | undefined;
  /** Only this. What isn't looked at is left out, which says nothing of it. Default: everything. */
  focus?: Focus | undefined;
}

/** A part of what is under a root. Leftovers are in none, nor are other volumes. */
export interface Focus {
  /** In every format, and the merged CIMs on them. Who names one names all layers below it. */
  layers: readonly ChainId[];
  mounts: readonly VolumeGuid[];
  /** Keys. */
  snapshots: readonly string[];
}

export interface ObservedSnapshot extends SnapshotRequest {
  chain: ChainId[];
  /** What it takes on disk itself, without its chain. */
  bytes: number;
  /** Files, directories and whiteouts that it holds itself. */
  files: number;
  /** Why it can't be mounted or committed, as a sentence without a full stop. */
  fault?: string | undefined;
}
