/** A blob's bytes as a server sends them, from any byte on. */

import type { Readable } from 'node:stream';
import { type Answer, refuse } from './answers.ts';
import { abandon, discard } from './http.ts';
import { TransientError } from './retry.ts';

/** One place that a blob may be fetched from. */
export interface BlobPlace {
  host: string;
  /** From `offset` on, or from an earlier byte. Throws as `refuse` does. */
  open(offset: number, signal: AbortSignal): Promise<BlobStream>;
}

export interface BlobStream {
  /** Must be read to its end or destroyed. */
  body: Readable;
  /** Where in the blob the body starts. */
  start: number;
  /** Bytes that the server means to send; undefined when it doesn't say. */
  length: number | undefined;
}

/** A server that has the blob, but nothing from this byte on: what is here already can't be a beginning of it. */
export class RangeRefused extends TransientError {}

/** Throws as `refuse` does, and `RangeRefused`. */
export async function toStream(
  response: Answer,
  offset: number,
  operation: string,
  signal: AbortSignal,
): Promise<BlobStream> {
  const { status, headers, body } = response;
  if (status === 416 && offset > 0) {
    await discard(response);
    throw new RangeRefused(`fetch ${operation}: ${response.url.host} has nothing from byte ${offset} on`);
  }
  if (status !== 200 && status !== 206) throw await refuse(response, `fetch ${operation}`, signal);
  const encoding = headers['content-encoding'];
  const range = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(String(headers['content-range'] ?? ''));
  const start = status === 206 ? Number(range?.[1] ?? Number.NaN) : 0;
  if (!(start <= offset) || (encoding !== undefined && encoding !== 'identity')) {
    abandon(body);
    throw new TransientError(
      `fetch ${operation}: ${response.url.host} answers with bytes that were not asked for`,
    );
  }
  const length = headers['content-length'];
  return { body, start, length: typeof length === 'string' ? Number(length) : undefined };
}

/** The header that asks for a blob from `offset` on. */
export function rangeFrom(offset: number): [string, string][] {
  return offset === 0 ? [] : [['range', `bytes=${offset}-`]];
}
