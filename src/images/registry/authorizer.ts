/**
 * What a request carries to be let in: nothing, a password, or a token fetched for the scope the registry names.
 * Sources: distribution docs/spec/auth/token.md and oauth.md.
 */

import { CimletError, isErrorCode } from '../../errors.ts';
import { readAnswer } from './answers.ts';
import { parseChallenges } from './challenge.ts';
import type { Credentials } from './credentials.ts';
import type { Endpoint } from './endpoints.ts';
import { discard, type HttpClient, type HttpResponse } from './http.ts';
import { parseRetryAfter, TransientError } from './retry.ts';

export interface Authorizer {
  /** The header's value for a scope; undefined while nothing is known to be needed. */
  headerFor(endpoint: Endpoint, scope: string): string | undefined;
  /**
   * Takes in a 401. True when asking again may do better; false when nothing more can be done. Throws when the token
   * server refuses (`access-denied`) or fails (`unavailable`).
   */
  answerChallenge(refusal: Refusal, signal: AbortSignal): Promise<boolean>;
}

export interface Refusal {
  endpoint: Endpoint;
  scope: string;
  /** The Authorization header that was refused. */
  used: string | undefined;
  response: HttpResponse;
}

interface Grant {
  header: string;
  /** Milliseconds since the epoch. */
  expiresAt: number;
}

/** What a token lives at least and unless the server says otherwise. */
const SHORTEST_LIFE_MS = 60_000;
/** A token this close to its end counts as expired: the request takes time, and clocks differ. */
const MARGIN_MS = 5_000;
const TOKEN_LIMIT = 1 << 20;
const CLIENT_ID = 'cimlet';

export function createAuthorizer(
  http: HttpClient,
  findCredentials: (host: string, signal: AbortSignal) => Promise<Credentials | undefined>,
  now: () => number = Date.now,
): Authorizer {
  const grants = new Map<string, Grant>();
  /** Requests that are refused at the same time share one token. */
  const underway = new Map<string, Promise<Grant | undefined>>();
  const keyOf = (endpoint: Endpoint, scope: string) => `${endpoint.base} ${scope}`;

  const obtain = async (
    { endpoint, scope, response }: Refusal,
    signal: AbortSignal,
  ): Promise<Grant | undefined> => {
    const challenges = parseChallenges(headerText(response.headers['www-authenticate']));
    const bearer = challenges.find(({ scheme, parameters }) => scheme === 'bearer' && 'realm' in parameters);
    const basic = challenges.some(({ scheme }) => scheme === 'basic');
    if (bearer === undefined && !basic) return undefined;
    const credentials = await findCredentials(endpoint.host, signal);
    if (credentials?.kind === 'registryToken') {
      return { header: `Bearer ${credentials.token}`, expiresAt: Number.POSITIVE_INFINITY };
    }
    if (bearer === undefined) return basicGrant(credentials);
    const { parameters } = bearer;
    return fetchToken(http, { endpoint, scope, parameters, credentials, now }, signal);
  };

  return {
    headerFor(endpoint, scope) {
      const grant = grants.get(keyOf(endpoint, scope));
      return grant === undefined || grant.expiresAt - MARGIN_MS <= now() ? undefined : grant.header;
    },

    async answerChallenge(refusal, signal) {
      const key = keyOf(refusal.endpoint, refusal.scope);
      const current = this.headerFor(refusal.endpoint, refusal.scope);
      if (current !== undefined && current !== refusal.used) return true;
      const obtaining = underway.get(key) ?? obtain(refusal, signal);
      underway.set(key, obtaining);
      try {
        const grant = await obtaining;
        if (grant === undefined || grant.header === refusal.used) return false;
        grants.set(key, grant);
        return true;
      } catch (error) {
        // Who began it was cancelled, and not who waits for it as well.
        if (isErrorCode(error, 'cancelled') && !signal.aborted) return true;
        throw error;
      } finally {
        if (underway.get(key) === obtaining) underway.delete(key);
      }
    },
  };
}

function basicGrant(credentials: Credentials | undefined): Grant | undefined {
  if (credentials?.kind !== 'password') return undefined;
  return { header: basicHeader(credentials), expiresAt: Number.POSITIVE_INFINITY };
}

function basicHeader({ username, password }: Extract<Credentials, { kind: 'password' }>): string {
  return `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`;
}

interface TokenRequest {
  endpoint: Endpoint;
  scope: string;
  /** realm, service and scope of the challenge. */
  parameters: Record<string, string>;
  credentials: Credentials | undefined;
  now: () => number;
}

