/** A blob on its way into the store: hashed while written, taken up again where an earlier attempt broke off. */

import { createHash, type Hash } from 'node:crypto';
import { constants } from 'node:fs';
import { type FileHandle, mkdir, open, rename } from 'node:fs/promises';
import { dirname } from 'node:path';
import { CimletError, classify } from '../errors.ts';
import type { Digest } from '../hosts/host.ts';
import { algorithmOf } from './digest.ts';

interface IngestOptions {
  digest: Digest;
  size: number;
  /** The file while it is incomplete. */
  part: string;
  /** The file once it is whole and verified. */
  path: string;
  signal: AbortSignal;
}

/** Bytes gathered before they are written: few large writes are cheaper than many small ones. */
const BATCH_BYTES = 1 << 18;
const READ_BYTES = 1 << 20;

export class BlobIngest {
  readonly digest: Digest;
  readonly size: number;
  readonly #options: IngestOptions;
  readonly #handle: FileHandle;
  #hash: Hash;
  #received = 0;
  #written = 0;
  #batch: Uint8Array[] = [];
  #batchBytes = 0;
  #writing: Promise<void> = Promise.resolve();
  #isClosed = false;
  #failure: unknown;

  private constructor(options: IngestOptions, handle: FileHandle) {
    this.#options = options;
    this.#handle = handle;
    this.digest = options.digest;
    this.size = options.size;
    this.#hash = createHash(algorithmOf(options.digest));
  }

  /** Reads what an earlier attempt left, so that `received` says where to go on. */
  static async open(options: IngestOptions): Promise<BlobIngest> {
    const operation = `store blob ${options.digest}`;
    let ingest: BlobIngest | undefined;
    try {
      await mkdir(dirname(options.part), { recursive: true });
      await mkdir(dirname(options.path), { recursive: true });
      ingest = new BlobIngest(options, await open(options.part, constants.O_RDWR | constants.O_CREAT));
      await ingest.#takeUp();
      return ingest;
    } catch (error) {
      await ingest?.close();
      throw classify(error, operation);
    }
  }

  /** Bytes of the blob that are here. */
  get received(): number {
    return this.#received;
  }

  /** The error of this machine (a full disk) that stopped the ingest: no other server can help. */
  get failure(): unknown {
    return this.#failure;
  }

  /** Takes the next bytes; `chunk` must not change afterwards. Resolves when there is room for more. */
  async write(chunk: Uint8Array): Promise<void> {
    this.#hash.update(chunk);
    this.#received += chunk.length;
    this.#batch.push(chunk);
    this.#batchBytes += chunk.length;
    if (this.#batchBytes >= BATCH_BYTES) await this.#flush();
  }

  /** Forgets everything: what came is not what is wanted. */
  async reset(): Promise<void> {
    await this.#settle();
    this.#hash = createHash(algorithmOf(this.digest));
    this.#received = 0;
    this.#written = 0;
    await this.#guard(() => this.#handle.truncate(0));
  }

  /**
   * Makes the blob visible under its name, durably. Throws `corrupt` when its bytes have another digest; then, all
   * that came is forgotten.
   */
  async commit(): Promise<void> {
    await this.#settle();
    const found = `${algorithmOf(this.digest)}:${this.#hash.digest('hex')}`;
    if (found !== this.digest || this.#received !== this.size) {
      await this.reset();
      throw new CimletError('corrupt', `blob ${this.digest}: the bytes that came have digest ${found}`);
    }
    await this.#guard(async () => {
      await this.#handle.sync();
      await this.#close();
      await rename(this.#options.part, this.#options.path);
      await syncDirectory(dirname(this.#options.path));
    });
  }

  /** Keeps what came for the next attempt, unless it was committed. May be called more than once. */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    try {
      await this.#settle();
    } catch (error) {
      // Whoever wrote was told; what is in the file is still a beginning of the blob.
      if (error !== this.#failure) throw error;
    } finally {
      await this.#close();
    }
  }

  async #close(): Promise<void> {
    this.#isClosed = true;
    await this.#handle.close();
  }

  async #takeUp(): Promise<void> {
    const { size } = await this.#handle.stat();
    if (size > this.size) {
      await this.#handle.truncate(0);
      return;
    }
    const buffer = Buffer.alloc(READ_BYTES);
    while (this.#received < size) {
      this.#options.signal.throwIfAborted();
      const { bytesRead } = await this.#handle.read(buffer, 0, buffer.length, this.#received);
      if (bytesRead === 0) break;
      this.#hash.update(buffer.subarray(0, bytesRead));
      this.#received += bytesRead;
    }
    this.#written = this.#received;
  }

  /** One batch is written while the next is gathered. */
  async #flush(): Promise<void> {
    await this.#writing;
    const batch = this.#batch;
    const position = this.#written;
    this.#written += this.#batchBytes;
    this.#batch = [];
    this.#batchBytes = 0;
    this.#writing = this.#guard(() => writeAll(this.#handle, batch, position));
    // Its failure is thrown where it is awaited next.
    this.#writing.catch(() => undefined);
  }

  async #settle(): Promise<void> {
    if (this.#batchBytes > 0) await this.#flush();
    await this.#writing;
  }

  async #guard(step: () => Promise<unknown>): Promise<void> {
    try {
      await step();
    } catch (error) {
      this.#failure = classify(error, `store blob ${this.digest}`);
      throw this.#failure;
    }
  }
}

async function writeAll(handle: FileHandle, chunks: Uint8Array[], position: number): Promise<void> {
  const total = chunks.reduce((sum, chunk) => sum + chunk.length, 0);
  const { bytesWritten } = await handle.writev(chunks, position);
  if (bytesWritten === total) return;
  const rest = Buffer.concat(chunks).subarray(bytesWritten);
  for (let done = 0; done < rest.length; ) {
    const result = await handle.write(rest, done, rest.length - done, position + bytesWritten + done);
    done += result.bytesWritten;
  }
}

/** Makes a rename in a directory durable; Windows, which can't open directories so, does that by itself. */
export async function syncDirectory(directory: string): Promise<void> {
  try {
    const handle = await open(directory, 'r');
    try {
      await handle.sync();
    } finally {
      await handle.close();
    }
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'EISDIR' && code !== 'EPERM') throw classify(error, `sync ${directory}`);
  }
}
