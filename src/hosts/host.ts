/**
 * The Host port: everything cimlet asks of the machine it runs on. Three implementations (windows, embedded, memory)
 * pass one conformance suite (test/conformance/host.ts); nothing above this file knows which one it talks to.
 *
 * Rules every host keeps:
 * - A chain is always given base first; a host that needs topmost first reverses it inside.
 * - Every method is idempotent: repeating it after success, failure or a crash halfway reaches the same state.
 * - A layer is invisible to `observe().layers` as committed until `commitLayer` returned.
 * - Whatever a crash leaves behind is recognisable (`tmp-*`, `rm-*`, derived volume GUIDs), is listed in
 *   `observe().leftovers`, and `cleanLeftovers` removes exactly that.
 * - A method behind a capability that is not available throws `unsupported-host` with the capability's reason.
 * - Long methods obey `context.signal` (they throw `cancelled`) and report through `context.progress`.
 */

import type { HostState, Leftover, ObserveOptions } from './host-state.ts';

export type * from './host-state.ts';

declare const brand: unique symbol;
export type ChainId = string & { readonly [brand]: 'ChainId' };
export type DiffId = string & { readonly [brand]: 'DiffId' };
/** Digest of the bytes as stored or transferred (compressed). */
export type Digest = string & { readonly [brand]: 'Digest' };
export type VolumeGuid = string & { readonly [brand]: 'VolumeGuid' };

export type LayerFormat = 'ForkedCIM' | 'BlockCIM' | 'WCIFS' | 'LCOW';
export type ViewKind = 'Kernel' | 'Extracted';
export type MountAccess = 'ReadOnly' | 'ReadWrite';

export type Capability =
  | `${LayerFormat}.write`
  | `${LayerFormat}.mount`
  | 'merge'
  | 'seal'
  | 'view.Kernel'
  | 'view.Extracted'
  | 'active'
  | 'commit'
  | 'export'
  | 'utilityVM';

export interface CapabilityState {
  available: boolean;
  /** Why not (or which fallback is used), as a sentence without a full stop. */
  reason?: string;
  /** What an operator can do about it. */
  hint?: string;
}

export type Capabilities = Record<Capability, CapabilityState>;

export interface Progress {
  phase:
    | 'resolving'
    | 'downloading'
    | 'unpacking'
    | 'committing'
    | 'merging'
    | 'mounting'
    | 'extracting'
    | 'exporting'
    | 'removing';
  /** Bytes of input handled so far and in all. */
  done: number;
  total: number;
  /** Where several blobs are handled at a time: the one that this is about. */
  blob?: { digest: Digest; done: number; total: number };
}

export interface EffectContext {
  signal: AbortSignal;
  progress?: (progress: Progress) => void;
  /** Something an operator should know of although it is no failure; a sentence without a full stop. */
  warn?: (message: string) => void;
}

/** A layer blob in a file: the whole of it, or a part (a member of an OCI layout or docker archive tar). */
export interface LayerBlob {
  file: string;
  offset: number;
  size: number;
  digest: Digest;
  mediaType: string;
  /** Whose it is, where a registry has the image: `docker.io/library/app:1.4.2`. */
  image?: string | undefined;
}

export interface UnpackRequest {
  chainId: ChainId;
  diffId: DiffId;
  /** Chain IDs of the layers below, base first; all committed in `format`. */
  parents: readonly ChainId[];
  format: LayerFormat;
  blob: LayerBlob;
  /** Seal it, so that it has a root hash. Default: no. */
  seal?: boolean | undefined;
  /** End it with a VHD footer, so that it can be attached as a disk. Default: no. */
  vhdFooter?: boolean | undefined;
}

export interface LayerRef {
  chainId: ChainId;
  format: LayerFormat;
}

export interface CommittedLayer extends LayerRef {
  diffId: DiffId;
  parent?: ChainId | undefined;
  /** Bytes the layer takes on disk, without what it shares with its parents. */
  bytes: number;
  files: number;
  /** Identifies the code that wrote it; layers forked from one another must agree. */
  builder: string;
  /** Seal's root hash, `sha256:...`, when sealed. */
  rootHash?: string | undefined;
  /** Present and true when it ends with a VHD footer. */
  vhdFooter?: boolean | undefined;
}

/** The most layers that one merged CIM can be made of. */
export const MAX_MERGED_LAYERS = 128;

