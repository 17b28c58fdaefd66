import { once } from 'node:events';
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer as createHttpServer, type IncomingMessage, request } from 'node:http';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Agent } from '../../src/agent/agent.ts';
import { connectAgent } from '../../src/cli/agent-client.ts';
import { CimletError } from '../../src/errors.ts';
import { mountVolumeGuid } from '../../src/hosts/identity.ts';
import { agentSocket } from '../../src/server/address.ts';
import { AgentServer, type ServerOptions } from '../../src/server/server.ts';
import { createFolderSource } from '../../src/sources/folder-source.ts';
import { openWorld, type World } from '../reconciler/support.ts';

const MANIFEST = `
apiVersion: cimlet.dev/v1alpha1
kind: Image
metadata: {name: app}
spec: {source: {ociLayout: ./app}}
---
apiVersion: cimlet.dev/v1alpha1
kind: Mount
metadata: {name: app}
spec: {image: app, path: /mnt/app}
`;

let root: string;
let world: World;
let end: () => Promise<void>;
let server: AgentServer;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'cimlet-server-'));
  writeFileSync(join(root, 'app.yaml'), MANIFEST);
  world = openWorld();
  world.images.set('app', 'ab');
});
afterEach(async () => {
  await end();
  world.close();
  rmSync(root, { recursive: true, force: true });
});

/** Runs an agent with its API; resolves when its first round is over. */
async function start(tcp?: ServerOptions['tcp']): Promise<void> {
  const { engine, state } = world;
  const stopping = new AbortController();
  const first = Promise.withResolvers<void>();
  const source = createFolderSource(
    { name: 'here', folder: { path: root, include: ['*.yaml'] } },
    { cacheDirectory: join(root, 'cache'), baseDirectory: root },
  );
  const nothing = () => undefined;
  const log = { debug: nothing, info: nothing, warn: nothing, error: nothing };
  server = new AgentServer({ engine, state, version: '1.2.3', socket: agentSocket(root), tcp, log });
  const agent = new Agent({
    engine,
    state,
    sources: [{ source, id: 'here', prune: true, isSuspended: false }],
    resyncMs: 60_000,
    largestPrune: 0.5,
    log,
    onEvent: (event) => server.onEvent(event),
    onRound: (round) => {
      server.onRound(round);
      first.resolve();
    },
  });
  await server.open(agent);
  const ended = agent.run(stopping.signal);
  end = async () => {
    stopping.abort();
    await ended;
    await server.close();
    await source.close();
  };
  await Promise.race([first.promise, ended]);
}

async function client() {
  const connected = await connectAgent(agentSocket(root));
  if (connected === undefined) throw new Error('no agent');
  return connected;
}

