/** Layer blobs as streams of uncompressed tar, verified while they are read. */

import { type FileHandle, open } from 'node:fs/promises';
import { pipeline, type Transform } from 'node:stream';
import { createGunzip, createZstdDecompress } from 'node:zlib';
import { CimletError, classify } from '../errors.ts';
import type { DiffId, LayerBlob } from '../hosts/host.ts';
import { DigestCheck } from './digest.ts';
import { isZstd, ZstdFrameWalker } from './zstd-frames.ts';

/** Large enough that hashing one chunk and inflating the next overlap without much switching between threads. */
const CHUNK_BYTES = 1 << 20;

const DAMAGED = 'the blob is damaged or incomplete; copy or download the image again';

export interface LayerStreamOptions {
  /** What the uncompressed bytes must hash to. */
  diffId: DiffId;
  signal?: AbortSignal | undefined;
  /** Called with the bytes of the blob read so far and in all. */
  onProgress?: ((done: number, total: number) => void) | undefined;
}

/**
 * Reads a layer blob and yields its uncompressed tar. gzip (any number of members), zstd (any number of frames) and
 * plain tar are told apart by their first bytes, whatever the media type says, as containerd does.
 *
 * Size, digest and diff ID are known to be right only once the iteration has ended without an error: what was made of
 * the chunks must not become visible before. Throws `corrupt` naming the blob and what was found instead,
 * `not-found` when the file is gone, `cancelled` on abort. Leaving the loop early closes everything.
 */
export async function* openLayerStream(
  blob: LayerBlob,
  options: LayerStreamOptions,
): AsyncGenerator<Buffer, void, undefined> {
  const operation = `read layer ${blob.digest} from ${blob.file}`;
  let handle: FileHandle | undefined;
  try {
    throwIfAborted(options.signal, operation);
    handle = await open(blob.file, 'r');
    yield* decodeAndVerify(handle, blob, operation, options);
  } catch (error) {
    throw classify(error, operation);
  } finally {
    await handle?.close();
  }
}

/**
 * Yields the uncompressed tar of a whole file about which nothing is known yet. `onStored` gets the file's own bytes,
 * each once, for whoever wants to know its digest. A chunk is good until the next. Throws as `openLayerStream` does, except for digests.
 */
export async function* decodeFile(
  { file, size }: { file: string; size: number },
  operation: string,
  signal: AbortSignal,
  onStored: (chunk: Buffer) => void,
): AsyncGenerator<Buffer, void, undefined> {
  let handle: FileHandle | undefined;
  try {
    throwIfAborted(signal, operation);
    handle = await open(file, 'r');
    const source = new BlobSource(handle, { offset: 0, size }, operation, signal, onStored);
    const compression = detectCompression(await source.peek(4));
    // Always the same buffers for a plain tar: many that wait to be collected would be most of the memory used.
    if (compression === 'none') yield* source.read([allocate(), allocate()]);
    else yield* decode(compression, source, operation);
  } catch (error) {
    throw classify(error, operation);
  } finally {
    await handle?.close();
  }
}

async function* decodeAndVerify(
  handle: FileHandle,
  blob: LayerBlob,
  operation: string,
  { diffId, signal, onProgress }: LayerStreamOptions,
): AsyncGenerator<Buffer, void, undefined> {
  const stored = new DigestCheck(blob.digest);
  const source = new BlobSource(handle, blob, operation, signal, (chunk, done) => {
    stored.update(chunk);
    onProgress?.(done, blob.size);
  });
  const compression = detectCompression(await source.peek(4));
  const isOwnContent = compression === 'none' && diffId === (blob.digest as string);
  const content = isOwnContent ? undefined : new DigestCheck(diffId);

  for await (const chunk of decode(compression, source, operation)) {
    throwIfAborted(signal, operation);
    content?.update(chunk);
    yield chunk;
  }

  const foundDigest = stored.mismatch();
  if (foundDigest !== undefined) {
    throw new CimletError('corrupt', `${operation}: expected digest ${blob.digest}, found ${foundDigest}`, {
      hint: DAMAGED,
    });
  }
  const foundDiffId = content?.mismatch();
  if (foundDiffId !== undefined) {
    throw new CimletError('corrupt', `${operation}: expected diff ID ${diffId}, found ${foundDiffId}`, {
      hint: "the image's configuration doesn't describe this layer; ask whoever built it",
    });
  }
}

