/** One request to a registry's API and its answer, signed in where the registry wants it. */

import { type Answer, secretsOf } from './answers.ts';
import type { Authorizer, Refusal } from './authorizer.ts';
import type { Endpoint } from './endpoints.ts';
import { abandon, discard, type HttpClient, type HttpRequest } from './http.ts';
import type { Backoff } from './retry.ts';

export interface RegistryServices {
  http: HttpClient;
  authorizer: Authorizer;
  backoff: Backoff;
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

/** Signs in when asked to, once or, when a token has just expired, twice. */
export async function sendSigned(
  { http, authorizer }: RegistryServices,
  { endpoint, scope, request }: SignedRequest,
  signal: AbortSignal,
): Promise<Answer> {
  for (let attempts = 0; ; attempts++) {
    const used = authorizer.headerFor(endpoint, scope);
    const headers =
      used === undefined ? request.headers : [...request.headers, ['authorization', used] as const];
    const response = await http.send({ ...request, headers }, signal);
    const isOwn = response.url.origin === request.url.origin;
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
