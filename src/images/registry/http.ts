/**
 * HTTP as registries need it. undici rather than Node's own fetch: fetch gives no hold on proxies, certificates and
 * the Authorization header of redirects, and copies every body through web streams.
 */

import type { Readable } from 'node:stream';
import { getCACertificates } from 'node:tls';
import type { Dispatcher } from 'undici';
import { CimletError } from '../../errors.ts';
import { MINIMUM_RATE, type MinimumRate } from './minimum-rate.ts';
import { explainNetworkError } from './network-errors.ts';
import { type ProxyServer, type ProxySettings, proxyFor } from './proxies.ts';
import type { TlsSettings } from './tls-files.ts';

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
  /** What of the body has to come while it is read. */
  minimumRate: MinimumRate;
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
const DISCARD_TIMEOUT_MS = 1000;
/** Ways to connect: each keeps its connections for a while. */
const MOST_DISPATCHERS = 32;

export function createHttpClient(
  proxies: ProxySettings,
  minimumRate: MinimumRate = MINIMUM_RATE,
): HttpClient {
  /** Those used last are the last. */
  const dispatchers = new Map<string, Dispatcher>();
  /** Still busy with what they were asked before others took their place. */
  const retiring = new Set<Dispatcher>();

  const retire = (dispatcher: Dispatcher): void => {
    retiring.add(dispatcher);
    const forget = () => {
      retiring.delete(dispatcher);
    };
    // It fails when the session ends before: then it is gone as well.
    dispatcher.close().then(forget, forget);
  };

  /** Files that say how to connect are read each time, and may change for as long as a session lasts. */
  const dispatcherFor = async (
    url: URL,
    tls: TlsSettings,
    connectTimeoutMs = CONNECT_TIMEOUT_MS,
  ): Promise<Dispatcher> => {
    const proxy = proxyFor(url, proxies);
    const key = JSON.stringify([proxy, tls, connectTimeoutMs]);
    // undici takes a while to load, and most commands never ask a registry.
    const undici = await import('undici');
    const dispatcher = dispatchers.get(key) ?? createDispatcher(undici, proxy, tls, connectTimeoutMs);
    dispatchers.delete(key);
    dispatchers.set(key, dispatcher);
    for (const [oldestKey, oldest] of dispatchers) {
      if (dispatchers.size <= MOST_DISPATCHERS) break;
      dispatchers.delete(oldestKey);
      retire(oldest);
    }
    return dispatcher;
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
          return { ...response, url, minimumRate };
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
      await Promise.all([...dispatchers.values(), ...retiring].map((dispatcher) => dispatcher.destroy()));
      dispatchers.clear();
    },
  };
}

/** Reads what is left of a body that nobody wants, so that the connection can be used again, unless that takes long. */
export async function discard({ body }: Pick<HttpResponse, 'body'>): Promise<void> {
  try {
    await body.dump({ limit: 64 << 10, signal: AbortSignal.timeout(DISCARD_TIMEOUT_MS) });
  } catch {
    // Then the connection is gone, and the next request opens another one.
  }
}

/** Closes the connection that a body comes from; what that breaks off is no error. */
export function abandon(body: Readable): void {
  body.on('error', () => undefined);
  body.destroy();
}

function createDispatcher(
  { Agent, ProxyAgent }: Pick<typeof import('undici'), 'Agent' | 'ProxyAgent'>,
  proxy: ProxyServer | undefined,
  tls: TlsSettings,
  connectTimeoutMs: number,
): Dispatcher {
  const secure = {
    rejectUnauthorized: !tls.skipVerify,
    ...(tls.ca.length === 0 ? {} : { ca: [...getCACertificates('default'), ...tls.ca] }),
    ...(tls.clients.length === 0
      ? {}
      : { cert: tls.clients.map(({ cert }) => cert), key: tls.clients.map(({ key }) => key) }),
  };
  const common = { headersTimeout: SILENCE_TIMEOUT_MS, bodyTimeout: SILENCE_TIMEOUT_MS };
  if (proxy === undefined) return new Agent({ ...common, connect: { ...secure, timeout: connectTimeoutMs } });
  const { uri, token } = proxy;
  return new ProxyAgent({
    ...common,
    uri,
    ...(token === undefined ? {} : { token }),
    requestTls: secure,
    proxyTunnel: false,
  });
}

async function sendOnce(
  request: HttpRequest,
  dispatcher: Dispatcher,
  signal: AbortSignal,
): Promise<Omit<HttpResponse, 'minimumRate'>> {
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
