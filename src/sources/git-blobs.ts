/** Blobs as streams, many with one git. Source: git-cat-file(1), "BATCH OUTPUT". */

import { CimletError } from '../errors.ts';
import type { GitRepository } from './git-repository.ts';

/** `bytes` is to be read to its end, and is `size` long. */
export type BlobConsumer = (object: string, size: number, bytes: AsyncIterable<Buffer>) => Promise<void>;

/** Gives each blob to `consume`, one after another, in the order given. Throws `corrupt` when one isn't there. */
export async function readBlobs(
  repository: GitRepository,
  objects: readonly string[],
  signal: AbortSignal,
  consume: BlobConsumer,
): Promise<void> {
  if (objects.length === 0) return;
  const input = `${objects.join('\n')}\n`;
  await repository.stream(
    'read files',
    ['cat-file', '--batch', '--buffer'],
    signal,
    input,
    async (stdout) => {
      const reader = new BatchReader(stdout);
      for (const object of objects) {
        const header = (await reader.readLine()).split(' ');
        const size = Number(header[2]);
        if (header[0] !== object || header[1] !== 'blob' || !Number.isSafeInteger(size)) {
          throw new CimletError(
            'corrupt',
            `read blob ${object}: git answers ${JSON.stringify(header.join(' '))}`,
          );
        }
        await consume(object, size, reader.readBytes(size));
        await reader.readLine();
      }
    },
  );
}

class BatchReader {
  readonly #chunks: AsyncIterator<Buffer>;
  #rest: Buffer = Buffer.alloc(0);

  constructor(stdout: AsyncIterable<Buffer>) {
    this.#chunks = stdout[Symbol.asyncIterator]();
  }

  async readLine(): Promise<string> {
    for (;;) {
      const end = this.#rest.indexOf('\n');
      if (end >= 0) {
        const line = this.#rest.subarray(0, end).toString('latin1');
        this.#rest = this.#rest.subarray(end + 1);
        return line;
      }
      this.#rest = Buffer.concat([this.#rest, await this.#nextChunk()]);
    }
  }

  async *readBytes(size: number): AsyncGenerator<Buffer> {
    for (let left = size; left > 0; ) {
      if (this.#rest.length === 0) this.#rest = await this.#nextChunk();
      const bytes = this.#rest.subarray(0, left);
      this.#rest = this.#rest.subarray(bytes.length);
      left -= bytes.length;
      yield bytes;
    }
  }

  async #nextChunk(): Promise<Buffer> {
    const next = await this.#chunks.next();
    if (next.done === true) throw new CimletError('corrupt', 'read files: git ended in the middle of one');
    return next.value;
  }
}
