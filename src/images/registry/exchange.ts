/** One request to a registry's API and its answer, signed in where the registry wants it. */

import { type Answer, secretsOf } from './answers.ts';
import type { Authorizer, Refusal } from './authorizer.ts';
import type { Endpoint } from './endpoints.ts';
import { abandon, discard, type HttpClient, type HttpRequest } from './http.ts';
import type { RestingHosts } from './resting-hosts.ts';
import { type Backoff, parseRetryAfter } from './retry.ts';

export interface RegistryServices {
  http: HttpClient;
  authorizer: Authorizer;
  backoff: Backoff;
  resting: RestingHosts;
  /** In the order they are tried. */
  findEndpoints(registry: string): Promise<Endpoint[]>;
}

export interface SignedRequest {
  endpoint: Endpoint;
  /** What the token must allow: `repository:library/nginx:pull`. */
  scope: string;
  request: HttpRequest;
}

const USER_AGENT = 'cimlet';

/**
 * Signs in when asked to, once or, when a token has just expired, twice. Throws as `HttpClient.send` and the authorizer do,
 * and `unavailable` while the host wants to be left alone.
 */
export async function sendSigned(
  { http, authorizer, resting }: RegistryServices,
  { endpoint, scope, request }: SignedRequest,
  signal: AbortSignal,
): Promise<Answer> {
  for (let attempts = 0; ; attempts++) {
    resting.check(endpoint.host, `${request.method} ${request.url.origin}${request.url.pathname}`);
    const used = authorizer.headerFor(endpoint, scope);
    const headers = signed(request.headers, used);
    const response = await http.send({ ...request, headers }, signal);
    const isOwn = response.url.origin === request.url.origin;
    if (response.status === 429 && isOwn) {
      const pauseMs = parseRetryAfter(response.headers['retry-after'], Date.now());
      if (pauseMs !== undefined) resting.add(endpoint.host, pauseMs);
    }
    const isRefused = response.status === 401 && isOwn && attempts < 2;
    const answer = {
      ...response,
      secrets: [...secretsOf(used), ...endpoint.headers.map(([, value]) => value)],
    };
    if (!isRefused) return answer;
    if (!(await signIn(authorizer, { endpoint, scope, used, response }, signal))) return answer;
    await discard(response);
  }
}

/** In place of an Authorization that hosts.toml gives: that one was refused. */
function signed(headers: HttpRequest['headers'], authorization: string | undefined): HttpRequest['headers'] {
  if (authorization === undefined) return headers;
  return [...headers.filter(([name]) => name !== 'authorization'), ['authorization', authorization]];
}

/** `path` is below the API's root: `library/nginx/manifests/latest`. */
export function requestTo(
  endpoint: Endpoint,
  method: HttpRequest['method'],
  path: string,
  headers: readonly (readonly [string, string])[],
): HttpRequest {
  const url = new URL(`${endpoint.base}/${path}`);
  if (endpoint.mirrorOf !== undefined) url.searchParams.set('ns', endpoint.mirrorOf);
  const { tls, connectTimeoutMs } = endpoint;
  return {
    method,
    url,
    headers: [...standardHeaders(), ...endpoint.headers, ...headers],
    tls,
    connectTimeoutMs,
  };
}

export function standardHeaders(): [string, string][] {
  return [
    ['user-agent', USER_AGENT],
    ['accept-encoding', 'identity'],
  ];
}

async function signIn(authorizer: Authorizer, refusal: Refusal, signal: AbortSignal): Promise<boolean> {
  try {
    return await authorizer.answerChallenge(refusal, signal);
  } catch (error) {
    abandon(refusal.response.body);
    throw error;
  }
}
