/** What registries ask for of those who ask them: pauses, one way to sign in, and no connections that nobody uses. */

import { createServer, type RequestListener, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { createAuthorizer } from '../../../src/images/registry/authorizer.ts';
import type { Endpoint } from '../../../src/images/registry/endpoints.ts';
import { requestTo, sendSigned } from '../../../src/images/registry/exchange.ts';
import { createHttpClient, discard, type HttpClient } from '../../../src/images/registry/http.ts';
import { RestingHosts } from '../../../src/images/registry/resting-hosts.ts';
import {
  type Backoff,
  parseRetryAfter,
  TransientError,
  withRetries,
} from '../../../src/images/registry/retry.ts';

const signal = new AbortController().signal;
const PATIENT: Backoff = { retries: 3, baseMs: 250, capMs: 1000, patienceMs: 120_000 };

let http: HttpClient;
let server: Server | undefined;
beforeEach(() => {
  http = createHttpClient({});
});
afterEach(async () => {
  vi.useRealTimers();
  await http.close();
  server?.closeAllConnections();
  server?.close();
  server = undefined;
});

async function serve(handle: RequestListener): Promise<Endpoint> {
  server = createServer(handle);
  await new Promise<void>((resolve) => server?.listen(0, '127.0.0.1', resolve));
  const host = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  return {
    base: `http://${host}/v2`,
    host,
    mirrorOf: undefined,
    canPull: true,
    canResolve: true,
    canPush: true,
    headers: [],
    tls: { skipVerify: false, ca: [], clients: [] },
    connectTimeoutMs: undefined,
  };
}

/** Requests to an endpoint, in one session; resolves with the status. */
function createSession(endpoint: Endpoint) {
  const services = {
    http,
    authorizer: createAuthorizer(http, async () => ({ kind: 'password', username: 'u', password: 'p' })),
    backoff: PATIENT,
    resting: new RestingHosts(PATIENT.patienceMs),
    findEndpoints: async () => [endpoint],
  };
  return async (path: string): Promise<number> => {
    const request = requestTo(endpoint, 'GET', path, []);
    const answer = await sendSigned(services, { endpoint, scope: 'repository:app:pull', request }, signal);
    await discard(answer);
    return answer.status;
  };
}

describe('a pause that a registry asks for', () => {
  /** Attempts that fail until a time, which is what the registry says. */
  const retrying = (asked: (now: number) => string) => {
    const started = Date.now();
    const attempts: number[] = [];
    const done = withRetries(PATIENT, signal, async () => {
      attempts.push(Date.now() - started);
      if (attempts.length === 1)
        throw new TransientError('too many', {
          retryAfterMs: parseRetryAfter(asked(Date.now()), Date.now()),
        });
    });
    return { attempts, done };
  };

  it.each<[string, (now: number) => string]>([
    ['in seconds', () => '7'],
    ['as a date', (now) => new Date(now + 7000).toUTCString()],
  ])('%s is kept', async (_how, asked) => {
    vi.useFakeTimers({ now: Date.parse('2026-03-01T12:00:00Z') });
    const { attempts, done } = retrying(asked);
    await vi.advanceTimersByTimeAsync(6999);
    expect(attempts).toEqual([0]);
    await vi.advanceTimersByTimeAsync(1);
    await done;
    expect(attempts).toEqual([0, 7000]);
  });

  it.each<[string, (now: number) => string]>([
    ['of no time', () => '0'],
    ['until a date that is over', (now) => new Date(now - 7000).toUTCString()],
  ])('%s is a pause all the same', async (_how, asked) => {
    vi.useFakeTimers({ now: Date.parse('2026-03-01T12:00:00Z') });
    const { attempts, done } = retrying(asked);
    await vi.advanceTimersByTimeAsync(PATIENT.baseMs / 2 - 1);
    expect(attempts).toEqual([0]);
    await vi.advanceTimersByTimeAsync(PATIENT.baseMs);
    await done;
  });

  it('for one thing holds for everything at that host', async () => {
    const asked: (string | undefined)[] = [];
    const endpoint = await serve(({ url }, response) => {
      asked.push(url);
      response.writeHead(url?.endsWith('one') ? 429 : 200, { 'retry-after': '60' }).end();
    });
    vi.useFakeTimers({ toFake: ['performance'] });
    const ask = createSession(endpoint);
    expect(await ask('app/blobs/one')).toBe(429);
    await expect(ask('app/blobs/two')).rejects.toMatchObject({
      code: 'unavailable',
      retryAfterMs: 60_000,
      message: expect.stringContaining('asked for a pause, of which 60 s are left'),
    });
    vi.advanceTimersByTime(59_000);
    await expect(ask('app/manifests/v1')).rejects.toMatchObject({ retryAfterMs: 1000 });
    vi.advanceTimersByTime(1000);
    expect(await ask('app/blobs/two')).toBe(200);
    expect(asked).toEqual(['/v2/app/blobs/one', '/v2/app/blobs/two']);
  });
});

it('an Authorization of hosts.toml gives way to signing in when it is refused', async () => {
  const seen: string[][] = [];
  const endpoint = await serve((request, response) => {
    const sent = request.rawHeaders.filter(
      (_, index, all) => all[index - 1]?.toLowerCase() === 'authorization',
    );
    seen.push(sent);
    const isIn = sent.join() === `Basic ${Buffer.from('u:p').toString('base64')}`;
    response.writeHead(isIn ? 200 : 401, { 'www-authenticate': 'Basic realm="r"' }).end();
  });
  const ask = createSession({ ...endpoint, headers: [['authorization', 'Bearer from-hosts-toml']] });
  expect(await ask('app/blobs/one')).toBe(200);
  expect(seen).toEqual([['Bearer from-hosts-toml'], [`Basic ${Buffer.from('u:p').toString('base64')}`]]);
});

it('certificates that are replaced all the time leave no connections behind', async () => {
  const endpoint = await serve((_, response) => response.end('ok'));
  const send = async (connectTimeoutMs: number) => {
    const { base, tls } = endpoint;
    const request = { method: 'GET', url: new URL(base), headers: [], tls, connectTimeoutMs } as const;
    await discard(await http.send(request, signal));
  };
  for (let turn = 1; turn <= 60; turn++) await send(10_000 + turn);
  const connections = () =>
    new Promise<number>((resolve) => server?.getConnections((_error, count) => resolve(count)));
  await vi.waitFor(async () => expect(await connections()).toBeLessThanOrEqual(32), { timeout: 20_000 });
  await send(10_001);
}, 40_000);
