import { once } from 'node:events';
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer as createHttpServer, type IncomingMessage, request } from 'node:http';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { connectAgent } from '../../src/cli/agent-client.ts';
import { mountVolumeGuid } from '../../src/hosts/identity.ts';
import { agentSocket } from '../../src/server/address.ts';
import type { ServerOptions } from '../../src/server/server.ts';
import { openWorld, type World } from '../reconciler/support.ts';
import { serveAgent } from './served-agent.ts';

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
/** Logged. */
let errors: string[];
beforeEach(() => {
  errors = [];
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
  end = await serveAgent(root, world, { tcp }, (message) => errors.push(message));
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

function fetchHead(path: string): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const sent = request({ path, socketPath: agentSocket(root) }, (response) => {
      resolve(response);
      sent.destroy();
    });
    sent.on('error', reject).end();
  });
}

/** Events of the host's log as they are sent, without comments, until one is the last. */
async function readEvents(
  headers: Record<string, string>,
  isLast: (event: string) => boolean,
): Promise<string[]> {
  const sent = request({ path: '/api/v1/events?watch', headers, socketPath: agentSocket(root) }).end();
  const [response] = (await once(sent, 'response')) as [IncomingMessage];
  const events: string[] = [];
  let rest = '';
  for await (const chunk of response.setEncoding('utf8')) {
    const blocks = `${rest}${chunk}`.split('\n\n');
    rest = blocks.pop() ?? '';
    events.push(...blocks.filter((block) => !block.startsWith(':')));
    if (events.some(isLast)) break;
  }
  sent.destroy();
  return events;
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
    expect(await api.get('/api/v1/sources')).toMatchObject({
      items: [{ kind: 'Source', name: 'here', status: { ready: 'True', resources: 2 } }],
    });
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
    expect(body).toMatch(/cimlet_mounts\{state="mounted"\} [01]/);
    expect(body).toContain('cimlet_actions{state="waiting"} 0');
    expect(body).toContain('cimlet_drifted_resources{kind="Mount"} 0');
    expect(body).toContain('cimlet_transferred_bytes_total{phase="unpacking"} 200');
    expect(body).toContain('process_resident_memory_bytes');
  });

  it('reconciles when told to, and tells watchers what changed', async () => {
    await start();
    const api = await client();
    const stop = new AbortController();
    const seen: string[] = [];
    world.host.dropMount(mountVolumeGuid('app'));
    for await (const { type, data } of await api.watch('/api/v1/mounts', stop.signal)) {
      const { name, status } = data as { name?: string; status?: { ready: string } };
      seen.push([type, name, status?.ready].filter(Boolean).join(' '));
      if (type === 'synced') await api.post('/api/v1/reconcile', { key: 'Mount/app' });
      if (seen.at(-1) === 'modified app True') break;
    }
    stop.abort();
    expect(seen.slice(0, 3)).toEqual(['reset', 'added app False', 'synced']);
  });

  it('tells who comes back only what changed since', async () => {
    await start();
    const first = await readEvents({}, (event) => event.includes('event: synced'));
    const id = /^id: (.*)$/m.exec(first.at(-1) ?? '')?.[1] ?? '';
    world.state.recordEvent({ key: 'Host', type: 'Warning', reason: 'Test', message: 'since then' });
    const [second] = await readEvents({ 'last-event-id': id }, (event) => event.includes('event: '));
    expect(second).toMatch(/^id: .*\nevent: added\ndata: .*since then/);
  });

  it('tells watchers of the events of one resource only of that', async () => {
    await start();
    const stop = new AbortController();
    const seen: unknown[] = [];
    for await (const { type, data } of await (await client()).watch(
      '/api/v1/events?key=Mount/app',
      stop.signal,
    )) {
      if (type === 'added') seen.push((data as { key: string }).key);
      if (type === 'synced') break;
    }
    stop.abort();
    expect(seen).toEqual(['Mount/app']);
  });

  it('lets a watcher that does not read hold up nobody', async () => {
    await start();
    const watching = request({ path: '/api/v1/events?watch', socketPath: agentSocket(root) }).end();
    const [response] = (await once(watching, 'response')) as [IncomingMessage];
    response.pause();
    for (let count = 0; count < 200; count++)
      world.state.recordEvent({
        key: 'Host',
        type: 'Warning',
        reason: 'R',
        message: `${count}${'x'.repeat(50_000)}`,
      });
    const prompt = await readEvents({}, (event) => event.includes('event: synced'));
    expect(prompt.length).toBeGreaterThan(200);
    watching.destroy();
  });

  it('lets so many watch, and no more', async () => {
    await start();
    const watching = Array.from({ length: 100 }, () =>
      request({ path: '/api/v1/sources?watch', socketPath: agentSocket(root) }).end(),
    );
    await Promise.all(watching.map((each) => once(each, 'response')));
    expect((await fetchPlain('/api/v1/sources?watch')).status).toBe(503);
    const [first] = watching;
    first?.destroy();
    await expect.poll(async () => (await fetchHead('/api/v1/sources?watch')).statusCode).toBe(200);
    for (const each of watching) each.destroy();
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

  it('logs what it fails at', async () => {
    await start();
    world.state.events = () => {
      throw new Error('a bug');
    };
    expect((await fetchPlain('/api/v1/events')).status).toBe(500);
    expect(errors).toEqual(['a bug']);
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

it.each([
  ['something else', 'hello', /is no agent of cimlet: it answered "hello"/],
  ['an agent that fails', '{}', /the agent answered 500/],
])('a client says that %s listens there', async (_, body, message) => {
  const stranger = createHttpServer((_request, response) => {
    response.writeHead(body === '{}' ? 500 : 200).end(body);
  }).listen(agentSocket(root));
  await once(stranger, 'listening');
  end = async () => void stranger.close();
  await expect(connectAgent(agentSocket(root))).rejects.toThrow(message);
});

it('a client gives up on an agent that hangs', async () => {
  const hanging = createHttpServer(() => undefined).listen(agentSocket(root));
  await once(hanging, 'listening');
  end = async () => hanging.closeAllConnections();
  await expect(connectAgent(agentSocket(root), { health: 10 })).rejects.toMatchObject({
    code: 'busy',
    message: expect.stringContaining('does not answer'),
  });
  hanging.close();
});

it('a watch gives up on an agent that falls silent', async () => {
  const stuck = createHttpServer((incoming, response) => {
    if (incoming.url === '/healthz') response.end('{}');
    else response.write(': watching\n\nevent: reset\ndata: {}\n\n');
  }).listen(agentSocket(root));
  await once(stuck, 'listening');
  end = async () => {
    stuck.closeAllConnections();
    stuck.close();
  };
  const connected = await connectAgent(agentSocket(root), { silence: 10 });
  const events = await connected!.watch('/', new AbortController().signal);
  const read = async () => {
    for await (const _ of events);
  };
  await expect(read()).rejects.toMatchObject({
    code: 'busy',
    message: expect.stringContaining('does not answer'),
  });
});

it('a client asks over a connection that the agent cannot have closed meanwhile', async () => {
  const connections = new Set<object>();
  const served = createHttpServer((_request, response) => void response.end('{}'));
  served.on('connection', (socket) => connections.add(socket)).listen(agentSocket(root));
  await once(served, 'listening');
  end = async () => void served.close();
  const connected = await connectAgent(agentSocket(root));
  await connected!.get('/api/v1/plan', new AbortController().signal);
  expect(connections.size).toBe(2);
});

it('a client finds no agent where none runs', async () => {
  end = async () => undefined;
  expect(await connectAgent(agentSocket(root))).toBeUndefined();
});

it('a watch ends with an agent that is killed', async () => {
  const dying = createHttpServer((incoming, response) => {
    if (incoming.url === '/healthz') return response.end('{}');
    response.write(': watching\n\nevent: reset\ndata: {}\n\n');
    return setImmediate(() => response.destroy());
  }).listen(agentSocket(root));
  await once(dying, 'listening');
  end = async () => void dying.close();
  const seen: string[] = [];
  for await (const { type } of await (await client()).watch('/', new AbortController().signal))
    seen.push(type);
  expect(seen).toEqual(['reset']);
});
