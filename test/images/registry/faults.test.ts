/** What a registry, and what is on the way to it, can do wrong: one clear error or the right bytes, and nothing else. */

import { createHash } from 'node:crypto';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { CimletError } from '../../../src/errors.ts';
import { makeTemporaryDirectory } from '../../support/stored-blob.ts';
import {
  type Asked,
  cutAfter,
  drip,
  endAfter,
  endless,
  type Fault,
  type FaultProxy,
  flipByte,
  stall,
  startFaultProxy,
  status,
  times,
  wrongLength,
} from './fault-proxy.ts';
import {
  canRunRegistry,
  certsD,
  everythingSaid,
  expectNoPartialBlobs,
  expectWhole,
  filesIn,
  LAYER_BYTES,
  makeImage,
  PASSWORD,
  type PullOptions,
  plainHttp,
  pull,
  push,
  scratch,
  startRegistry,
  type TestRegistry,
  USER,
} from './registry-fixture.ts';

const FOREVER = Number.POSITIVE_INFINITY;
const isManifest = ({ kind, method }: Asked) => kind === 'manifest' && method === 'GET';
const isBlob = ({ kind }: Asked) => kind === 'blob';

describe.runIf(canRunRegistry)('a registry behind a bad connection', () => {
  let directory: string;
  let registry: TestRegistry;
  let proxy: FaultProxy;
  let reference: string;
  let options: Omit<PullOptions, 'root'>;

  beforeAll(async () => {
    directory = scratch();
    registry = await startRegistry(directory, { signIn: true });
    proxy = await startFaultProxy(registry.host);
    await push(await makeImage(directory), `${registry.host}/windows/app:v1`, [
      '--dest-creds',
      `${USER}:${PASSWORD}`,
    ]);
    const passwordFile = join(directory, 'password');
    writeFileSync(passwordFile, PASSWORD);
    reference = `${proxy.host}/windows/app:v1`;
    options = {
      configPath: certsD(directory, plainHttp(proxy.host)),
      credentials: [{ registry: proxy.host, username: USER, passwordFile }],
      minimumRate: { bytes: 1, windowMs: 500 },
    };
  });
  afterEach(() => {
    proxy.fault = undefined;
    proxy.asked.length = 0;
  });
  afterAll(async () => {
    await proxy.close();
    await registry.stop();
    rmSync(directory, { recursive: true, force: true });
  });

  /** Pulls with the fault, and, if that fails, without it, which always succeeds. Returns the first one's error. */
  async function pullTwice(fault: Fault, root = makeTemporaryDirectory()): Promise<CimletError | undefined> {
    proxy.fault = fault;
    const first = await pull(reference, { ...options, root }).catch((thrown: Error) => thrown);
    expectNoPartialBlobs(root);
    proxy.fault = undefined;
    if (!(first instanceof Error)) {
      expectWhole(root, first);
      return undefined;
    }
    expectWhole(root, await pull(reference, { ...options, root }));
    expect(first).toBeInstanceOf(CimletError);
    const said = everythingSaid(first);
    expect(said).not.toContain(PASSWORD);
    expect(said).not.toContain(Buffer.from(`${USER}:${PASSWORD}`).toString('base64'));
    return first as CimletError;
  }

  const once: [string, Fault][] = [
    ['cut before the first byte', cutAfter(0)],
    ['cut after the first byte', cutAfter(1)],
    ['cut in the middle', cutAfter(300)],
    ['cut before the last byte', cutAfter(-1)],
    ['ended before the first byte', endAfter(0)],
    ['ended in the middle', endAfter(300)],
    ['ended before the last byte', endAfter(-1)],
    ['with a wrong byte', flipByte],
    ['declared too short', wrongLength(-7)],
    ['declared too long', wrongLength(7)],
    ['HTTP 408', status(408)],
    ['HTTP 429', status(429)],
    ['HTTP 429 with a wait', status(429, { 'retry-after': '0' })],
    ['HTTP 500', status(500, {}, 'not JSON')],
    ['HTTP 502', status(502, {}, '<html>bad gateway</html>')],
    ['HTTP 503', status(503, {}, '{"errors":[{"code":"UNAVAILABLE"}]}')],
  ];
  for (const [kind, matches] of [
    ['a manifest', isManifest],
    ['a configuration or layer', isBlob],
  ] as const) {
    it.each(once)(`${kind} once %s costs nothing but another try`, async (_name, fault) => {
      expect(await pullTwice(times(1, matches, fault))).toBeUndefined();
    });
    it.each(once)(`${kind} always %s is one clear error`, async (_name, fault) => {
      const error = await pullTwice(times(FOREVER, matches, fault));
      expect(['unavailable', 'corrupt']).toContain(error?.code);
      expect(error?.message).toMatch(/^(fetch|resolve|GET) .*127\.0\.0\.1/);
    });
  }

  it.each<[number, string]>([
    [401, 'access-denied'],
    [403, 'access-denied'],
    [404, 'not-found'],
    [410, 'not-found'],
    [418, 'corrupt'],
  ])('HTTP %i is told at once, in the words of the registry', async (code, expected) => {
    for (const matches of [isManifest, isBlob, ({ method }: Asked) => method === 'HEAD']) {
      proxy.asked.length = 0;
      let refusals = 0;
      const error = await pullTwice((context) => {
        if (!matches(context.asked)) return 'untouched';
        refusals++;
        return status(code, {}, '{"errors":[{"code":"SORRY","message":"not today"}]}')(context);
      });
      expect(error?.code).toBe(expected);
      expect(error?.message).toContain(`HTTP ${code}`);
      if (matches !== isBlob && refusals > 1) expect(code).toBe(401);
    }
  });

  it('a server that repeats what it was sent does not make an error tell it', async () => {
    const error = await pullTwice(({ asked, answer, response }) =>
      asked.authorization === undefined
        ? 'untouched'
        : status(
            403,
            {},
            JSON.stringify({
              errors: [{ code: 'DENIED', message: `no ${asked.authorization} ${PASSWORD}` }],
            }),
          )({ asked, answer, response }),
    );
    expect(error).toMatchObject({ code: 'access-denied' });
  });

  it('a wait that is too long is refused at once, and told', async () => {
    const error = await pullTwice(times(FOREVER, isManifest, status(429, { 'retry-after': '3600' })));
    expect(error?.message).toContain('asks to wait 3600 s');
    expect(proxy.asked.filter(isManifest).length).toBeLessThan(4);
  });

  it('bad JSON is told with its place', async () => {
    const bad = Buffer.from('{"schemaVersion": 2,\n "config": oops}');
    const error = await pullTwice(manifestOf(bad));
    expect(error?.code).toBe('corrupt');
    expect(error?.message).toMatch(/:2:12: not valid JSON/);
  });

  it('a manifest of 5 MiB is not read', async () => {
    const big = Buffer.alloc(5 << 20, ' ');
    for (const fault of [manifestOf(big), manifestOf(big, false), times(FOREVER, isManifest, endless)]) {
      expect(await pullTwice(fault)).toMatchObject({
        code: 'corrupt',
        message: expect.stringContaining('4194304'),
      });
    }
  });

  it('a layer without end is cut where it should have ended', async () => {
    const error = await pullTwice(times(FOREVER, isBlob, endless));
    expect(error?.code).toBe('corrupt');
    const layersOnly = await pullTwice(({ asked, ...rest }) =>
      isBlob(asked) && Number(rest.answer.headers['content-length']) > 900
        ? endless({ asked, ...rest })
        : 'untouched',
    );
    expect(layersOnly).toMatchObject({
      code: 'unavailable',
      message: expect.stringContaining('sends more than'),
    });
  });

  it('a stalled connection is cut and taken up again', async () => {
    const isLarge = ({ kind, range }: Asked) => kind === 'blob' && range === undefined;
    expect(
      await pullTwice(({ asked, answer, response }) =>
        isLarge(asked) && answer.body.length > 1 << 20
          ? stall(1 << 20)({ asked, answer, response })
          : 'untouched',
      ),
    ).toBeUndefined();
    const ranges = proxy.asked.flatMap(({ range }) => range ?? []);
    expect(ranges.length).toBeGreaterThan(0);
    expect(ranges[0]).toMatch(/^bytes=\d{5,}-$/);
  });

  it.each<[string, (asked: Asked) => boolean]>([
    ['a manifest', isManifest],
    ['a configuration or layer', isBlob],
  ])(
    '%s that drips is cut, and one that drips once costs nothing but another try',
    async (_what, matches) => {
      const before = options.minimumRate;
      options.minimumRate = { bytes: 2000, windowMs: 1000 };
      try {
        expect(await pullTwice(times(1, matches, drip))).toBeUndefined();
        const error = await pullTwice(times(FOREVER, matches, drip));
        expect(error).toMatchObject({
          code: 'unavailable',
          message: expect.stringContaining('too slow to go on'),
        });
      } finally {
        options.minimumRate = before;
      }
    },
  );

  it('a refusal that drips is told by its status', async () => {
    const before = options.minimumRate;
    options.minimumRate = { bytes: 2000, windowMs: 200 };
    const body = Buffer.from(JSON.stringify({ errors: [{ code: 'X'.repeat(1000) }] }));
    try {
      const error = await pullTwice(({ asked, response }) =>
        isManifest(asked)
          ? drip({ asked, answer: { status: 403, headers: {}, body }, response })
          : 'untouched',
      );
      expect(error).toMatchObject({ code: 'access-denied', message: expect.stringContaining('HTTP 403') });
    } finally {
      options.minimumRate = before;
    }
  });

  it('what is here is not asked for again, by the next attempt or the next run', async () => {
    const root = makeTemporaryDirectory();
    const cut = 1 << 20;
    proxy.fault = ({ asked, answer, response }) =>
      isBlob(asked) && answer.body.length > cut ? cutAfter(cut)({ asked, answer, response }) : 'untouched';
    await expect(
      pull(reference, { ...options, root, limits: { retries: 0 }, backoff: { baseMs: 1, retries: 0 } }),
    ).rejects.toMatchObject({ code: 'unavailable' });
    expect(filesIn(join(root, 'images/ingest')).length).toBeGreaterThan(0);
    proxy.fault = undefined;
    proxy.asked.length = 0;
    expectWhole(root, await pull(reference, { ...options, root }));
    const starts = proxy.asked.flatMap(({ range }) =>
      range === undefined ? [] : Number(/\d+/.exec(range)?.[0]),
    );
    expect(Math.max(...starts)).toBeGreaterThan(LAYER_BYTES[0]! / 3);
  });

  it('a run that is cancelled leaves a beginning, and the next one goes on from there', async () => {
    const root = makeTemporaryDirectory();
    const controller = new AbortController();
    proxy.fault = ({ asked, answer, response }) =>
      isBlob(asked) && answer.body.length > 1 << 20
        ? stall(1 << 20)({ asked, answer, response })
        : 'untouched';
    const pulling = pull(reference, {
      ...options,
      minimumRate: { bytes: 0, windowMs: 60_000 },
      root,
      signal: controller.signal,
      progress: ({ done }) => {
        if (done > 1 << 19) controller.abort();
      },
    });
    await expect(pulling).rejects.toMatchObject({ code: 'cancelled' });
    expectNoPartialBlobs(root);
    proxy.fault = undefined;
    proxy.asked.length = 0;
    expectWhole(root, await pull(reference, { ...options, root }));
    expect(proxy.asked.flatMap((asked) => asked.range ?? []).length).toBeGreaterThan(0);
  });

  it('a damaged beginning, or one that is too long, is thrown away', async () => {
    for (const spoil of [Buffer.alloc(100_000, 'x'), Buffer.alloc(9 << 20, 'x')]) {
      const root = makeTemporaryDirectory();
      const image = await pull(reference, { ...options, root, resolveOnly: true });
      const [layer] = image.layers;
      mkdirSync(join(root, 'images/ingest'), { recursive: true });
      writeFileSync(join(root, 'images/ingest', `${layer!.blob.digest.replace(':', '-')}.part`), spoil);
      expectWhole(root, await pull(reference, { ...options, root }));
    }
  });

  it('a server that ignores Range, or refuses it, still gives the right bytes', async () => {
    const auth = `Basic ${Buffer.from(`${USER}:${PASSWORD}`).toString('base64')}`;
    for (const answerRange of [ignoreRangeAs(auth), status(416)]) {
      const root = makeTemporaryDirectory();
      const large =
        (fault: Fault): Fault =>
        (context) =>
          context.answer.body.length > 300_000 ? fault(context) : 'untouched';
      const first = times(1, isBlob, cutAfter(100_000));
      proxy.fault = (context) => {
        if (context.asked.range !== undefined) return answerRange(context);
        return large(first)(context);
      };
      expectWhole(root, await pull(reference, { ...options, root }));
    }
  });

  it('a server that knows no HEAD, tells no digest and no type is read all the same', async () => {
    const root = makeTemporaryDirectory();
    proxy.fault = ({ asked, answer, response }) => {
      if (asked.method === 'HEAD') return status(405)({ asked, answer, response });
      const { 'docker-content-digest': _digest, 'content-type': _type, ...headers } = answer.headers;
      response.writeHead(answer.status, headers);
      response.end(answer.body);
      return 'spoiled';
    };
    expectWhole(root, await pull(reference, { ...options, root }));
  });

  it('redirects are followed without telling the other host who we are', async () => {
    const seen: (string | undefined)[] = [];
    const storage = createServer((request, response) => {
      seen.push(request.headers.authorization);
      const target = new URL(request.url ?? '', 'http://storage');
      fetch(`http://${registry.host}${target.pathname}`, {
        headers: {
          authorization: `Basic ${Buffer.from(`${USER}:${PASSWORD}`).toString('base64')}`,
          ...(request.headers.range === undefined ? {} : { range: request.headers.range }),
        },
      }).then(async (found) => {
        const body = Buffer.from(await found.arrayBuffer());
        response.writeHead(found.status, { 'content-length': body.length });
        response.end(body);
      });
    });
    await new Promise<void>((resolve) => storage.listen(0, '127.0.0.1', resolve));
    try {
      const { port } = storage.address() as AddressInfo;
      const root = makeTemporaryDirectory();
      proxy.fault = ({ asked, answer, response }) =>
        isBlob(asked) && answer.status === 200
          ? status(307, { location: `http://127.0.0.1:${port}${asked.path}?signature=abc` })({
              asked,
              answer,
              response,
            })
          : 'untouched';
      expectWhole(root, await pull(reference, { ...options, root }));
      expect(seen.length).toBeGreaterThan(3);
      expect(new Set(seen)).toEqual(new Set([undefined]));
    } finally {
      storage.closeAllConnections();
      storage.close();
    }
  });

  it('redirects in circles, or to something else than http, are refused', async () => {
    for (const location of ['', 'file:///etc/passwd', 'ftp://127.0.0.1/x']) {
      const fault: Fault = (context) =>
        isBlob(context.asked) && context.answer.status === 200
          ? status(307, { location: location || context.asked.path })(context)
          : 'untouched';
      expect(['unavailable', 'access-denied']).toContain((await pullTwice(fault))?.code);
    }
  });

  it('whatever goes wrong, nothing wrong is ever visible', async () => {
    const faults = fc.constantFrom<Fault>(
      ...once.map(([, fault]) => fault),
      cutAfter(100_000),
      endAfter(500_000),
      status(404),
      status(403),
      endless,
      () => 'untouched',
    );
    await fc.assert(
      fc.asyncProperty(fc.array(faults, { minLength: 1, maxLength: 12 }), async (sequence) => {
        const rest = [...sequence];
        await pullTwice((context) => rest.shift()?.(context) ?? 'untouched');
      }),
      { numRuns: 10 },
    );
  });

  function manifestOf(bytes: Buffer, declaresLength = true): Fault {
    const digest = `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
    return ({ asked, response }) => {
      if (asked.kind !== 'manifest') return 'untouched';
      response.writeHead(200, {
        'content-type': 'application/vnd.oci.image.manifest.v1+json',
        'docker-content-digest': digest,
        ...(declaresLength || asked.method === 'HEAD' ? { 'content-length': bytes.length } : {}),
      });
      response.end(asked.method === 'HEAD' ? undefined : bytes);
      return 'spoiled';
    };
  }

  function ignoreRangeAs(authorization: string): Fault {
    return async ({ asked, response }) => {
      const whole = await fetch(`http://${registry.host}${asked.path}`, { headers: { authorization } });
      const body = Buffer.from(await whole.arrayBuffer());
      response.writeHead(200, { 'content-length': body.length });
      response.end(body);
      return 'spoiled' as const;
    };
  }
});
