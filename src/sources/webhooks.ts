/** Whether a webhook was sent by somebody who knows the secret. */

import { createHash, createHmac, timingSafeEqual } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';

export type WebhookProvider = 'GitHub' | 'GitLab' | 'Gitea' | 'Generic';

export interface WebhookRequest {
  /** Names in lower case, as node:http has them. */
  headers: IncomingHttpHeaders;
  /** The bytes as they came: parsing and writing again gives others. */
  body: Uint8Array;
}

/**
 * How each provider proves it.
 * - GitHub: `X-Hub-Signature-256: sha256=<hex>` (docs.github.com, "Validating webhook deliveries").
 * - GitLab: `X-Gitlab-Token: <secret>` itself (docs.gitlab.com, "Webhooks", secret token).
 * - Gitea, Forgejo: `X-Gitea-Signature: <hex>` (docs.gitea.com, "Webhooks").
 * - Generic: `X-Signature: sha256=<hex>` or `sha512=<hex>`, as Flux's generic-hmac receiver.
 */
const CHECKS: Record<WebhookProvider, (secret: string, request: WebhookRequest) => boolean> = {
  GitHub: (secret, { headers, body }) =>
    isHmac('sha256', secret, body, stripPrefix('sha256=', headerOf(headers, 'x-hub-signature-256'))),
  GitLab: (secret, { headers }) => isSame(secret, headerOf(headers, 'x-gitlab-token')),
  Gitea: (secret, { headers, body }) =>
    isHmac('sha256', secret, body, headerOf(headers, 'x-gitea-signature')),
  Generic: (secret, { headers, body }) => {
    const [, algorithm, signature] = /^(sha256|sha512)=(.*)$/.exec(headerOf(headers, 'x-signature')) ?? [];
    return algorithm !== undefined && isHmac(algorithm, secret, body, signature ?? '');
  },
};

/** True when the request carries the proof. Takes as long for a wrong one as for a right one. */
export function isAuthenticWebhook(
  provider: WebhookProvider,
  secret: string,
  request: WebhookRequest,
): boolean {
  if (secret === '') throw new Error('a webhook needs a secret that is not empty');
  return CHECKS[provider](secret, request);
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
