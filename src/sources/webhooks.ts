/** Webhooks of git servers: whether one was sent by somebody who knows the secret, and what it tells of. */

import { createHash, createHmac, timingSafeEqual } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';
import type { GitRef } from '../manifests/types.gen.ts';

export type WebhookProvider = 'GitHub' | 'GitLab' | 'Gitea' | 'Generic';

export interface WebhookRequest {
  /** Names in lower case, as node:http has them. */
  headers: IncomingHttpHeaders;
  /** The bytes as they came: parsing and writing again gives others. */
  body: Uint8Array;
}

/** What GitLab's signing tokens begin with. */
const SIGNING_TOKEN = 'whsec_';
const MOST_SIGNATURES = 8;

/**
 * How each provider proves it.
 * - GitHub: `X-Hub-Signature-256: sha256=<hex>` (docs.github.com, "Validating webhook deliveries").
 * - GitLab: with a signing token (`whsec_<base64 of the key>`) `webhook-signature: v1,<base64>` over id, timestamp and body, as
 *   Standard Webhooks (standardwebhooks.com) has it; one that comes again is harmless here, and clocks may differ, so that its
 *   age counts for nothing. With a secret token that itself, `X-Gitlab-Token` (docs.gitlab.com, "Webhooks").
 * - Gitea, Forgejo: `X-Gitea-Signature: <hex>` (docs.gitea.com, "Webhooks").
 * - Generic: `X-Signature: sha256=<hex>` or `sha512=<hex>`, as Flux's generic-hmac receiver.
 */
const CHECKS: Record<WebhookProvider, (secret: string, request: WebhookRequest) => boolean> = {
  GitHub: (secret, { headers, body }) =>
    isHmac('sha256', secret, body, stripPrefix('sha256=', headerOf(headers, 'x-hub-signature-256'))),
  GitLab: (secret, request) =>
    secret.startsWith(SIGNING_TOKEN)
      ? isStandardWebhook(secret.slice(SIGNING_TOKEN.length), request)
      : isSame(secret, headerOf(request.headers, 'x-gitlab-token')),
  Gitea: (secret, { headers, body }) =>
    isHmac('sha256', secret, body, headerOf(headers, 'x-gitea-signature')),
  Generic: (secret, { headers, body }) => {
    const [, algorithm, signature] = /^(sha256|sha512)=(.*)$/.exec(headerOf(headers, 'x-signature')) ?? [];
    return algorithm !== undefined && isHmac(algorithm, secret, body, signature ?? '');
  },
};

/** Of several signatures, while a key is replaced, one is enough. */
function isStandardWebhook(key: string, { headers, body }: WebhookRequest): boolean {
  const id = headerOf(headers, 'webhook-id');
  const timestamp = headerOf(headers, 'webhook-timestamp');
  const claims = headerOf(headers, 'webhook-signature').split(' ').slice(0, MOST_SIGNATURES);
  const signed = createHmac('sha256', Buffer.from(key, 'base64')).update(`${id}.${timestamp}.`).update(body);
  const expected = `v1,${signed.digest('base64')}`;
  return id !== '' && timestamp !== '' && claims.map((claim) => isSame(expected, claim)).includes(true);
}

/** True when the request carries the proof. Takes as long for a wrong one as for a right one. */
export function isAuthenticWebhook(
  provider: WebhookProvider,
  secret: string,
  request: WebhookRequest,
): boolean {
  if (secret === '') throw new Error('a webhook needs a secret that is not empty');
  return CHECKS[provider](secret, request);
}

/**
 * Whether what it tells of may concern who follows `ref`: false for a push to another branch or tag. All four tell
 * the full name of what was pushed as `ref`, GitHub as a form too if so configured. In doubt it does.
 */
export function mayConcern({ headers, body }: WebhookRequest, ref: GitRef | undefined): boolean {
  const isForm = headerOf(headers, 'content-type').startsWith('application/x-www-form-urlencoded');
  const text = Buffer.from(body).toString('utf8');
  const told = parseObject(isForm ? (new URLSearchParams(text).get('payload') ?? '') : text);
  const pushed = told.ref;
  if (typeof pushed !== 'string' || !/^refs\/(heads|tags)\//.test(pushed)) return true;
  if (ref?.commit !== undefined) return true;
  if (ref?.semver !== undefined) return pushed.startsWith('refs/tags/');
  if (ref?.tag !== undefined) return pushed === `refs/tags/${ref.tag}`;
  const { default_branch: standard } = objectOf(told.repository ?? told.project);
  const branch = ref?.branch ?? standard;
  return branch === undefined || pushed === `refs/heads/${branch}`;
}

function parseObject(text: string): Record<string, unknown> {
  try {
    return objectOf(JSON.parse(text));
  } catch {
    // What isn't JSON tells nothing.
    return {};
  }
}

function objectOf(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
}

/** Empty when missing, and when sent more than once: which one counts would be a guess. */
function headerOf(headers: IncomingHttpHeaders, name: string): string {
  const value = headers[name];
  return typeof value === 'string' ? value : '';
}

function stripPrefix(prefix: string, value: string): string {
  return value.startsWith(prefix) ? value.slice(prefix.length) : '';
}

function isHmac(algorithm: string, secret: string, body: Uint8Array, claimed: string): boolean {
  return isSame(createHmac(algorithm, secret).update(body).digest('hex'), claimed.toLowerCase());
}

/** Compares digests: they have one length, and tell nothing of where the texts differ. */
function isSame(expected: string, claimed: string): boolean {
  const digest = (text: string): Buffer => createHash('sha256').update(text).digest();
  return timingSafeEqual(digest(expected), digest(claimed));
}
