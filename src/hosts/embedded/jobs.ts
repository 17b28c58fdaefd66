/** The work done in a worker thread: plain data in, plain data out, so that it crosses the thread's border. */

import type { ErrorCode } from '../../errors.ts';
import type { DiffId, LayerBlob, Progress } from '../host.ts';

/** Decodes and verifies a blob into a forked CIM under temporary names. */
export interface UnpackJob {
  kind: 'unpack';
  directory: string;
  /** Image names, without `.cim`. */
  name: string;
  parent?: string | undefined;
  regionGuid: string;
  blob: LayerBlob;
  diffId: DiffId;
}

/** Writes the EROFS image of a CIM to `image`. */
export interface ViewJob {
  kind: 'view';
  cim: string;
  image: string;
  uuid: Uint8Array;
}

/** Writes the tree a view shows into the new directory `target`. */
export interface ExtractJob {
  kind: 'extract';
  cim: string;
  target: string;
  uuid: Uint8Array;
}

export type Job = UnpackJob | ViewJob | ExtractJob;

export interface JobResults {
  unpack: { bytes: number; files: number; cimFiles: { name: string; size: number }[]; warnings: string[] };
  /** Region files the image's external data is in, in device order. */
  view: { bytes: number; deviceFiles: string[] };
  extract: { inodes: number; warnings: string[] };
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
