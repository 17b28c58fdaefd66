/** One blob from where it can be had into the store: resumed, retried, cut off when it stalls. */

import { isErrorCode } from '../../errors.ts';
import type { BlobIngest } from '../blob-store-ingest.ts';
import { type BlobPlace, type BlobStream, RangeRefused } from './blob-stream.ts';
import { firstOf } from './first-of.ts';
import { abandon } from './http.ts';
import { type MinimumRate, watchRate } from './minimum-rate.ts';
import { explainNetworkError } from './network-errors.ts';
import type { RateLimit } from './rate-limit.ts';
import { type Backoff, TransientError, WrongBytesError, withRetries } from './retry.ts';
import type { TransferSlots } from './transfer-slots.ts';

export interface DownloadOptions {
  places: readonly BlobPlace[];
  /** For whom: images take turns. */
  image: string;
  slots: TransferSlots;
  rate: RateLimit | undefined;
  backoff: Backoff;
  minimumRate: MinimumRate;
  signal: AbortSignal;
  /** Bytes of the blob that are here. */
  onProgress: (received: number) => void;
}

/** A transfer that brought this much is worth as many further attempts as the first one. */
const PROGRESS_BYTES = 1 << 20;

/**
 * Fills and commits `ingest`. Throws `corrupt` when the bytes are wrong twice, `not-found`, `access-denied` or
 * `unavailable` when no place has them, `cancelled`, or the ingest's own failure.
 */
export async function downloadBlob(ingest: BlobIngest, options: DownloadOptions): Promise<void> {
  const { places, backoff, signal } = options;
  let most = ingest.received;
  await withRetries(backoff, signal, async (progressed) => {
    try {
      await firstOf(
        places,
        (place) => fetchFrom(place, ingest, options),
        `no host is configured that may serve blob ${ingest.digest}`,
      );
    } catch (error) {
      if (ingest.failure !== undefined) throw ingest.failure;
      // What came before and was thrown away is no progress when it comes again.
      if (ingest.received - most >= PROGRESS_BYTES) progressed();
      most = Math.max(most, ingest.received);
      throw error;
    }
  });
}

/** Goes on with what is here; should that be no beginning of what this place has, from the start. */
async function fetchFrom(place: BlobPlace, ingest: BlobIngest, options: DownloadOptions): Promise<void> {
  const isBeginning = ingest.received === 0;
  try {
    await goOn(place, ingest, options);
  } catch (error) {
    const isElsewheres = error instanceof RangeRefused || error instanceof WrongBytesError;
    if (isBeginning || !isElsewheres) throw error;
    await ingest.reset();
    await goOn(place, ingest, options);
  }
}

async function goOn(place: BlobPlace, ingest: BlobIngest, options: DownloadOptions): Promise<void> {
  const { slots, image, signal } = options;
  if (ingest.received < ingest.size || ingest.size === 0)
    await slots.run({ host: place.host, image }, signal, () => transfer(place, ingest, options));
  await commit(ingest, place);
}

async function commit(ingest: BlobIngest, place: BlobPlace): Promise<void> {
  try {
    await ingest.commit();
  } catch (error) {
    if (!isErrorCode(error, 'corrupt')) throw error;
    throw new WrongBytesError(`fetch from ${place.host}: ${error.message}`, error);
  }
}

async function transfer(place: BlobPlace, ingest: BlobIngest, options: DownloadOptions): Promise<void> {
  const operation = `fetch blob ${ingest.digest} from ${place.host}`;
  const watch = watchRate(operation, options.minimumRate, options.signal);
  const { signal } = watch;
  try {
    const stream = await place.open(ingest.received, signal);
    await receive(stream, ingest, operation, async (bytes) => {
      watch.count(bytes);
      options.onProgress(ingest.received);
      await options.rate?.take(bytes, signal);
    });
  } catch (error) {
    if (ingest.failure !== undefined) throw ingest.failure;
    if (signal.aborted && !options.signal.aborted) throw signal.reason;
    throw explainNetworkError(error, operation, options.signal);
  } finally {
    watch.stop();
  }
}

async function receive(
  { body, start, length }: BlobStream,
  ingest: BlobIngest,
  operation: string,
  onBytes: (bytes: number) => Promise<void>,
): Promise<void> {
  try {
    if (length !== undefined && start + length !== ingest.size) {
      const offered = start + length;
      throw new TransientError(`${operation}: it offers ${offered} bytes, the manifest says ${ingest.size}`);
    }
    // A server that ignores Range starts from the beginning again.
    let toSkip = ingest.received - start;
    for await (const chunk of body as AsyncIterable<Buffer>) {
      const wanted = toSkip === 0 ? chunk : chunk.subarray(Math.min(toSkip, chunk.length));
      toSkip -= chunk.length - wanted.length;
      if (ingest.received + wanted.length > ingest.size) {
        await ingest.reset();
        throw new TransientError(
          `${operation}: it sends more than the ${ingest.size} bytes the manifest says`,
        );
      }
      if (wanted.length > 0) await ingest.write(wanted);
      await onBytes(chunk.length);
    }
  } finally {
    abandon(body);
  }
  if (ingest.received < ingest.size) {
    throw new TransientError(`${operation}: broke off after ${ingest.received} of ${ingest.size} bytes`);
  }
}
