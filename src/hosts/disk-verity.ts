/** dm-verity of a disk that is being written. Of a large one, another thread hashes what is written while more comes. */

import { BLOCK_SIZE } from '../ext4/format.ts';
import { VerityBuilder } from '../ext4/verity-builder.ts';
import { throwIfAborted } from './abort.ts';
import { runInThread, threadEntry } from './job-thread.ts';

/** Blocks that are hashed sooner than a thread starts: 32 MiB. */
const SMALL = 8192;

/** What the thread is told as it works; `changes` counts up whenever something of it did. */
export const Told = { changes: 0, written: 1, whole: 2 } as const;

export interface VerityJob {
  kind: 'verity';
  /** The disk's file. */
  file: string;
  /** The blocks before this one are written last. */
  first: number;
  /** An Int32Array: up to which block the disk is written, and how many it has, 0 until it is whole. */
  told: SharedArrayBuffer;
}

const ENTRY = threadEntry('verity-thread', import.meta.url);

export class DiskVerity {
  readonly #file: string;
  readonly #signal: AbortSignal;
  readonly #closing = new AbortController();
  readonly #told = new Int32Array(new SharedArrayBuffer(12));
  #first: number | undefined;
  #rootHash: Promise<string> | undefined;

  constructor(file: string, signal: AbortSignal) {
    this.#file = file;
    this.#signal = signal;
  }

  /** What `Ext4Options.onWritten` wants. */
  readonly onWritten = (first: number, end: number): void => {
    this.#first ??= first;
    if (this.#rootHash === undefined && end - this.#first > SMALL) this.#rootHash = this.#start(this.#first);
    if (this.#rootHash !== undefined) this.#tell(Told.written, end);
  };

  /** Appends dm-verity to the whole file system of `size` bytes; returns the root hash, 64 hexadecimal digits. Throws `cancelled`. */
  async finish(size: number): Promise<string> {
    if (this.#rootHash === undefined) return this.#buildHere(size);
    this.#tell(Told.whole, size / BLOCK_SIZE);
    return this.#rootHash;
  }

  /** Nobody works on the file any more when this returns. Must be called, whatever happens. */
  async close(): Promise<void> {
    this.#closing.abort();
    await Promise.allSettled([this.#rootHash]);
  }

  #start(first: number): Promise<string> {
    const job: VerityJob = { kind: 'verity', file: this.#file, first, told: this.#told.buffer };
    const signal = AbortSignal.any([this.#signal, this.#closing.signal]);
    const rootHash = runInThread<VerityJob, string>(ENTRY, job, { signal });
    // What fails is told when it is asked for.
    rootHash.catch(() => undefined);
    return rootHash;
  }

  #tell(what: number, value: number): void {
    Atomics.store(this.#told, what, value);
    Atomics.add(this.#told, Told.changes, 1);
    Atomics.notify(this.#told, Told.changes);
  }

  #buildHere(size: number): string {
    const builder = new VerityBuilder(this.#file, 0, () => throwIfAborted(this.#signal, 'add dm-verity'));
    try {
      return builder.finish(size);
    } finally {
      builder.close();
    }
  }
}
