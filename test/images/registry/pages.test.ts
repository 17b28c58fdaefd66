/** Lists in pages, at servers that redirect and link as they like. */

import { createServer, type IncomingMessage, type RequestListener, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { createAuthorizer } from '../../../src/images/registry/authorizer.ts';
import { RegistryClient } from '../../../src/images/registry/client.ts';
import { findEndpoints } from '../../../src/images/registry/endpoints.ts';
import { createHttpClient, type HttpClient } from '../../../src/images/registry/http.ts';
import { nextPage } from '../../../src/images/registry/pages.ts';
import { parseReference } from '../../../src/images/registry/reference.ts';
import { RestingHosts } from '../../../src/images/registry/resting-hosts.ts';
import { makeTemporaryDirectory } from '../../support/stored-blob.ts';
import { certsD, QUICK } from './registry-fixture.ts';

const { signal } = new AbortController();

const servers: Server[] = [];
const clients: HttpClient[] = [];
afterEach(async () => {
  for (const client of clients.splice(0)) await client.close();
  for (const server of servers.splice(0)) {
    server.closeAllConnections();
    server.close();
  }
});

interface Site {
  host: string;
  asked: IncomingMessage[];
}

async function serve(handle: RequestListener): Promise<Site> {
  const asked: IncomingMessage[] = [];
  const server = createServer((request, response) => {
    asked.push(request);
    handle(request, response);
  });
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { host: `127.0.0.1:${(server.address() as AddressInfo).port}`, asked };
}

/** Pulls `app` of `registry`, signed in, as hosts.toml says. */
function clientFor(registry: string, hostsToml: string): RegistryClient {
  const configPath = certsD(makeTemporaryDirectory(), { [registry]: hostsToml });
  const http = createHttpClient({});
  clients.push(http);
  return new RegistryClient(parseReference(`${registry}/app`), {
    http,
    authorizer: createAuthorizer(http, async () => ({ kind: 'password', username: 'u', password: 'p' })),
    backoff: QUICK,
    resting: new RestingHosts(QUICK.patienceMs),
    findEndpoints: (name) => findEndpoints(name, configPath),
  });
}

const tags = (...names: string[]) => JSON.stringify({ name: 'app', tags: names });

it('asks the registry for every page, and tells nothing to whom it redirects', async () => {
  const other = await serve((_, response) => {
    response.writeHead(200, { link: '</v2/app/tags/list?last=1>; rel="next"' }).end(tags('1'));
  });
  const registry = await serve(({ headers, url }, response) => {
    if (headers.authorization === undefined)
      response.writeHead(401, { 'www-authenticate': 'Basic realm="registry"' }).end();
    else if (url?.includes('last=1')) response.end(tags('2'));
    else response.writeHead(302, { location: `http://${other.host}/first` }).end();
  });
  const toml = `server = "http://${registry.host}"\n[host."http://${registry.host}".header]\nx-key = "secret"\n`;
  expect(await clientFor(registry.host, toml).listTags(signal)).toEqual(['1', '2']);
  expect(other.asked.map(({ url }) => url)).toEqual(['/first']);
  for (const { headers } of other.asked) {
    expect(headers).not.toHaveProperty('authorization');
    expect(headers).not.toHaveProperty('x-key');
  }
  expect(registry.asked.at(-1)?.headers).toMatchObject({ 'x-key': 'secret' });
});

it('tells a mirror on every page which registry is meant', async () => {
  const mirror = await serve(({ url }, response) => {
    if (url?.includes('last=1')) response.end(tags('2'));
    else response.writeHead(200, { link: '</v2/app/tags/list?last=1>; rel="next"' }).end(tags('1'));
  });
  const toml = `[host."http://${mirror.host}"]\ncapabilities = ["pull", "resolve"]\n`;
  expect(await clientFor('registry.test', toml).listTags(signal)).toEqual(['1', '2']);
  expect(mirror.asked.map(({ url }) => new URL(url ?? '', 'http://x').searchParams.get('ns'))).toEqual([
    'registry.test',
    'registry.test',
  ]);
});

it('is no list when a page is elsewhere', async () => {
  const registry = await serve((_, response) => {
    response.writeHead(200, { link: '<https://elsewhere.test/v2/>; rel="next"' }).end(tags('1'));
  });
  const client = clientFor(registry.host, `server = "http://${registry.host}"\n`);
  await expect(client.listTags(signal)).rejects.toMatchObject({
    code: 'unsupported-host',
    message: expect.stringMatching(/list tags of .*elsewhere\.test/),
  });
});

describe('the next page of a list', () => {
  const url = new URL('https://registry.example/v2/app/tags/list?n=1000');
  const next = (link?: string | string[]) => nextPage(url, { link }, 'list tags')?.href;
  const there = 'https://registry.example/v2/app/tags/list?last=x&n=1000';

  it.each([
    '</v2/app/tags/list?last=x&n=1000>; rel="next"',
    `<${there}>; rel=next`,
    `<${there}>; type="application/json"; rel="next"`,
    `<${there}>; title="a, b; c"; REL="Next last"; type=json`,
    [`</v2/app/tags/list?n=1>; rel="prev"`, `<${there}>;rel="next"`],
    `</v2/app/tags/list?n=1>; rel="first", <${there}>; rel="next"`,
  ])('is what %s names', (link) => {
    expect(next(link)).toBe(there);
  });

  it.each([
    undefined,
    '',
    url.href,
    '</v2/app/tags/list?n=1>; rel="prev"',
    `<${there}>`,
    `<${there}>; rel=nextish`,
    `<${there}>; rel="prev", rel="next"`,
  ])('is not in %s', (link) => {
    expect(next(link)).toBeUndefined();
  });

  it.each([
    'https://elsewhere.example/v2/app/tags/list?last=x',
    'http://registry.example/v2/app/tags/list?last=x',
    'https://[',
    '/v2/app/tags/list?n=1000',
  ])('is not to be left out when it is %s', (target) => {
    expect(() => next(`<${target}>; rel="next"`)).toThrowError(
      expect.objectContaining({ code: 'unsupported-host' }),
    );
  });
});
