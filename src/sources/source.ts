/**
 * Where manifests come from: a folder or a git repository, seen as a row of revisions. A revision never changes: its
 * manifests are in memory, and the files of a git revision in a folder of its own.
 *
 * A source says what is there, not whether it is any good. Whoever reconciles loads a revision's manifests
 * (`loadManifestContents`) and, when they are sound, accepts it. The accepted one is in force until another is,
 * whatever happens to the folder, the server or this process.
 */

import type { ManifestContent } from '../manifests/find-files.ts';

export interface Revision {
  /** `main@sha1:<40 hex digits>`, `folder@sha256:<64 hex digits>`: the same name, the same manifests. */
  readonly name: string;
  /** The folder that the manifests are in, absolute. */
  readonly directory: string;
  /** Ordered as `loadManifests` reads a folder. Empty when the folder is. */
  readonly manifests: readonly ManifestContent[];
  /** What was left out of a git revision, and why, each in a sentence. */
  readonly warnings: readonly string[];
}

export interface SourceOptions {
  /** Folder of this source alone, where it keeps what it needs; made when missing. One process at a time. */
  cacheDirectory: string;
  /** What relative paths in the configuration are relative to: the folder of cimlet.yaml. */
  baseDirectory: string;
}

export interface Source {
  readonly name: string;
  /**
   * What is there now. The very same object as before when nothing has changed. Calls are done one after another.
   * Throws a CimletError when it can't be told (server away, branch gone, folder missing, signature missing, files
   * being written all the time): what was accepted stays in force then.
   *
   * The files of a git revision stay until it is neither accepted nor one of the last two that were synced.
   */
  sync(signal: AbortSignal): Promise<Revision>;
  /** Puts a revision of this source in force. On disk when it returns. */
  accept(revision: Revision): Promise<void>;
  /** The revision accepted last, also by a process before this one; undefined when none was, or by another configuration. */
  accepted(): Promise<Revision | undefined>;
  /**
   * Says when to sync again: something has changed, or the interval is over (give or take a tenth, so that many hosts
   * don't ask at once). One for all that happened since the last. Ends when the signal aborts or the source is closed.
   * One loop at a time.
   */
  changes(signal: AbortSignal): AsyncIterable<void>;
  /** Something may have changed, somebody says (a webhook, a person): `changes` tells it soon. */
  touch(): void;
  /** Ends what is running, stops watching. What is on disk stays. */
  close(): Promise<void>;
}
