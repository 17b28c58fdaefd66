/** Bytes kept in a temporary file beside the layer, for what must wait until everything else is written. */

import { randomUUID } from 'node:crypto';
import { closeSync, openSync, readSync, unlinkSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import type { CimStream } from '../cim/types.ts';
import { CimletError, classify } from '../errors.ts';

const CHUNK = 1 << 20;

/** One file's bytes in the spool. */
export interface SpooledFile {
  start: number;
  size: number;
}

export class Spool {
  readonly #directory: string;
  #file: number | undefined;
  #end = 0;

  /** The file is made with the first byte, and has no name from then on: nothing is left over, however this ends. */
  constructor(directory: string) {
    this.#directory = directory;
  }

  /** Reserves room for a file; exactly `size` bytes must go to the stream before the next one is added. */
  add(size: number): { file: SpooledFile; stream: CimStream } {
    const file = { start: this.#end, size };
    this.#end += size;
    let at = file.start;
    const write = (data: Uint8Array): void => {
      if (at + data.length > file.start + size) throw wrongSize(size);
      this.#attempt(() => {
        const fd = this.#open();
        for (let done = 0; done < data.length; )
          done += writeSync(fd, data, done, data.length - done, at + done);
      });
      at += data.length;
    };
    const close = (): void => {
      if (at !== file.start + size) throw wrongSize(size);
    };
    return { file, stream: { write, close } };
  }

  /** A file's bytes, each chunk a buffer of its own. */
  *read({ start, size }: SpooledFile): Generator<Buffer> {
    for (let at = start; at < start + size; ) {
      const chunk = Buffer.allocUnsafeSlow(Math.min(CHUNK, start + size - at));
      const length = this.#attempt(() => readSync(this.#open(), chunk, 0, chunk.length, at));
      if (length === 0)
        throw new CimletError('corrupt', `spool in ${this.#directory}: cut short at byte ${at}`);
      at += length;
      yield chunk.subarray(0, length);
    }
  }

  close(): void {
    if (this.#file !== undefined) closeSync(this.#file);
    this.#file = undefined;
  }

  #open(): number {
    if (this.#file === undefined) {
      const path = join(this.#directory, `tmp-spool-${randomUUID()}`);
      this.#file = openSync(path, 'wx+', 0o600);
      unlinkSync(path);
    }
    return this.#file;
  }

  #attempt<T>(action: () => T): T {
    try {
      return action();
    } catch (error) {
      throw classify(error, `spool files of the layer in ${this.#directory}`);
    }
  }
}

function wrongSize(size: number): CimletError {
  return new CimletError('failed-precondition', `spool a file: its declared size of ${size} bytes is wrong`);
}
