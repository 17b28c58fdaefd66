/** The work done in a worker thread: plain data in, plain data out, so that it crosses the thread's border. */

import type { ErrorCode } from '../../errors.ts';
import type { DiffId, LayerBlob, Progress } from '../host.ts';
import type { StoredFile } from './records.ts';

interface UnpackInput {
  blob: LayerBlob;
  diffId: DiffId;
}

/** Decodes and verifies a blob into a forked CIM under temporary names. */
export interface UnpackForkedJob extends UnpackInput {
  kind: 'unpack-forked';
  directory: string;
  /** Image names, without `.cim`. */
  name: string;
  parent?: string | undefined;
  regionGuid: string;
}

/** Decodes and verifies a blob into the container of a block CIM. */
export interface UnpackBlockJob extends UnpackInput {
  kind: 'unpack-block';
  file: string;
  regionGuid: string;
  /** Containers of the layers below, topmost first. */
  lower: string[];
  seal: boolean;
  vhdFooter: boolean;
}

/** Merges block CIMs, topmost first, into the container `file`. */
export interface MergeJob {
  kind: 'merge';
  file: string;
  regionGuid: string;
  sources: string[];
  seal: boolean;
  vhdFooter: boolean;
}

/** The CIM that shows a chain. */
export interface ShownCim {
  path: string;
  /** What a merged CIM was merged from, topmost first. */
  sources: string[];
  /** The containers to verify before anything of them is shown, with the root hashes they must have. */
  seals: { path: string; rootHash: string }[];
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
  /** That the CIM's seal must have, in hexadecimal. */
  rootHash?: string | undefined;
  /** What a forked CIM was forked from. */
  parent?: string | undefined;
  file: string;
  /** About how many bytes there are to write, for progress. */
  bytes: number;
}

export type Job = UnpackForkedJob | UnpackBlockJob | MergeJob | ViewJob | ExtractJob | ExportJob;

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
  'unpack-forked': WrittenCim;
  'unpack-block': WrittenContainer;
  merge: WrittenContainer;
  /** Files the image's external data is in, in device order. */
  view: { deviceFiles: string[] };
  extract: { inodes: number; warnings: string[] };
  export: { bytes: number };
}

/** What a job may ask while it runs. `checkpoint` throws `cancelled` once the caller has aborted. */
export interface JobControl {
  signal: AbortSignal;
  checkpoint(): void;
  progress(progress: Progress): void;
}

/** First message to the thread; `aborted` is an Int32 in shared memory that turns 1, for loops that hear no messages. */
export interface JobStart {
  job: Job;
  aborted: SharedArrayBuffer;
}

export interface SerializedError {
  code: ErrorCode | undefined;
  message: string;
  hint: string | undefined;
  cause: string | undefined;
  stack: string | undefined;
}

export type JobMessage =
  | { type: 'progress'; progress: Progress }
  | { type: 'done'; result: JobResults[Job['kind']] }
  | { type: 'failed'; error: SerializedError };