export interface MergeRequest {
  /** Base first, two layers or more. */
  chain: readonly ChainId[];
  format: LayerFormat;
  /** Seal the merged CIM; all its layers must be sealed. Default: no. */
  seal?: boolean | undefined;
  vhdFooter?: boolean | undefined;
}

/** A merged CIM. There is at most one for a topmost layer and format, which therefore name it. */
export interface MergedChain {
  /** Base first. */
  chain: ChainId[];
  format: LayerFormat;
  /** Bytes on disk: metadata only. */
  bytes: number;
  /** Identifies the code that wrote it. */
  builder: string;
  /** Seal's root hash, `sha256:...`, when sealed. */
  rootHash?: string | undefined;
  /** Present and true when it ends with a VHD footer. */
  vhdFooter?: boolean | undefined;
}

export interface MountRequest {
  volumeGuid: VolumeGuid;
  path: string;
  /** Base first. */
  chain: readonly ChainId[];
  format: LayerFormat;
  access: MountAccess;
  view: ViewKind;
  /** With `ReadWrite`: key of the active snapshot, prepared on the same chain and format, whose scratch takes the writes. */
  snapshot?: string | undefined;
  /** Attach it to this running utility VM instead of showing it to processes of the host. */
  utilityVM?: string | undefined;
  /** Root hash that what is shown must have: the merged CIM's, or a single layer's. */
  expectedRootHash?: string | undefined;
}

export interface MountedView {
  volumeGuid: VolumeGuid;
  path: string;
  /** The topmost layer; empty when it shows a snapshot without parents. */
  chainId: ChainId;
  format: LayerFormat;
  view: ViewKind;
  access: MountAccess;
  /** Of a writable one: the snapshot that takes the writes. */
  snapshot?: string | undefined;
  /** The utility VM that it is attached to; the path is its guest's then. */
  utilityVM?: string | undefined;
  /** Root hash of what was shown when it was mounted, when that was sealed. */
  rootHash?: string | undefined;
}

/** Where an active snapshot's writes go. */
export interface ScratchOptions {
  /** The most it can hold. Default: what the host's formats have by custom; without custom, what the file system holds. */
  bytes?: number | undefined;
  /** Without a file system: whoever attaches it makes one. */
  unformatted?: boolean | undefined;
  /** Absolute path of an existing directory that holds it instead of the root. */
  location?: string | undefined;
  /** Key of another active snapshot, in whose scratch it is kept. */
  shareWith?: string | undefined;
  /** With a disk beside it, `vm\\sandbox.vhdx`, that a utility VM can boot the chain's system with. */
  utilityVM?: boolean | undefined;
}

/** A snapshot that isn't a layer yet: writable (active), or a read-only one handed out by key (view). */
export interface SnapshotRequest {
  key: string;
  kind: 'active' | 'view';
  /** Base first; all committed in `format`. Empty: parentless. */
  chain: readonly ChainId[];
  format: LayerFormat;
  scratch?: ScratchOptions | undefined;
}

/** What commit makes of an active snapshot besides the layer itself; as in UnpackRequest. */
export interface CommitOptions {
  seal?: boolean | undefined;
  vhdFooter?: boolean | undefined;
  /** Told the layer's chain ID once that is known, and before the snapshot goes. */
  onChainId?: ((chainId: ChainId) => void) | undefined;
}

export interface DismountOptions {
  /** Throws `busy`, and takes nothing away, when `mount` would be refused what is written to while others still have it mounted. */
  toShowAgain?: boolean | undefined;
}

/** How others would mount a snapshot, as containerd's snapshotters say it. */
export interface SnapshotMount {
  type: string;
  source: string;
  options: string[];
}

/** What a snapshot takes itself, without its chain. */
export interface SnapshotUsage {
  bytes: number;
  /** Files, directories and whiteouts. */
  files: number;
}

export interface Host {
  readonly kind: HostState['host']['kind'];
  readonly root: string;

  /** Probed once; never throws for what is merely missing. */
  capabilities(): Promise<Capabilities>;

  /** Looks, changes nothing at all (not even an empty directory). */
  observe(options: ObserveOptions): Promise<HostState>;