function fetchPlain(
  path: string,
  headers: Record<string, string> = {},
  options: object = { socketPath: agentSocket(root) },
) {
  return new Promise<{ status: number | undefined; body: string }>((resolve, reject) => {
    request({ path, headers, ...options }, async (response) =>
      resolve({ status: response.statusCode, body: await text(response) }),
    )
      .on('error', reject)
      .end();
  });
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

describe('the API', () => {
  it('tells what is there, in a socket that nobody else can open', async () => {
    await start();
    const api = await client();
    expect(statSync(agentSocket(root)).mode & 0o777).toBe(0o600);
    expect(await api.get('/healthz')).toEqual({ status: 'ok', version: '1.2.3' });
    expect(await api.get('/readyz')).toMatchObject({ status: 'ready' });
    expect(await api.get('/api/v1/mounts')).toMatchObject({
      items: [
        {
          kind: 'Mount',
          name: 'app',
          status: { drift: [], conditions: [{ type: 'Ready', status: 'True' }] },
        },
      ],
    });
    expect(await api.get('/api/v1/images')).toMatchObject({ items: [{ name: 'app' }] });
    expect(await api.get('/api/v1/chains')).toEqual({ items: [] });
    expect((await api.get('/api/v1/snapshots')) as { items: object[] }).toMatchObject({ items: [{}, {}] });
    expect(await api.get('/api/v1/sources')).toMatchObject({ items: [{ name: 'here', resources: 2 }] });
    expect(await api.get('/api/v1/plan')).toMatchObject({ actions: [], summary: { unchanged: 2 } });
    expect(await api.get('/api/v1/events?key=Mount/app')).toMatchObject({ items: [{ reason: 'Created' }] });
  });

  it('gives Prometheus rounds, actions, conditions and sources', async () => {
    await start();
    const { status, body } = await fetchPlain('/metrics');
    expect(status).toBe(200);
    expect(body).toContain('cimlet_reconcile_duration_seconds_count{result="done"} 1');
    expect(body).toContain('cimlet_action_duration_seconds_count{kind="Mount",verb="create"} 1');
    expect(body).toContain('cimlet_resource_conditions{kind="Mount",condition="Ready"} 1');
    expect(body).toContain('cimlet_source_ready{source="here"} 1');
    expect(body).toContain('process_resident_memory_bytes');
  });

  it('reconciles when told to, and says what happens meanwhile', async () => {
    await start();
    const api = await client();
    const stop = new AbortController();
    const notices = await api.watch(stop.signal);
    world.host.dropMount(mountVolumeGuid('app'));
    await api.post('/api/v1/reconcile', { key: 'Mount/app' });
    const seen: string[] = [];
    for await (const notice of notices) {
      seen.push(
        notice.type === 'round' ? 'round' : `${notice.type} ${'action' in notice ? notice.action : ''}`,
      );
      if (notice.type === 'round') break;
    }
    expect(seen).toEqual(['action.started Mount/app', 'action.succeeded Mount/app', 'round']);
  });

  it('cuts off a watcher that does not read, rather than keep all it was told', async () => {
    await start();
    const watching = request({ path: '/api/v1/watch', socketPath: agentSocket(root) }).end();
    const [response] = (await once(watching, 'response')) as [IncomingMessage];
    const error = new CimletError('unavailable', 'x'.repeat(100_000));
    for (let round = 0; round < 50; round++) server.onRound({ durationMs: 1, error });
    await expect(text(response)).rejects.toThrow('aborted');
  });

  it('suspends and resumes', async () => {
    await start();
    const api = await client();
    await api.post('/api/v1/suspend', { key: 'Mount/app', reason: 'a test', by: 'me' });
    world.host.dropMount(mountVolumeGuid('app'));
    expect(await api.get('/api/v1/plan')).toMatchObject({
      actions: [],
      blocked: [{ key: 'Mount/app', code: 'suspended' }],
    });
    expect(await api.post('/api/v1/resume', { key: 'Mount/app' })).toEqual({ wasSuspended: true });
    expect(await api.post('/api/v1/resume', { key: 'Mount/app' })).toEqual({ wasSuspended: false });
  });

  it('refuses what it does not know, with what to do', async () => {
    await start();
    const api = await client();
    await expect(api.post('/api/v1/reconcile', { key: 'Mount/none' })).rejects.toMatchObject({
      code: 'not-found',
      hint: 'cimlet get all lists what is',
    });
    await expect(api.post('/api/v1/suspend', { key: 'Mount/app' })).rejects.toThrow(/reason/);
    await expect(api.post('/api/v1/reconcile', { key: 'Pod/x' })).rejects.toThrow(/key/);
    expect((await fetchPlain('/nowhere')).status).toBe(404);
    expect((await fetchPlain('/api/v1/events?key=Mount/a&key=Mount/b')).status).toBe(400);
  });

  it('is served over TCP to those who have the token only', async () => {
    const port = await freePort();
    await start({ host: '127.0.0.1', port, token: async () => 'secret' });
    const at = { host: '127.0.0.1', port };
    expect((await fetchPlain('/metrics', {}, at)).status).toBe(401);
    expect((await fetchPlain('/metrics', { authorization: 'Bearer wrong' }, at)).status).toBe(401);
    expect((await fetchPlain('/metrics', { authorization: 'Bearer secret' }, at)).status).toBe(200);
    expect((await fetchPlain('/metrics')).status).toBe(200);
  });

  it('takes the place of a dead agent', async () => {
    writeFileSync(agentSocket(root), '');
    await start();
    expect(await (await client()).get('/healthz')).toMatchObject({ status: 'ok' });
  });
});

it('a client finds no agent where none runs', async () => {
  end = async () => undefined;
  expect(await connectAgent(agentSocket(root))).toBeUndefined();
});

it('a watch ends with an agent that is killed', async () => {
  const dying = createHttpServer((incoming, response) => {
    if (incoming.url === '/healthz') return response.end('{}');
    response.write(': watching\n\ndata: {"type":"round","durationMs":1,"actions":0}\n\n');
    return setImmediate(() => response.destroy());
  }).listen(agentSocket(root));
  await once(dying, 'listening');
  end = async () => void dying.close();
  const seen: string[] = [];
  for await (const { type } of await (await client()).watch(new AbortController().signal)) seen.push(type);
  expect(seen).toEqual(['round']);
});
