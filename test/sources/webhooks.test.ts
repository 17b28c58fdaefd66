import { execFileSync } from 'node:child_process';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { isAuthenticWebhook, mayConcern, type WebhookProvider } from '../../src/sources/webhooks.ts';
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

it('GitLab: a signing token signs id, time and body, as openssl does, and is never taken for a secret token', () => {
  const key = Buffer.alloc(32, 7);
  const token = `whsec_${key.toString('base64')}`;
  const input = Buffer.concat([Buffer.from('msg_1.1674087231.'), body]);
  const mac = ['dgst', '-sha256', '-mac', 'HMAC', '-macopt', `hexkey:${key.toString('hex')}`, '-binary'];
  const signature = `v1,${execFileSync('openssl', mac, { input }).toString('base64')}`;
  const headers = {
    'webhook-id': 'msg_1',
    'webhook-timestamp': '1674087231',
    'webhook-signature': signature,
  };
  const accepts = (more: object, secretText = token) =>
    isAuthenticWebhook('GitLab', secretText, { headers: { ...headers, ...more }, body });
  expect(accepts({})).toBe(true);
  expect(accepts({ 'webhook-signature': `v1,AAAA ${signature}` })).toBe(true);
  for (const more of [
    { 'webhook-id': 'msg_2' },
    { 'webhook-timestamp': '1674087232' },
    { 'webhook-signature': signature.slice(3) },
    { 'webhook-signature': undefined, 'x-gitlab-token': token },
  ])
    expect(accepts(more)).toBe(false);
  expect(accepts({}, `whsec_${Buffer.alloc(32, 8).toString('base64')}`)).toBe(false);
});

it("agrees with Standard Webhooks' published example", () => {
  const request = {
    headers: {
      'webhook-id': 'msg_p5jXN8AQM9LWM0D4loKWxJek',
      'webhook-timestamp': '1614265330',
      'webhook-signature': 'v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=',
    },
    body: Buffer.from('{"test": 2432232314}'),
  };
  expect(isAuthenticWebhook('GitLab', 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw', request)).toBe(true);
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

describe('what a push may concern', () => {
  const told = (payload: object | string, ref?: object, type = 'application/json') =>
    mayConcern(
      {
        headers: { 'content-type': type },
        body: Buffer.from(typeof payload === 'string' ? payload : JSON.stringify(payload)),
      },
      ref,
    );
  const main = 'refs/heads/main';
  const tag = 'refs/tags/v1.2.0';

  it.each([
    ['the branch that is followed', told({ ref: main }, { branch: 'main' }), true],
    ['another one', told({ ref: 'refs/heads/other' }, { branch: 'main' }), false],
    ['the default branch', told({ ref: main, repository: { default_branch: 'main' } }), true],
    ['not the default branch', told({ ref: main, project: { default_branch: 'trunk' } }), false],
    ['nobody knows which is the default', told({ ref: main }), true],
    ['a tag, where versions are followed', told({ ref: tag }, { semver: '1' }), true],
    ['a branch, where versions are followed', told({ ref: main }, { semver: '1' }), false],
    ['the tag that is followed', told({ ref: tag }, { tag: 'v1.2.0' }), true],
    ['another tag', told({ ref: tag }, { tag: 'v2' }), false],
    ['a commit may come by any branch', told({ ref: main }, { commit: 'a'.repeat(40) }), true],
    ['no push at all', told({ zen: 'Design for failure.' }, { branch: 'main' }), true],
    ['no JSON at all', told('\u0000', { branch: 'main' }), true],
    ['null', told('null', { branch: 'main' }), true],
    [
      'a form, as GitHub sends it if told to',
      told(
        `payload=${encodeURIComponent(JSON.stringify({ ref: 'refs/heads/other' }))}`,
        { branch: 'main' },
        'application/x-www-form-urlencoded',
      ),
      false,
    ],
  ])('%s', (_, found, expected) => {
    expect(found).toBe(expected);
  });
});
