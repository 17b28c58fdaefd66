/** One request with a message, and what its answer means. Node's own fetch: it needs no more than that. */

import { createHmac } from 'node:crypto';
import type { Secret } from '../../manifests/secrets.ts';

export interface Destination {
  /** May hold a secret, and is never told. */
  url: Secret;
  /** Signs the body: `X-Signature: sha256=<HMAC in hex>`. */
  key?: Secret | undefined;
}

export type Delivery =
  | { outcome: 'delivered' }
  /** To be tried again, after `waitMs` at least when it said so. */
  | { outcome: 'postponed'; why: string; waitMs?: number | undefined }
  /** It won't take this one. */
  | { outcome: 'refused'; why: string };

const TIMEOUT_MS = 10_000;
const LONGEST_WAIT_MS = 60 * 60_000;
/** Refusals that pass by themselves: timeout, too early, too many requests. */
const PASSING = [408, 425, 429];

/** Never throws but for a bug, and when the signal aborts. */
export async function deliver(
  destination: Destination,
  body: string,
  signal: AbortSignal,
): Promise<Delivery> {
  // Tied by hand: on Node 22 a signal that lives long keeps something of each `AbortSignal.any` made of it.
  const attempt = new AbortController();
  const abort = (): void => attempt.abort();
  signal.addEventListener('abort', abort, { once: true });
  const timer = setTimeout(abort, TIMEOUT_MS);
  try {
    signal.throwIfAborted();
    const key = await destination.key?.();
    const response = await fetch(await destination.url(), {
      method: 'POST',
      body,
      headers: { 'content-type': 'application/json', ...(key === undefined ? {} : sign(key, body)) },
      redirect: 'manual',
      signal: attempt.signal,
    });
    await response.body?.cancel();
    const { status, ok, headers } = response;
    if (ok) return { outcome: 'delivered' };
    const why = `it answered ${status}`;
    if (status < 500 && !PASSING.includes(status)) return { outcome: 'refused', why };
    const seconds = Number(headers.get('retry-after') ?? Number.NaN);
    const waitMs = seconds >= 0 ? Math.min(LONGEST_WAIT_MS, seconds * 1000) : undefined;
    return { outcome: 'postponed', why, waitMs };
  } catch (error) {
    if (signal.aborted || !(error instanceof Error)) throw error;
    return { outcome: 'postponed', why: reasonOf(error) };
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', abort);
  }
}

function sign(key: string, body: string): Record<string, string> {
  return { 'x-signature': `sha256=${createHmac('sha256', key).update(body).digest('hex')}` };
}

/** `fetch failed` says nothing, its cause does; neither names the address. */
function reasonOf({ message, name, cause }: Error): string {
  if (name === 'AbortError') return 'it does not answer';
  if (!(cause instanceof Error) || name !== 'TypeError') return message;
  return (cause as NodeJS.ErrnoException).code ?? cause.message;
}