function allocate(): Buffer {
  return Buffer.allocUnsafeSlow(CHUNK_BYTES);
}

export type Compression = 'none' | 'gzip' | 'zstd';

/** Told by the first four bytes; a tar begins with neither magic number. */
export function detectCompression(start: Buffer): Compression {
  if (start.length >= 2 && start.readUInt16BE(0) === 0x1f8b) return 'gzip';
  return isZstd(start) ? 'zstd' : 'none';
}

function decode(compression: Compression, source: BlobSource, operation: string): AsyncIterable<Buffer> {
  if (compression === 'gzip') return gunzip(source, operation);
  return compression === 'zstd' ? unzstd(source, operation) : source.read();
}

/** The bytes of a blob in order, each seen exactly once by `onRead`. */
class BlobSource {
  readonly #handle: FileHandle;
  readonly #blob: Pick<LayerBlob, 'offset' | 'size'>;
  readonly #operation: string;
  readonly #signal: AbortSignal | undefined;
  readonly #onRead: (chunk: Buffer, done: number) => void;

  constructor(
    handle: FileHandle,
    blob: Pick<LayerBlob, 'offset' | 'size'>,
    operation: string,
    signal: AbortSignal | undefined,
    onRead: (chunk: Buffer, done: number) => void,
  ) {
    this.#handle = handle;
    this.#blob = blob;
    this.#operation = operation;
    this.#signal = signal;
    this.#onRead = onRead;
  }

