/** Hosts that a registry sends us to, over TLS: they see no password, no header and no certificate of ours. */

import { rmSync, writeFileSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import type { TLSSocket } from 'node:tls';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { openBlobStore } from '../../../src/images/blob-store.ts';
import type { ImageContent } from '../../../src/images/content.ts';
import { digestOf } from '../../../src/images/digest.ts';
import { openRegistries, type Registries } from '../../../src/images/registry/registries.ts';
import { hasTool, requireOrSkip } from '../../support/requirements.ts';
import { makeTemporaryDirectory } from '../../support/stored-blob.ts';
import { makeCertificates, serverOptions, type TestCertificates } from './certificates.ts';
import { certsD, PASSWORD, pull, QUICK, scratch, USER } from './registry-fixture.ts';

const canSign = requireOrSkip('openssl', hasTool('openssl'));
const signal = new AbortController().signal;
const BASIC = `Basic ${Buffer.from(`${USER}:${PASSWORD}`).toString('base64')}`;

/** What a server saw of who asked it. */
interface Seen {
  request: string;
  authorization: string | undefined;
  key: string | undefined;
  /** Of the certificate that was shown. */
  subject: string | undefined;
  body: Buffer;
}

interface Site {
  host: string;
  seen: Seen[];
}

type Handle = (seen: Seen, request: IncomingMessage, response: ServerResponse) => void;

describe.runIf(canSign)('another host', () => {
  let directory: string;
  let certificates: TestCertificates;
  const servers: Server[] = [];

  beforeAll(() => {
    directory = scratch('cimlet-hosts-');
    certificates = makeCertificates(directory);
    writeFileSync(join(directory, 'password'), PASSWORD);
  });
  afterEach(() => {
    for (const server of servers.splice(0)) {
      server.closeAllConnections();
      server.close();
    }
  });
  afterAll(() => rmSync(directory, { recursive: true, force: true }));

  async function serve(handle: Handle): Promise<Site> {
    const seen: Seen[] = [];
    const server = createServer(serverOptions(certificates), (request, response) => {
      const chunks: Buffer[] = [];
      request.on('data', (chunk: Buffer) => chunks.push(chunk));
      request.on('end', () => {
        const { method, url, headers, socket } = request;
        const certificate = (socket as TLSSocket).getPeerCertificate();
        const entry: Seen = {
          request: `${method} ${url?.replace(/\?.*/, '')}`,
          authorization: headers.authorization,
          key: headers['x-key']?.toString(),
          subject: certificate.subject?.CN?.toString(),
          body: Buffer.concat(chunks),
        };
        seen.push(entry);
        handle(entry, request, response);
      });
    });
    servers.push(server);
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    return { host: `127.0.0.1:${(server.address() as AddressInfo).port}`, seen };
  }

  /** hosts.toml with all that a registry may be told. */
  function settingsFor({ host }: Site) {
    const { ca, client } = certificates;
    const toml = [
      `ca = ${JSON.stringify(ca)}`,
      `client = [[${JSON.stringify(client.cert)}, ${JSON.stringify(client.key)}]]`,
      '[header]',
      'x-key = "secret-key"',
    ].join('\n');
    return {
      configPath: certsD(directory, { [host]: toml }),
      credentials: [{ registry: host, username: USER, passwordFile: join(directory, 'password') }],
    };
  }

  async function withRegistries<T>(site: Site, use: (registries: Registries) => Promise<T>): Promise<T> {
    const registries = openRegistries({
      ...settingsFor(site),
      env: { DOCKER_CONFIG: '/nonexistent' },
      backoff: QUICK,
      store: openBlobStore(join(makeTemporaryDirectory(), 'images')),
      mayWrite: false,
    });
    try {
      return await use(registries);
    } finally {
      await registries.close();
    }
  }

  const stranger = { authorization: undefined, key: undefined, subject: undefined };
  const known = { authorization: BASIC, key: 'secret-key', subject: 'client' };

  it('that blobs and manifests are redirected to sees a stranger', async () => {
    const other = await serve((_seen, _request, response) => response.writeHead(404).end());
    const registry = await serve(({ authorization }, request, response) => {
      if (authorization === undefined)
        response.writeHead(401, { 'www-authenticate': 'Basic realm="r"' }).end();
      else response.writeHead(307, { location: `https://${other.host}${request.url}` }).end();
    });
    const pulling = pull(`${registry.host}/app:v1`, {
      root: makeTemporaryDirectory(),
      ...settingsFor(registry),
    });
    await expect(pulling).rejects.toMatchObject({ code: 'not-found' });
    expect(registry.seen.at(-1)).toMatchObject(known);
    expect(other.seen.length).toBeGreaterThan(0);
    for (const seen of other.seen) expect(seen).toMatchObject(stranger);
  });

  it('that gives tokens gets the password, and nothing else of the registry', async () => {
    const realm = await serve((_seen, _request, response) =>
      response.end(JSON.stringify({ token: 'a-token' })),
    );
    const registry = await serve(({ authorization }, _request, response) => {
      if (authorization === 'Bearer a-token') response.writeHead(404).end();
      else
        response
          .writeHead(401, { 'www-authenticate': `Bearer realm="https://${realm.host}/token",service="s"` })
          .end();
    });
    const pulling = pull(`${registry.host}/app:v1`, {
      root: makeTemporaryDirectory(),
      ...settingsFor(registry),
    });
    await expect(pulling).rejects.toMatchObject({ code: 'not-found' });
    expect(registry.seen.at(-1)).toMatchObject({ ...known, authorization: 'Bearer a-token' });
    expect(realm.seen).toHaveLength(1);
    expect(realm.seen[0]).toMatchObject({ ...stranger, authorization: BASIC });
  });

  /** A registry that takes anything; `upload` answers where a blob is to go. */
  function registryThat(spoil: (seen: Seen, response: ServerResponse) => boolean, uploadHost?: () => string) {
    return serve((seen, { url = '' }, response) => {
      if (spoil(seen, response)) return;
      const path = url.replace(/\?.*/, '');
      const [method] = seen.request.split(' ');
      if (seen.authorization === undefined)
        response.writeHead(401, { 'www-authenticate': 'Basic realm="r"' }).end();
      else if (method === 'HEAD') response.writeHead(404).end();
      else if (method === 'POST') {
        const at = uploadHost === undefined ? '' : `https://${uploadHost()}`;
        response.writeHead(202, { location: `${at}${path}session` }).end();
      } else response.writeHead(201).end();
    });
  }

  /** One blob and what names it. */
  function contentOf(): ImageContent {
    const blob = Buffer.alloc(300_000, 'layer');
    const file = join(directory, 'blob');
    writeFileSync(file, blob);
    const manifest = Buffer.from('{"schemaVersion": 2}');
    const describe = (mediaType: string, bytes: Buffer) => ({
      mediaType,
      digest: digestOf(bytes),
      size: bytes.length,
      urls: [],
      annotations: {},
    });
    const top = describe('application/vnd.oci.image.manifest.v1+json', manifest);
    return {
      top,
      documents: [{ descriptor: top, bytes: manifest }],
      blobs: [
        {
          descriptor: describe('application/vnd.oci.image.layer.v1.tar', blob),
          range: { file, offset: 0, size: blob.length },
        },
      ],
    };
  }

  const push = (site: Site) =>
    withRegistries(site, (registries) =>
      registries.push({ reference: `${site.host}/app:v1`, content: contentOf() }, { signal }),
    );
  const uploads = ({ seen }: Site) => seen.filter(({ request }) => request.endsWith('/session'));

  it('that takes uploads for the registry sees a stranger, and all of the blob', async () => {
    const other = await serve((_seen, _request, response) => response.writeHead(201).end());
    const registry = await registryThat(
      () => false,
      () => other.host,
    );
    await push(registry);
    expect(other.seen).toHaveLength(1);
    expect(other.seen[0]).toMatchObject({ ...stranger, request: 'PUT /v2/app/blobs/uploads/session' });
    expect(other.seen[0]?.body.equals(Buffer.alloc(300_000, 'layer'))).toBe(true);
    expect(registry.seen.at(-1)).toMatchObject({ ...known, request: 'PUT /v2/app/manifests/v1' });
  });

  it.each<[string, (response: ServerResponse) => void]>([
    ['HTTP 429', (response) => response.writeHead(429, { 'retry-after': '0' }).end()],
    ['HTTP 500', (response) => response.writeHead(500).end()],
    ['HTTP 503', (response) => response.writeHead(503).end()],
    ['a cut', (response) => response.destroy()],
  ])('or the registry that answers an upload once with %s gets it again, whole', async (_what, answer) => {
    let faults = 1;
    const registry = await registryThat(({ request }, response) => {
      if (!request.endsWith('/session') || faults-- <= 0) return false;
      answer(response);
      return true;
    });
    await push(registry);
    expect(uploads(registry)).toHaveLength(2);
    expect(uploads(registry)[1]?.body.equals(Buffer.alloc(300_000, 'layer'))).toBe(true);
    expect(registry.seen.at(-1)?.request).toBe('PUT /v2/app/manifests/v1');
  });

  it('or the registry whose token ends while a blob is sent gets it again, with a new one', async () => {
    let tokens = 0;
    const realm = await serve((_seen, _request, response) =>
      response.end(JSON.stringify({ token: `token-${++tokens}` })),
    );
    const registry = await serve(({ request, authorization }, { url = '' }, response) => {
      const needed = request.endsWith('/session') || tokens > 1 ? 'Bearer token-2' : 'Bearer token-1';
      if (authorization !== needed)
        response
          .writeHead(401, { 'www-authenticate': `Bearer realm="https://${realm.host}/token",service="s"` })
          .end();
      else if (request.startsWith('HEAD')) response.writeHead(404).end();
      else if (request.startsWith('POST')) response.writeHead(202, { location: `${url}session` }).end();
      else response.writeHead(201).end();
    });
    await push(registry);
    expect(uploads(registry).map(({ authorization }) => authorization)).toEqual([
      'Bearer token-1',
      'Bearer token-2',
    ]);
    expect(uploads(registry)[1]?.body.equals(Buffer.alloc(300_000, 'layer'))).toBe(true);
  });

  it('is given up when it always fails, and then nothing names what is not there', async () => {
    const registry = await registryThat(({ request }, response) => {
      if (!request.endsWith('/session')) return false;
      response.writeHead(503).end();
      return true;
    });
    await expect(push(registry)).rejects.toMatchObject({
      code: 'unavailable',
      message: expect.stringMatching(/^push blob sha256:.*HTTP 503/),
    });
    expect(registry.seen.some(({ request }) => request.includes('/manifests/'))).toBe(false);
  });

  it('is not sent to without TLS', async () => {
    const registry = await serve(({ request }, _request, response) => {
      if (request.startsWith('HEAD')) response.writeHead(404).end();
      else response.writeHead(202, { location: 'http://127.0.0.1:1/upload' }).end();
    });
    await expect(push(registry)).rejects.toMatchObject({
      code: 'access-denied',
      message: expect.stringContaining('http://127.0.0.1:1, which is not https'),
    });
  });
});