  /**
   * Decodes, verifies (digest and diff ID) and writes one layer under temporary names, durable but not visible.
   * Sealing and footer belong to writing, since a committed layer never changes: write, close, seal, footer, commit.
   * Throws `corrupt` for bad input with path and offset, `failed-precondition` for a missing or faulty parent.
   * A committed layer that has no faults and the seal and footer asked for (or more) is left alone; any other is
   * written anew, and commit puts it in the old one's place, under its children and mounts.
   */
  unpackLayer(request: UnpackRequest, context: EffectContext): Promise<void>;

  /**
   * Makes an unpacked layer visible (rename); an already committed one is returned as it is. Throws
   * `failed-precondition` when it was neither.
   */
  commitLayer(ref: LayerRef, context: EffectContext): Promise<CommittedLayer>;

  /**
   * Rename to `rm-*`, then delete, the merged CIM on it as well. Refuses (`failed-precondition`) while a child layer or
   * a mount needs it. Missing is fine.
   */
  removeLayer(ref: LayerRef, context: EffectContext): Promise<void>;

  /**
   * Writes the metadata-only merged CIM of a chain beside its top layer, through which a BlockCIM chain of two layers
   * or more is shown. One without faults that has the seal and footer asked for (or more) is left alone; any other is
   * replaced, under its mounts. Throws `invalid-manifest` for fewer than two layers, more than `MAX_MERGED_LAYERS`, or
   * a format that isn't merged, `failed-precondition` when a layer isn't committed, or is damaged, or only some layers are sealed, or the seal is
   * asked for and none is.
   */
  mergeChain(request: MergeRequest, context: EffectContext): Promise<MergedChain>;

  /** Removes the merged CIM on a topmost layer. Refuses (`failed-precondition`) while a mount needs it. Missing is fine. */
  removeMerge(top: LayerRef, context: EffectContext): Promise<void>;

  /**
   * Writes a layer (its diff against its parent) as an uncompressed layer tar, under a temporary name beside `file`
   * first; a file that is there is replaced. Importing the tar on the same parents gives the same files. Throws
   * `failed-precondition` for a layer that isn't committed, or is damaged.
   */
  exportLayer(ref: LayerRef, file: string, context: EffectContext): Promise<void>;

  /**
   * Makes an active snapshot or a view on a chain. One of that key with the same request is left alone; with another
   * request: `already-exists`. Throws `failed-precondition` when a layer isn't committed, or is damaged.
   */
  prepareSnapshot(request: SnapshotRequest, context: EffectContext): Promise<void>;

  /** How others would mount it. Throws `not-found`. */
  snapshotMounts(key: string, context: EffectContext): Promise<SnapshotMount[]>;

  /** Counts what was written to it, which `observe` only does where that is quick. Throws `not-found`. */
  snapshotUsage(key: string, context: EffectContext): Promise<SnapshotUsage>;

  /** Writes what an active snapshot changed in its chain as an uncompressed layer tar, as `exportLayer` does. */
  exportSnapshot(key: string, file: string, context: EffectContext): Promise<DiffId>;

  /**
   * Turns an active snapshot into a committed layer of its chain's format, named by the chain ID that its diff gives,
   * and removes it. Refuses (`failed-precondition`) while it is mounted, and views. Throws `not-found`.
   */
  commitSnapshot(key: string, options: CommitOptions, context: EffectContext): Promise<CommittedLayer>;

  /** Its scratch goes with it. Refuses (`failed-precondition`) while a mount or another's scratch needs it. Missing is fine. */
  removeSnapshot(key: string, context: EffectContext): Promise<void>;

  /**
   * Shows a chain at a path. Creates missing directories of the path. Already mounted as asked: nothing is done.
   * Throws `already-exists` when something foreign is at the path (nothing is touched), `failed-precondition` when a
   * layer isn't committed, the merged CIM it needs isn't there or has faults, or the volume GUID already shows
   * something else (or not with the root hash expected), `corrupt` naming both when the root hash isn't the one
   * expected, `invalid-manifest` for a path that
   * isn't absolute or lies inside or above the root.
   */
  mount(request: MountRequest, context: EffectContext): Promise<MountedView>;

  /**
   * Takes the view away and removes the directories `mount` created, as far as they are empty. Not mounted is fine;
   * `busy` when in use, or when something foreign is mounted over it.
   */
  dismount(volumeGuid: VolumeGuid, context: EffectContext, options?: DismountOptions): Promise<void>;

  /** Removes what crashes left behind, as listed by `observe().leftovers`. Returns what was removed. */
  cleanLeftovers(context: EffectContext): Promise<Leftover[]>;
}
