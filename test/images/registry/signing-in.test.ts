/** Registries that want somebody signed in, and token servers (distribution docs/spec/auth). */

import { writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { afterEach, describe, expect, it } from 'vitest';
import { createAuthorizer } from '../../../src/images/registry/authorizer.ts';
import { parseChallenges } from '../../../src/images/registry/challenge.ts';
import type { Credentials } from '../../../src/images/registry/credentials.ts';
import { type Endpoint, findEndpoints } from '../../../src/images/registry/endpoints.ts';
import { createHttpClient, discard, type HttpClient } from '../../../src/images/registry/http.ts';
import { makeTemporaryDirectory } from '../../support/stored-blob.ts';
import { certsD, everythingSaid, plainHttp, pull } from './registry-fixture.ts';

const SCOPE = 'repository:windows/app:pull';
const signal = new AbortController().signal;

const servers: Server[] = [];
const clients: HttpClient[] = [];
afterEach(async () => {
  for (const client of clients.splice(0)) await client.close();
  for (const server of servers.splice(0)) {
    server.closeAllConnections();
    server.close();
  }
});

async function serve(handle: (request: IncomingMessage, response: ServerResponse) => void): Promise<string> {
  const server = createServer(handle);
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return `127.0.0.1:${(server.address() as AddressInfo).port}`;
}

interface TokenAsked {
  method: string;
  query: Record<string, string>;
  form: Record<string, string>;
  authorization: string | undefined;
}

/** A registry that lets the newest `valid` tokens in, and the token server it names. */
async function startTokenWorld(
  answer: (count: number) => { status?: number; body: unknown },
  realm?: string,
) {
  const asked: TokenAsked[] = [];
  const valid = new Set<string>();
  const tokens = await serve(async (request, response) => {
    const url = new URL(request.url ?? '', 'http://tokens');
    const form = Object.fromEntries(new URLSearchParams(await text(request)));
    const query = Object.fromEntries(url.searchParams);
    asked.push({ method: request.method ?? '', query, form, authorization: request.headers.authorization });
    const { status = 200, body } = answer(asked.length);
    const token = (body as { token?: string; access_token?: string } | null)?.token;
    if (token !== undefined) valid.add(token);
    response.writeHead(status, { 'content-type': 'application/json' });
    response.end(typeof body === 'string' ? body : JSON.stringify(body));
  });
  const challenge = `Bearer realm="${realm ?? `http://${tokens}/token`}",service="registry.test",scope="${SCOPE}"`;
  const registry = await serve((request, response) => {
    const [, token = ''] = (request.headers.authorization ?? '').split(' ');
    response.writeHead(valid.has(token) ? 200 : 401, { 'www-authenticate': challenge });
    response.end();
  });
  const configPath = certsD(makeTemporaryDirectory(), plainHttp(registry));
  const [endpoint] = await findEndpoints(registry, configPath);
  return { asked, valid, registry, endpoint: endpoint as Endpoint };
}

function createSession(credentials: Credentials | undefined, now?: () => number) {
  const http = createHttpClient({});
  clients.push(http);
  const lookups: string[] = [];
  const authorizer = createAuthorizer(
    http,
    async (host) => {
      lookups.push(host);
      return credentials;
    },
    now,
  );
  /** One request as the client makes it; the status it ends with. */
  const request = async (endpoint: Endpoint): Promise<number> => {
    for (let attempts = 0; ; attempts++) {
      const used = authorizer.headerFor(endpoint, SCOPE);
      const headers = used === undefined ? [] : [['authorization', used] as const];
      const url = new URL(`${endpoint.base}/windows/app/manifests/v1`);
      const response = await http.send({ method: 'GET', url, headers, tls: endpoint.tls }, signal);
      await discard(response);
      const again =
        response.status === 401 &&
        attempts < 2 &&
        (await authorizer.answerChallenge({ endpoint, scope: SCOPE, used, response }, signal));
      if (!again) return response.status;
    }
  };
  return { request, lookups };
}

describe('token servers', () => {
  it('are asked for the service and scope that the registry names, once for many requests', async () => {
    const world = await startTokenWorld((count) => ({ body: { token: `t${count}`, expires_in: 300 } }));
    const { request } = createSession(undefined);
    expect(await Promise.all([1, 2, 3, 4].map(() => request(world.endpoint)))).toEqual([200, 200, 200, 200]);
    expect(await request(world.endpoint)).toBe(200);
    expect(world.asked).toEqual([
      {
        method: 'GET',
        query: { service: 'registry.test', scope: SCOPE },
        form: {},
        authorization: undefined,
      },
    ]);
  });

  it('get a password as Basic, and an identity token as a form', async () => {
    const world = await startTokenWorld((count) => ({ body: { token: `t${count}`, expires_in: 300 } }));
    const password: Credentials = { kind: 'password', username: 'robot', password: 's3cret' };
    expect(await createSession(password).request(world.endpoint)).toBe(200);
    expect(world.asked[0]).toMatchObject({
      method: 'GET',
      query: { account: 'robot' },
      authorization: `Basic ${Buffer.from('robot:s3cret').toString('base64')}`,
    });
    expect(await createSession({ kind: 'identityToken', token: 'refresh-me' }).request(world.endpoint)).toBe(
      200,
    );
    expect(world.asked[1]).toMatchObject({
      method: 'POST',
      query: {},
      form: {
        grant_type: 'refresh_token',
        refresh_token: 'refresh-me',
        service: 'registry.test',
        scope: SCOPE,
      },
    });
  });

  it('are asked again when a token ran out, and when the registry no longer takes it', async () => {
    const world = await startTokenWorld((count) => ({ body: { token: `t${count}`, expires_in: 100 } }));
    let now = 1_000_000;
    const { request } = createSession(undefined, () => now);
    expect(await request(world.endpoint)).toBe(200);
    now += 99_000;
    expect(await request(world.endpoint)).toBe(200);
    expect(world.asked).toHaveLength(2);
    world.valid.clear();
    expect(await request(world.endpoint)).toBe(200);
    expect(world.asked).toHaveLength(3);
  });

  it('that say no, talk nonsense or break are one clear error without secrets', async () => {
    const password: Credentials = { kind: 'password', username: 'robot', password: 's3cret-9' };
    const cases = [
      [{ status: 401, body: { details: 's3cret-9' } }, 'access-denied'],
      [{ status: 403, body: '' }, 'access-denied'],
      [{ status: 503, body: '' }, 'unavailable'],
      [{ body: 'not JSON s3cret-9' }, 'unavailable'],
      [{ body: { token: '' } }, 'unavailable'],
      [{ body: { token: 'a\r\nx: y' } }, 'unavailable'],
      [{ body: null }, 'unavailable'],
      [{ body: 'x'.repeat(2 << 20) }, 'corrupt'],
    ] as const;
    for (const [answer, code] of cases) {
      const world = await startTokenWorld(() => answer);
      const error = await createSession(password)
        .request(world.endpoint)
        .catch((thrown: unknown) => thrown);
      expect(error).toMatchObject({ name: 'CimletError', code });
      expect(everythingSaid(error)).not.toContain('s3cret-9');
      expect(everythingSaid(error)).not.toContain(Buffer.from('robot:s3cret-9').toString('base64'));
    }
  });

  it('that drip are cut', async () => {
    const realm = await serve((_request, response) => {
      const timer = setInterval(() => response.write(' '), 10);
      response.on('close', () => clearInterval(timer));
    });
    const registry = await serve((_request, response) => {
      response.writeHead(401, { 'www-authenticate': `Bearer realm="http://${realm}/",service="s"` }).end();
    });
    const pulling = pull(`${registry}/app:v1`, {
      root: makeTemporaryDirectory(),
      configPath: certsD(makeTemporaryDirectory(), plainHttp(registry)),
      minimumRate: { bytes: 2000, windowMs: 100 },
    });
    await expect(pulling).rejects.toMatchObject({
      code: 'unavailable',
      message: expect.stringMatching(/^sign in to .*too slow to go on/),
    });
  });

  it('that give the same refused token end in the refusal', async () => {
    const world = await startTokenWorld(() => ({ body: { access_token: 'never-valid' } }));
    expect(await createSession(undefined).request(world.endpoint)).toBe(401);
  });

  it('without https are told nothing by a registry with https', async () => {
    const world = await startTokenWorld(() => ({ body: { token: 't' } }));
    const secure: Endpoint = { ...world.endpoint, base: 'https://registry.test/v2', host: 'registry.test' };
    const http = createHttpClient({});
    clients.push(http);
    const authorizer = createAuthorizer(http, async () => ({
      kind: 'password',
      username: 'u',
      password: 'p',
    }));
    const url = new URL(`http://${world.registry}/v2/`);
    const response = await http.send({ method: 'GET', url, headers: [], tls: secure.tls }, signal);
    await discard(response);
    const refusal = { endpoint: secure, scope: SCOPE, used: undefined, response };
    await expect(authorizer.answerChallenge(refusal, signal)).rejects.toMatchObject({
      code: 'access-denied',
    });
    expect(world.asked).toEqual([]);
  });
});

it('credentials that can not be read are one error of the pull', async () => {
  const registry = await serve((_request, response) => {
    response.writeHead(401, { 'www-authenticate': 'Basic realm="x"' });
    response.end('no');
  });
  const directory = makeTemporaryDirectory();
  writeFileSync(join(directory, 'config.json'), '{"auths": top-secret-7');
  const pulling = pull(`${registry}/app:v1`, {
    root: directory,
    configPath: certsD(directory, plainHttp(registry)),
    env: { DOCKER_CONFIG: directory },
  });
  await expect(pulling).rejects.toMatchObject({ code: 'failed-precondition' });
});

describe('challenges', () => {
  it.each([
    ['Basic realm="x"', [{ scheme: 'basic', parameters: { realm: 'x' } }]],
    [
      'Bearer realm="https://a/t",service=s , scope="repository:a:pull,push"',
      [
        {
          scheme: 'bearer',
          parameters: { realm: 'https://a/t', service: 's', scope: 'repository:a:pull,push' },
        },
      ],
    ],
    [
      'Negotiate, Basic realm="a \\"b\\"", BEARER Realm="c"',
      [
        { scheme: 'negotiate', parameters: {} },
        { scheme: 'basic', parameters: { realm: 'a "b"' } },
        { scheme: 'bearer', parameters: { realm: 'c' } },
      ],
    ],
    ['', []],
    ['"', []],
  ])('%s', (header, expected) => {
    expect(parseChallenges(header)).toEqual(expected);
  });
});
