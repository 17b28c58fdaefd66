/**
 * HTTP as registries need it. undici rather than Node's own fetch: fetch gives no hold on proxies, certificates and
 * the Authorization header of redirects, and copies every body through web streams.
 */

import type { Readable } from 'node:stream';
import { getCACertificates } from 'node:tls';
import type { Dispatcher } from 'undici';
import { CimletError } from '../../errors.ts';
import type { TlsSettings } from './endpoints.ts';
import { explainNetworkError } from './network-errors.ts';
import { type ProxySettings, proxyFor } from './proxies.ts';

export interface HttpRequest {
  method: 'GET' | 'HEAD' | 'POST' | 'PUT';
  url: URL;
  /** Names in lower case. Those that only concern the host asked are not sent to where it redirects. */
  headers: readonly (readonly [name: string, value: string])[];
  /** A function makes it anew for each attempt. */
  body?: string | Uint8Array | (() => Readable) | undefined;
  tls: TlsSettings;
  connectTimeoutMs?: number | undefined;
}

export interface HttpResponse {
  status: number;
  headers: Record<string, string | string[] | undefined>;
  /** Must be read to its end or destroyed. */
  body: Dispatcher.ResponseData['body'];
  /** Where the answer came from, after redirects. */
  url: URL;
}

/** The connections of one session. Nothing is kept open after `close`. */
export interface HttpClient {
  /** Follows redirects; any status is an answer. Throws `unavailable`, `access-denied` (TLS), `cancelled`. */
  send(request: HttpRequest, signal: AbortSignal): Promise<HttpResponse>;
  close(): Promise<void>;
}

const MOST_REDIRECTS = 10;
const REDIRECTS = [301, 302, 303, 307, 308];
/** Headers that any host may see. */
const HARMLESS = ['accept', 'range', 'user-agent', 'accept-encoding'];
const CONNECT_TIMEOUT_MS = 30_000;
/** Until headers arrive, and between any two pieces of a body. */
const SILENCE_TIMEOUT_MS = 60_000;

export function createHttpClient(proxies: ProxySettings): HttpClient {
  const dispatchers = new Map<string, Promise<Dispatcher>>();

  const dispatcherFor = (
    url: URL,
    tls: TlsSettings,
    connectTimeoutMs = CONNECT_TIMEOUT_MS,
  ): Promise<Dispatcher> => {
    const proxy = proxyFor(url, proxies);
    const key = JSON.stringify([proxy, tls, connectTimeoutMs]);
    const known = dispatchers.get(key);
    if (known !== undefined) return known;
    const created = createDispatcher(proxy, tls, connectTimeoutMs);
    dispatchers.set(key, created);
    return created;
  };

  return {
    async send(request, signal) {
      let { url, tls, headers } = request;
      for (let redirects = 0; ; redirects++) {
        const response = await sendOnce(
          { ...request, url, headers },
          await dispatcherFor(url, tls, request.connectTimeoutMs),
          signal,
        );
        const location = REDIRECTS.includes(response.status) ? response.headers.location : undefined;
        if (typeof location !== 'string' || request.method === 'POST' || request.method === 'PUT')
          return { ...response, url };
        await discard(response);
        if (redirects === MOST_REDIRECTS) {
          throw new CimletError('unavailable', `${nameOf(request)}: more than ${MOST_REDIRECTS} redirects`);
        }
        const next = redirectTarget(url, location, request);
        if (next.origin !== url.origin) {
          headers = headers.filter(([name]) => HARMLESS.includes(name));
          tls = { ...tls, clients: [] };
        }
        url = next;
      }
    },
    async close() {
      await Promise.all([...dispatchers.values()].map(async (dispatcher) => (await dispatcher).destroy()));
      dispatchers.clear();
    },
  };
}

/** Reads what is left of a body that nobody wants, so that the connection can be used again. */
export async function discard({ body }: Pick<HttpResponse, 'body'>): Promise<void> {
  try {
    await body.dump({ limit: 64 << 10 });
  } catch {
    // Then the connection is gone, and the next request opens another one.
  }
}

/** Closes the connection that a body comes from; what that breaks off is no error. */
export function abandon(body: Readable): void {
  body.on('error', () => undefined);
  body.destroy();
}

/** undici takes a while to load, and most commands never ask a registry. */
async function createDispatcher(
  proxy: string | undefined,
  tls: TlsSettings,
  connectTimeoutMs: number,
): Promise<Dispatcher> {
  const { Agent, ProxyAgent } = await import('undici');
  const secure = {
    rejectUnauthorized: !tls.skipVerify,
    ...(tls.ca.length === 0 ? {} : { ca: [...getCACertificates('default'), ...tls.ca] }),
    ...(tls.clients.length === 0
      ? {}
      : { cert: tls.clients.map(({ cert }) => cert), key: tls.clients.map(({ key }) => key) }),
  };
  const common = { headersTimeout: SILENCE_TIMEOUT_MS, bodyTimeout: SILENCE_TIMEOUT_MS };
  if (proxy === undefined) return new Agent({ ...common, connect: { ...secure, timeout: connectTimeoutMs } });
  const url = new URL(proxy);
  const token =
    url.username === ''
      ? {}
      : {
          token: `Basic ${Buffer.from(`${decodeURIComponent(url.username)}:${decodeURIComponent(url.password)}`).toString('base64')}`,
        };
  // With a password in the address, undici would put it into the messages of its errors.
  const uri = url.origin;
  return new ProxyAgent({ ...common, uri, ...token, requestTls: secure, proxyTunnel: false });
}

async function sendOnce(
  request: HttpRequest,
  dispatcher: Dispatcher,
  signal: AbortSignal,
): Promise<HttpResponse> {
  const { method, url, body } = request;
  try {
    const {
      statusCode,
      headers,
      body: content,
    } = await dispatcher.request({
      origin: url.origin,
      path: url.pathname + url.search,
      method,
      headers: request.headers.flat(),
      body: (typeof body === 'function' ? body() : body) ?? null,
      signal,
    });
    return { status: statusCode, headers, body: content, url };
  } catch (error) {
    throw explainNetworkError(error, nameOf(request), signal);
  }
}

/** What is asked of whom, without the query: redirects carry signatures there. */
function nameOf({ method, url }: Pick<HttpRequest, 'method' | 'url'>): string {
  return `${method} ${url.origin}${url.pathname}`;
}

/** Plain HTTP only where it was asked for from the start. */
function redirectTarget(from: URL, location: string, request: HttpRequest): URL {
  if (!URL.canParse(location, from.href)) {
    throw new CimletError('unavailable', `${nameOf(request)}: redirected to no address`);
  }
  const next = new URL(location, from);
  const isDowngrade =
    next.protocol !== 'https:' && (next.protocol !== 'http:' || request.url.protocol === 'https:');
  if (isDowngrade) {
    throw new CimletError(
      'access-denied',
      `${nameOf(request)}: redirected to ${next.origin}, which is not https`,
      {
        hint: 'the registry has to be set up to redirect to https',
      },
    );
  }
  next.username = '';
  next.password = '';
  return next;
}