async function fetchToken(http: HttpClient, request: TokenRequest, signal: AbortSignal): Promise<Grant> {
  const { endpoint, parameters, credentials } = request;
  const realm = parseRealm(parameters.realm ?? '', endpoint);
  const scope = parameters.scope ?? request.scope;
  const asked = request.now();
  const response =
    credentials?.kind === 'identityToken'
      ? await postForm(http, realm, request, { scope, token: credentials.token }, signal)
      : await getToken(http, realm, request, scope, signal);
  const { status } = response;
  const operation = `sign in to ${endpoint.host} at ${realm.origin}${realm.pathname}`;
  if (status === 401 || status === 403 || status === 400) {
    await discard(response);
    const who = credentials === undefined ? 'anonymous access is refused' : 'the credentials are refused';
    throw new CimletError('access-denied', `${operation}: ${who} (HTTP ${status})`, {
      hint: 'check registry.credentials or docker login, and that the account may pull this repository',
    });
  }
  if (status !== 200) {
    await discard(response);
    const retryAfterMs = parseRetryAfter(response.headers['retry-after'], request.now());
    throw new TransientError(`${operation}: the token server answers HTTP ${status}`, { retryAfterMs });
  }
  const answer = await readAnswer(response, operation, TOKEN_LIMIT, signal);
  return readGrant(answer.toString('utf8'), operation, asked);
}

/** Passwords are not sent in the clear because a registry, or somebody before it, says so. */
function parseRealm(text: string, endpoint: Endpoint): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const isSafe =
    url?.protocol === 'https:' || (url?.protocol === 'http:' && endpoint.base.startsWith('http:'));
  if (url !== undefined && isSafe) {
    url.username = '';
    url.password = '';
    return url;
  }
  throw new CimletError(
    'access-denied',
    `sign in to ${endpoint.host}: its token server ${JSON.stringify(text)} is no https address`,
  );
}

function getToken(
  http: HttpClient,
  realm: URL,
  { endpoint, parameters, credentials }: TokenRequest,
  scope: string,
  signal: AbortSignal,
): Promise<HttpResponse> {
  const url = new URL(realm.href);
  if (parameters.service !== undefined) url.searchParams.set('service', parameters.service);
  for (const each of scope.split(' ').filter((part) => part !== '')) url.searchParams.append('scope', each);
  const headers: [string, string][] = [['accept', 'application/json']];
  if (credentials?.kind === 'password') {
    url.searchParams.set('account', credentials.username);
    headers.push(['authorization', basicHeader(credentials)]);
  }
  return http.send({ method: 'GET', url, headers, tls: tlsFor(realm, endpoint) }, signal);
}

function postForm(
  http: HttpClient,
  realm: URL,
  { endpoint, parameters }: TokenRequest,
  { scope, token }: { scope: string; token: string },
  signal: AbortSignal,
): Promise<HttpResponse> {
  const form = new URLSearchParams({
    grant_type: 'refresh_token',
    service: parameters.service ?? endpoint.host,
    client_id: CLIENT_ID,
    scope,
    refresh_token: token,
  });
  const headers: [string, string][] = [
    ['accept', 'application/json'],
    ['content-type', 'application/x-www-form-urlencoded'],
  ];
  return http.send(
    { method: 'POST', url: realm, headers, body: form.toString(), tls: tlsFor(realm, endpoint) },
    signal,
  );
}

/** A client's certificate is for the registry's own host only. */
function tlsFor(realm: URL, { base, tls }: Endpoint): Endpoint['tls'] {
  return realm.origin === new URL(base).origin ? tls : { ...tls, clients: [] };
}

interface TokenAnswer {
  token?: unknown;
  access_token?: unknown;
  expires_in?: unknown;
  issued_at?: unknown;
}

function readGrant(text: string, operation: string, asked: number): Grant {
  let answer: TokenAnswer | undefined;
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === 'object' && value !== null) answer = value;
  } catch {
    // The parser's message would quote a token.
  }
  const token = answer?.token ?? answer?.access_token;
  if (typeof token !== 'string' || token === '' || /[\r\n]/.test(token)) {
    throw new TransientError(`${operation}: the token server's answer has no token`);
  }
  const seconds = typeof answer?.expires_in === 'number' ? answer.expires_in : 0;
  return { header: `Bearer ${token}`, expiresAt: asked + Math.max(SHORTEST_LIFE_MS, seconds * 1000) };
}

function headerText(value: string | string[] | undefined): string {
  return Array.isArray(value) ? value.join(', ') : (value ?? '');
}
