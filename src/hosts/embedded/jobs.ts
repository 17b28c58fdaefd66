/** The work done in a worker thread: plain data in, plain data out, so that it crosses the thread's border. */

import type { ExportDiskJob } from '../disk-tar.ts';
import type { ChainId, DiffId, LayerBlob } from '../host.ts';
import type { LayerDisk } from '../layer-disk.ts';
import type { StoredFile } from '../records.ts';
import type { LinuxDiskTarget } from '../unpack-linux.ts';
import type { SealCheck, SealedContainer } from './seal-check.ts';

/** What was written over a chain, which becomes the tar of a layer. */
export interface UpperTar {
  /** The overlay's upper directory. */
  upper: string;
  /** Shows the Windows layers below; undefined when there are none. */
  cim?: ShownCim | undefined;
  /** It becomes a Linux layer. */
  isLinux: boolean;
}

/** Where the tar of a layer comes from. */
export type LayerSource = { kind: 'blob'; blob: LayerBlob; diffId: DiffId } | ({ kind: 'upper' } & UpperTar);

export interface UnpackInput {
  source: LayerSource;
  /** What the files are named by. That of a blob's layer; something else for a layer that isn't known before it is written. */
  chainId: ChainId;
  /** The layer below. */
  parent: ChainId | undefined;
}

/** What a tar was the tar of. */
export interface LayerIdentity {
  chainId: ChainId;
  diffId: DiffId;
}

/** Writes a forked CIM under temporary names. */
export interface UnpackForkedJob extends UnpackInput {
  kind: 'unpack-forked';
  directory: string;
}

/** A committed container that a job builds on; when it is sealed, with this root hash. */
export interface SourceContainer {
  path: string;
  rootHash?: string | undefined;
}

/** Writes the container of a block CIM. */
export interface UnpackBlockJob extends UnpackInput {
  kind: 'unpack-block';
  file: string;
  /** The layers below, topmost first. */
  lower: SourceContainer[];
  seal: boolean;
  vhdFooter: boolean;
}

/** Merges block CIMs, topmost first, into the container `file`. */
export interface MergeJob {
  kind: 'merge';
  file: string;
  regionGuid: string;
  sources: SourceContainer[];
  seal: boolean;
  vhdFooter: boolean;
}

/** The CIM that shows a chain. */
export interface ShownCim {
  path: string;
  /** What a merged CIM was merged from, topmost first. */
  sources: string[];
  /** The containers to verify before anything of them is shown, with the root hashes they must have. */
  seals: SealedContainer[];
}

/** Makes sure that the EROFS image of a CIM is at `image`. */
export interface ViewJob {
  kind: 'view';
  cim: ShownCim;
  image: string;
  uuid: Uint8Array;
}

/** Writes the tree a view shows into the new directory `target`. */
export interface ExtractJob {
  kind: 'extract';
  cim: ShownCim;
  target: string;
  uuid: Uint8Array;
}

/** Writes a layer as a tar to `file`, which is made or replaced when the tar is whole. */
export interface ExportJob {
  kind: 'export';
  cim: string;
  /** That the CIM's seal must have. */
  rootHash?: string | undefined;
  /** What a forked CIM was forked from. */
  parent?: string | undefined;
  file: string;
  /** Where the tar is written before it is renamed to `file`; `file` itself when that is a pipe or device. */
  temporary: string;
  /** About how many bytes there are to write, for progress. */
  bytes: number;
}

/** Writes what was written over a chain as the tar of a layer to `file`, as an export does. */
export interface DiffJob extends UpperTar {
  kind: 'diff';
  file: string;
  temporary: string;
  /** About how many bytes there are to write, for progress. */
  bytes: number;
}

/** Looks whether a sealed container still is what was sealed. */
export interface VerifyJob {
  kind: 'verify';
  container: SealedContainer;
}

/** Writes the disk of a Linux layer. */
export interface UnpackDiskJob extends UnpackInput, LinuxDiskTarget {
  kind: 'unpack-disk';
}

/** Looks whether a disk with dm-verity still has its root hash. */
export interface VerifyDiskJob {
  kind: 'verify-disk';
  container: SealedContainer;
}

export type Job =
  | UnpackDiskJob
  | VerifyDiskJob
  | ExportDiskJob
  | UnpackForkedJob
  | UnpackBlockJob
  | MergeJob
  | ViewJob
  | ExtractJob
  | ExportJob
  | DiffJob
  | VerifyJob;

/** What was written, under the names it gets when it is put in place. */
export interface WrittenCim {
  cimFiles: StoredFile[];
  bytes: number;
  files: number;
  warnings: string[];
}

/** A container that was written, and what is known of it by then. */
export interface WrittenContainer extends WrittenCim {
  /** See `LayerRecord.content`. */
  content: string;
  /** As `sha256:…`. */
  rootHash?: string | undefined;
}

export interface JobResults {
  'unpack-forked': WrittenCim & LayerIdentity;
  'unpack-block': WrittenContainer & LayerIdentity;
  'unpack-disk': LayerDisk & LayerIdentity;
  merge: WrittenContainer;
  /** Files the image's external data is in, in device order. */
  view: { deviceFiles: string[] };
  extract: { inodes: number; warnings: string[] };
  export: { bytes: number };
  diff: { bytes: number; diffId: DiffId; warnings: string[] };
  verify: SealCheck;
  'verify-disk': SealCheck;
  'export-disk': { bytes: number };
}
