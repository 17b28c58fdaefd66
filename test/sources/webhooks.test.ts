import { execFileSync } from 'node:child_process';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { isAuthenticWebhook, type WebhookProvider } from '../../src/sources/webhooks.ts';
import { hasTool, requireOrSkip } from '../support/requirements.ts';

const body = Buffer.from('{"ref":"refs/heads/main"}');
const secret = 'It is between us';

describe.runIf(requireOrSkip('openssl', hasTool('openssl')))('signatures that openssl made', () => {
  const sign = (algorithm: string): string =>
    execFileSync('openssl', ['dgst', `-${algorithm}`, '-hmac', secret, '-r'], { input: body })
      .toString()
      .slice(0, algorithm === 'sha512' ? 128 : 64);

  it.each<[WebhookProvider, string, string]>([
    ['GitHub', 'x-hub-signature-256', `sha256=${sign('sha256')}`],
    ['Gitea', 'x-gitea-signature', sign('sha256')],
    ['Generic', 'x-signature', `sha256=${sign('sha256')}`],
    ['Generic', 'x-signature', `sha512=${sign('sha512')}`],
    ['GitLab', 'x-gitlab-token', secret],
  ])('%s: %s is believed for this body and secret only', (provider, header, value) => {
    const headers = { [header]: value };
    expect(isAuthenticWebhook(provider, secret, { headers, body })).toBe(true);
    expect(isAuthenticWebhook(provider, `${secret}.`, { headers, body })).toBe(false);
    if (provider !== 'GitLab') {
      const other = Buffer.concat([body, Buffer.from(' ')]);
      expect(isAuthenticWebhook(provider, secret, { headers, body: other })).toBe(false);
    }
    for (const wrong of [undefined, '', value.slice(0, -1), `${value}0`, [value, value], `md5=${value}`]) {
      const request = { headers: { [header]: wrong as string }, body };
      expect(isAuthenticWebhook(provider, secret, request)).toBe(false);
    }
  });
});

it("agrees with GitHub's published example", () => {
  const headers = {
    'x-hub-signature-256': 'sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17',
  };
  const request = { headers, body: Buffer.from('Hello, World!') };
  expect(isAuthenticWebhook('GitHub', "It's a Secret to Everybody", request)).toBe(true);
});

it('believes no signature that was made up', () => {
  const providers = fc.constantFrom<WebhookProvider>('GitHub', 'GitLab', 'Gitea', 'Generic');
  fc.assert(
    fc.property(providers, fc.string({ unit: 'binary' }), fc.uint8Array(), (provider, claim, bytes) => {
      const headers = Object.fromEntries(
        ['x-hub-signature-256', 'x-gitlab-token', 'x-gitea-signature', 'x-signature'].map((name) => [
          name,
          claim,
        ]),
      );
      expect(isAuthenticWebhook(provider, secret, { headers, body: bytes })).toBe(false);
    }),
  );
});

it('takes an empty secret for the mistake it is', () => {
  expect(() => isAuthenticWebhook('GitLab', '', { headers: { 'x-gitlab-token': '' }, body })).toThrow(
    'secret',
  );
});
