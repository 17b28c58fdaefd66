/** A registry and a mirror of it: what one of the two does wrong, the other makes good. */

import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { makeTemporaryDirectory } from '../../support/stored-blob.ts';
import {
  type Asked,
  cutAfter,
  type Fault,
  type FaultProxy,
  flipByte,
  startFaultProxy,
  status,
  times,
} from './fault-proxy.ts';
import {
  canRunRegistry,
  certsD,
  expectWhole,
  makeImage,
  type PullOptions,
  pull,
  push,
  scratch,
  startRegistry,
  type TestRegistry,
} from './registry-fixture.ts';

const FOREVER = Number.POSITIVE_INFINITY;
const isBlob = ({ kind }: Asked) => kind === 'blob';

/** The page of a captive portal, in place of whatever was asked for. */
const portalPage =
  (declaresLength: boolean): Fault =>
  ({ response }) => {
    const page = '<html>Welcome to our hotel</html>';
    response.writeHead(200, {
      'content-type': 'text/html',
      ...(declaresLength ? { 'content-length': page.length } : {}),
    });
    response.end(page);
    return 'spoiled';
  };

describe.runIf(canRunRegistry)('a registry with a mirror', () => {
  let directory: string;
  let registry: TestRegistry;
  let upstream: FaultProxy;
  let mirror: FaultProxy;
  let reference: string;
  let options: Omit<PullOptions, 'root'>;

  beforeAll(async () => {
    directory = scratch();
    registry = await startRegistry(directory);
    upstream = await startFaultProxy(registry.host);
    mirror = await startFaultProxy(registry.host);
    await push(await makeImage(directory), `${registry.host}/windows/app:v1`);
    reference = `${upstream.host}/windows/app:v1`;
    const hosts = `server = "http://${upstream.host}"\n[host."http://${mirror.host}"]\n`;
    options = { configPath: certsD(directory, { [upstream.host]: hosts }) };
  });
  afterEach(() => {
    for (const proxy of [upstream, mirror]) {
      proxy.fault = undefined;
      proxy.asked.length = 0;
    }
  });
  afterAll(async () => {
    await upstream.close();
    await mirror.close();
    await registry.stop();
    rmSync(directory, { recursive: true, force: true });
  });

  it('is not asked while the mirror has everything', async () => {
    const root = makeTemporaryDirectory();
    expectWhole(root, await pull(reference, { ...options, root }));
    expect(upstream.asked).toEqual([]);
  });

  it.each<[string, Fault]>([
    ['answers blobs with a page of its own', portalPage(false)],
    ['answers blobs with a page of its own, and says how long it is', portalPage(true)],
    ['sends wrong bytes', flipByte],
    ['breaks off', cutAfter(300)],
    ['refuses', status(403)],
    ['has nothing', status(404)],
    ['fails', status(500)],
    ['asks for patience', status(429, { 'retry-after': '3600' })],
  ])('makes good what a mirror does that %s', async (_what, fault) => {
    const root = makeTemporaryDirectory();
    mirror.fault = times(FOREVER, isBlob, fault);
    expectWhole(root, await pull(reference, { ...options, root }));
    expect(upstream.asked.filter(isBlob).length).toBeGreaterThan(0);
  });

  it('makes good what another place left of a blob before', async () => {
    const root = makeTemporaryDirectory();
    const image = await pull(reference, { ...options, root, resolveOnly: true });
    const once = { ...options, root, backoff: { retries: 0 } };
    for (const { blob } of image.layers)
      writeFileSync(
        join(root, 'images/ingest', `${blob.digest.replace(':', '-')}.part`),
        'wrong from the start',
      );
    mirror.fault = times(FOREVER, isBlob, status(404));
    expectWhole(root, await pull(reference, once));
  });

  it('is tried again for what only a mirror has that fails for a while', async () => {
    for (const [kind, matches] of [
      ['manifest', ({ kind: asked }: Asked) => asked === 'manifest'],
      ['blob', isBlob],
    ] as const) {
      const root = makeTemporaryDirectory();
      mirror.asked.length = 0;
      upstream.fault = times(FOREVER, () => true, status(404));
      mirror.fault = times(2, matches, status(503, { 'retry-after': '0' }));
      const found = await pull(reference, { ...options, root, image: { policy: 'Always' } });
      expect(mirror.asked.some((asked) => asked.kind === kind)).toBe(true);
      expectWhole(root, found);
    }
  });

  it('is tried again as soon as it takes, however long its mirror asks to wait', async () => {
    const root = makeTemporaryDirectory();
    mirror.fault = times(FOREVER, isBlob, status(429, { 'retry-after': '3600' }));
    upstream.fault = times(2, isBlob, status(503));
    expectWhole(root, await pull(reference, { ...options, root }));
  });

  it('is said to have nothing, and the mirror to fail, when it stays so', async () => {
    upstream.fault = times(FOREVER, () => true, status(404));
    mirror.fault = times(FOREVER, () => true, status(503));
    await expect(pull(reference, { ...options, root: makeTemporaryDirectory() })).rejects.toMatchObject({
      code: 'unavailable',
      message: expect.stringMatching(/HTTP 404.*HTTP 503|HTTP 503.*HTTP 404/),
    });
  });

  it('is given up when it breaks off, refuses to go on, and so forth', async () => {
    let cuts = 0;
    const breaksOff: Fault = (context) => {
      if (!isBlob(context.asked) || context.answer.body.length <= 1 << 20) return 'untouched';
      cuts++;
      return cutAfter(1_200_000)(context);
    };
    mirror.fault = times(FOREVER, isBlob, status(404));
    upstream.fault = (context) =>
      context.asked.range === undefined ? breaksOff(context) : status(416)(context);
    await expect(pull(reference, { ...options, root: makeTemporaryDirectory() })).rejects.toMatchObject({
      code: 'unavailable',
      message: expect.stringMatching(/broke off|terminated|other side closed|from byte/),
    });
    expect(cuts).toBeLessThan(20);
  });
});