  /** The first bytes, without counting them as read; fewer when the blob is shorter. */
  async peek(length: number): Promise<Buffer> {
    const buffer = Buffer.alloc(Math.min(length, this.#blob.size));
    const { bytesRead } = await this.#handle.read(buffer, 0, buffer.length, this.#blob.offset);
    return buffer.subarray(0, bytesRead);
  }

  /** The next chunk is read while one is used. With `reused`, chunks are in these two buffers by turns. */
  async *read(reused?: readonly [Buffer, Buffer]): AsyncGenerator<Buffer, void, undefined> {
    const { size } = this.#blob;
    let next = this.#loadAhead(0, reused?.[0]);
    try {
      for (let [done, number] = [0, 1]; done < size; number++) {
        throwIfAborted(this.#signal, this.#operation);
        const chunk = await next;
        if (chunk.length === 0)
          throw new CimletError(
            'corrupt',
            `${this.#operation}: the blob ends after ${done} bytes, it should have ${size}`,
            { hint: DAMAGED },
          );
        done += chunk.length;
        next = this.#loadAhead(done, reused?.[number % 2]);
        this.#onRead(chunk, done);
        yield chunk;
      }
    } finally {
      // The file must not be closed under a read.
      await Promise.allSettled([next]);
    }
  }

  /** What fails is told to whoever awaits it, which may be later. */
  #loadAhead(done: number, reused: Buffer | undefined): Promise<Buffer> {
    const loading = this.#load(done, reused);
    loading.catch(() => undefined);
    return loading;
  }

  /** Without `reused` into a new buffer each time: the decompressor and the consumer may still hold the last one. */
  async #load(done: number, reused: Buffer | undefined): Promise<Buffer> {
    const { offset, size } = this.#blob;
    const length = Math.min(CHUNK_BYTES, size - done);
    const buffer = reused ?? Buffer.allocUnsafeSlow(length);
    const { bytesRead } = await this.#handle.read(buffer, 0, length, offset + done);
    return buffer.subarray(0, bytesRead);
  }
}

async function* gunzip(source: BlobSource, operation: string): AsyncGenerator<Buffer, void, undefined> {
  let fed = 0;
  const gunzip = createGunzip({ chunkSize: CHUNK_BYTES });
  const input = count(source.read(), (length) => {
    fed += length;
  });
  try {
    yield* transform(input, gunzip);
  } catch (error) {
    throw describeDamage(error, 'gzip', gunzip.bytesWritten, operation);
  }
  // Gunzip takes zeros after the last member for padding and stops there.
  if (gunzip.bytesWritten < fed) {
    throw new CimletError(
      'corrupt',
      `${operation}: data after the end of the gzip stream at offset ${gunzip.bytesWritten}`,
    );
  }
}

async function* unzstd(source: BlobSource, operation: string): AsyncGenerator<Buffer, void, undefined> {
  const walker = new ZstdFrameWalker();
  let fed = 0;
  let rest: Buffer = Buffer.alloc(0);
  const input = source.read();

  async function* nextFrame(): AsyncGenerator<Buffer, void, undefined> {
    do {
      if (rest.length === 0) {
        const next = await input.next();
        if (next.done === true) {
          throw new CimletError(
            'corrupt',
            `${operation}: the zstd data ends inside a frame at offset ${fed}`,
            {
              hint: DAMAGED,
            },
          );
        }
        rest = next.value;
      }
      const end = walker.walk(rest, 0);
      if (end === undefined) {
        throw new CimletError('corrupt', `${operation}: no zstd frame begins at offset ${fed}`, {
          hint: DAMAGED,
        });
      }
      const part = rest.subarray(0, end);
      rest = rest.subarray(end);
      fed += part.length;
      yield part;
    } while (!walker.betweenFrames);
  }

  async function atEnd(): Promise<boolean> {
    if (rest.length > 0) return false;
    const next = await input.next();
    if (next.done === true) return true;
    rest = next.value;
    return false;
  }

  try {
    while (!(await atEnd())) {
      const frameStart = fed;
      const decompressor = createZstdDecompress({ chunkSize: CHUNK_BYTES });
      try {
        yield* transform(nextFrame(), decompressor);
      } catch (error) {
        throw describeDamage(error, 'zstd', frameStart + decompressor.bytesWritten, operation);
      }
    }
  } finally {
    await input.return();
  }
}

async function* count(
  chunks: AsyncIterable<Buffer>,
  onLength: (length: number) => void,
): AsyncGenerator<Buffer, void, undefined> {
  for await (const chunk of chunks) {
    onLength(chunk.length);
    yield chunk;
  }
}

/**
 * Runs chunks through a decompressor, which works on the next chunk (on a thread of libuv's pool) while the consumer
 * handles this one.
 */
async function* transform(
  input: AsyncGenerator<Buffer, void, undefined>,
  decompressor: Transform,
): AsyncGenerator<Buffer, void, undefined> {
  const inputClosed = Promise.withResolvers<void>();
  pipeline(input, decompressor, () => inputClosed.resolve()); // Errors arrive through the iteration below.
  try {
    yield* decompressor as AsyncIterable<Buffer>;
  } finally {
    decompressor.destroy();
    await inputClosed.promise;
  }
}

function describeDamage(error: unknown, format: string, offset: number, operation: string): unknown {
  if (error instanceof CimletError || !isZlibError(error)) return error;
  return new CimletError(
    'corrupt',
    `${operation}: the ${format} data is damaged near offset ${offset}: ${error.message}`,
    { hint: DAMAGED, cause: error },
  );
}

/** zlib errors have codes such as Z_DATA_ERROR, zstd's such as ZSTD_error_corruption_detected. */
function isZlibError(error: unknown): error is NodeJS.ErrnoException {
  return error instanceof Error && /^(Z_|ZSTD_)/.test((error as NodeJS.ErrnoException).code ?? '');
}

function throwIfAborted(signal: AbortSignal | undefined, operation: string): void {
  if (signal?.aborted)
    throw new CimletError('cancelled', `${operation}: cancelled`, { cause: signal.reason });
}
