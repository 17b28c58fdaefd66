/** Proxies by environment, and a real one in between. */

import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { expect, it } from 'vitest';
import { createHttpClient, discard } from '../../../src/images/registry/http.ts';
import { proxyFor, proxySettingsOf } from '../../../src/images/registry/proxies.ts';
import { everythingSaid } from './registry-fixture.ts';

it.each([
  ['https://r.example/', {}, undefined],
  ['https://r.example/', { HTTPS_PROXY: 'http://p:3128' }, 'http://p:3128'],
  ['https://r.example/', { https_proxy: 'p:3128', HTTPS_PROXY: 'http://other' }, 'http://p:3128'],
  ['https://r.example/', { HTTP_PROXY: 'http://p' }, undefined],
  ['http://r.example/', { HTTP_PROXY: 'http://p' }, 'http://p'],
  ['https://localhost:5000/', { HTTPS_PROXY: 'http://p' }, undefined],
  ['https://127.0.0.9/', { HTTPS_PROXY: 'http://p' }, undefined],
  ['https://[::1]/', { HTTPS_PROXY: 'http://p' }, undefined],
  ['https://r.example/', { HTTPS_PROXY: 'http://p', NO_PROXY: '*' }, undefined],
  ['https://r.example/', { HTTPS_PROXY: 'http://p', NO_PROXY: 'a.example, r.example' }, undefined],
  ['https://x.r.example/', { HTTPS_PROXY: 'http://p', NO_PROXY: '.r.example' }, undefined],
  ['https://xr.example/', { HTTPS_PROXY: 'http://p', NO_PROXY: 'r.example' }, 'http://p'],
  ['https://r.example:5000/', { HTTPS_PROXY: 'http://p', NO_PROXY: 'r.example:443' }, 'http://p'],
  ['https://r.example/', { HTTPS_PROXY: 'http://p', NO_PROXY: 'r.example:443' }, undefined],
  ['https://10.1.2.3/', { HTTPS_PROXY: 'http://p', NO_PROXY: '10.0.0.0/8' }, undefined],
  ['https://11.1.2.3/', { HTTPS_PROXY: 'http://p', NO_PROXY: '10.0.0.0/8,x/y,10.0.0.0/99' }, 'http://p'],
  ['https://[fd00::5]/', { HTTPS_PROXY: 'http://p', NO_PROXY: 'fd00::/16' }, undefined],
])('%s with %j goes through %s', (url, env, expected) => {
  expect(proxyFor(new URL(url), proxySettingsOf(env))?.uri).toBe(expected);
});

it.each([
  ['http://me:pass-word-5@proxy:99999', 'is no address of a proxy'],
  ['me:pass-word-5@pro xy', 'is no address of a proxy'],
  ['http://', 'is no address of a proxy'],
  ['http://me:50%pass-word-5@proxy:3128', 'percent sign'],
  ['socks5://me:pass-word-5@proxy:1080', '"socks5"'],
])('the variable %s is refused, without what is in it', async (value, message) => {
  const client = createHttpClient(proxySettingsOf({ HTTPS_PROXY: value }));
  const tls = { skipVerify: false, ca: [], clients: [] };
  const url = new URL('https://registry.test/v2/');
  try {
    // What failed isn't kept: it fails so again.
    for (const _attempt of [1, 2]) {
      const error = await client
        .send({ method: 'GET', url, headers: [], tls }, AbortSignal.timeout(20_000))
        .catch((thrown: unknown) => thrown);
      expect(error).toMatchObject({
        code: 'failed-precondition',
        message: expect.stringContaining(message),
      });
      expect((error as Error).message).toMatch(/^the variable HTTPS_PROXY /);
      expect(everythingSaid(error)).not.toContain('pass-word-5');
    }
  } finally {
    await client.close();
  }
});

it('passwords of proxies are written as in any address', () => {
  const settings = proxySettingsOf({ HTTPS_PROXY: 'http://me:a%40b%25@proxy:3128' });
  expect(proxyFor(new URL('https://registry.test'), settings)).toEqual({
    uri: 'http://proxy:3128',
    token: `Basic ${Buffer.from('me:a@b%').toString('base64')}`,
  });
});

it('a proxy is asked with its password, which no error tells', async () => {
  const seen: string[] = [];
  const proxy = createServer((request, response) => {
    seen.push(`${request.method} ${request.url} ${request.headers['proxy-authorization']}`);
    response.end('through the proxy');
  });
  proxy.on('connect', (request, socket) => {
    seen.push(`CONNECT ${request.url} ${request.headers['proxy-authorization']}`);
    socket.end('HTTP/1.1 403 Forbidden\r\n\r\n');
  });
  await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve));
  const { port } = proxy.address() as AddressInfo;
  const address = `http://me:pass-word-5@127.0.0.1:${port}`;
  const client = createHttpClient({ http: address, https: address });
  const signal = AbortSignal.timeout(20_000);
  const tls = { skipVerify: false, ca: [], clients: [] };
  try {
    const url = new URL('http://registry.test/v2/');
    const response = await client.send({ method: 'GET', url, headers: [], tls }, signal);
    await discard(response);
    expect(response.status).toBe(200);
    const refused = await client
      .send({ method: 'GET', url: new URL('https://registry.test/v2/'), headers: [], tls }, signal)
      .catch((error: unknown) => error);
    expect(refused).toMatchObject({ name: 'CimletError', code: 'unavailable' });
    expect((refused as Error).message).not.toContain('pass-word-5');
    const basic = `Basic ${Buffer.from('me:pass-word-5').toString('base64')}`;
    expect(seen).toEqual([`GET http://registry.test/v2/ ${basic}`, `CONNECT registry.test:443 ${basic}`]);
  } finally {
    await client.close();
    proxy.closeAllConnections();
    proxy.close();
  }
});
