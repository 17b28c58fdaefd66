/** Tags that move, and tags that are picked, at Debian's docker-registry. */

import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { makeTemporaryDirectory } from '../../support/stored-blob.ts';
import { type FaultProxy, startFaultProxy } from './fault-proxy.ts';
import {
  canRunRegistry,
  certsD,
  makeImage,
  type PullOptions,
  plainHttp,
  pull,
  push,
  scratch,
  startRegistry,
  type TestRegistry,
} from './registry-fixture.ts';

const HOUR = 3_600_000;
const START = Date.parse('2026-01-01T00:00:00Z');

describe.runIf(canRunRegistry)('tags', () => {
  let directory: string;
  let registry: TestRegistry;
  let proxy: FaultProxy;
  let one: string;
  let two: string;
  const digests = new Map<string, string>();

  beforeAll(async () => {
    directory = scratch();
    [one, two] = [await makeImage(directory, 'one'), await makeImage(directory, 'two')];
    for (const layout of [one, two]) {
      const index = JSON.parse(readFileSync(join(layout, 'index.json'), 'utf8'));
      digests.set(layout, index.manifests[0].digest);
    }
    registry = await startRegistry(directory);
    proxy = await startFaultProxy(registry.host);
  });
  afterAll(async () => {
    await proxy.close();
    await registry.stop();
    rmSync(directory, { recursive: true, force: true });
  });

  /** A host that pulls `name` through the proxy, at a time of its own. */
  function hostFor(name: string) {
    const root = makeTemporaryDirectory();
    const configPath = certsD(directory, plainHttp(proxy.host));
    const clock = { now: START };
    return {
      clock,
      pull: async (image: PullOptions['image'] = {}, options: Partial<PullOptions> = {}) => {
        proxy.asked.length = 0;
        const found = await pull(`${proxy.host}/${name}`, {
          root,
          configPath,
          now: () => clock.now,
          image,
          ...options,
        });
        return {
          ...found,
          asked: proxy.asked.map(({ method, path }) => `${method} ${path.split('/').at(-1)}`),
        };
      },
    };
  }

  it('are asked about again once their interval is over, by a HEAD that may be answered with nothing new', async () => {
    await push(one, `${registry.host}/moving/app:v1`);
    const host = hostFor('moving/app:v1');
    const policy = { intervalMs: HOUR };
    expect((await host.pull(policy)).digest).toBe(digests.get(one));
    host.clock.now += HOUR - 1;
    expect((await host.pull(policy)).asked).toEqual([]);
    host.clock.now += 1;
    expect((await host.pull(policy)).asked).toEqual(['HEAD v1']);
    expect(proxy.asked[0]?.ifNoneMatch).toMatch(/^"?sha256:/);
    expect((await host.pull(policy)).asked).toEqual([]);

    await push(two, `${registry.host}/moving/app:v1`);
    expect((await host.pull(policy)).digest).toBe(digests.get(one));
    host.clock.now += HOUR;
    const moved = await host.pull(policy);
    expect(moved.digest).toBe(digests.get(two));
    expect(moved.asked[0]).toBe('HEAD v1');
    expect((await host.pull(policy)).asked).toEqual([]);
  });

  it('are taken as they were while nobody answers, and that is said', async () => {
    await push(one, `${registry.host}/lonely/app:v1`);
    const host = hostFor('lonely/app:v1');
    await host.pull();
    host.clock.now += 2 * HOUR;
    proxy.fault = ({ response }) => {
      response.writeHead(503).end();
      return 'spoiled';
    };
    try {
      const kept = await host.pull();
      expect(kept.digest).toBe(digests.get(one));
      expect(kept.warnings).toEqual([expect.stringMatching(/lonely\/app:v1 has moved is not known.*503/)]);
      // One question, and no more of them.
      expect(kept.asked).toEqual(['HEAD v1']);
      await expect(host.pull({ policy: 'Always' })).rejects.toMatchObject({ code: 'unavailable' });
    } finally {
      proxy.fault = undefined;
    }
    expect((await host.pull()).warnings).toBeUndefined();
  });

  it('by digest are never asked about again', async () => {
    await push(one, `${registry.host}/fixed/app:v1`);
    const host = hostFor(`fixed/app@${digests.get(one)}`);
    await host.pull();
    host.clock.now += 100 * HOUR;
    expect((await host.pull()).asked).toEqual([]);
  });

  it('are picked by a policy among those there are, by as many pages as there are', async () => {
    for (const tag of ['1.2.0', '1.10.0', '2.0.0']) await push(one, `${registry.host}/picked/app:${tag}`);
    proxy.fault = ({ asked, response }) => {
      // docker-registry's pages are longer than anybody wants to push.
      if (!asked.path.includes('/tags/list')) return 'untouched';
      const last = new URL(asked.path, 'http://x').searchParams.get('last');
      const pages: Record<string, [string[], string?]> = {
        start: [['1.10.0', 'not a tag!', '1.2.0'], '1.2.0'],
        '1.2.0': [['2.0.0']],
      };
      const [tags, next] = pages[last ?? 'start'] ?? [[]];
      const link =
        next === undefined ? {} : { link: `</v2/picked/app/tags/list?last=${next}&n=1000>; rel="next"` };
      response.writeHead(200, link).end(JSON.stringify({ name: 'picked/app', tags }));
      return 'spoiled';
    };
    try {
      const host = hostFor('picked/app');
      const any = await host.pull({ tags: { semver: '*' } });
      expect(any.reference).toBe(`${proxy.host}/picked/app:2.0.0`);
      expect(any.asked.slice(0, 2)).toEqual(['GET list?n=1000', 'GET list?last=1.2.0&n=1000']);
    } finally {
      proxy.fault = undefined;
    }
  });

  it('that a policy picks are found again without a registry, and newer ones with it', async () => {
    await push(one, `${registry.host}/growing/app:1.0.0`);
    const host = hostFor('growing/app');
    const tags = { semver: '1.x' };
    const before = await host.pull({ tags });
    expect(before).toMatchObject({ reference: `${proxy.host}/growing/app:1.0.0`, digest: digests.get(one) });
    expect(await host.pull({ tags, policy: 'Never' })).toMatchObject({ digest: digests.get(one), asked: [] });
    await push(two, `${registry.host}/growing/app:1.1.0`);
    expect((await host.pull({ tags })).reference).toBe(`${proxy.host}/growing/app:1.1.0`);
    await expect(host.pull({ tags: { regex: '^2\\.' } })).rejects.toMatchObject({
      code: 'not-found',
      message: expect.stringContaining('it has 2 tags, such as 1.0.0, 1.1.0'),
    });
  });

  it('are not picked where a digest is named', async () => {
    await expect(
      hostFor(`growing/app@${digests.get(one)}`).pull({ tags: { semver: '*' } }),
    ).rejects.toMatchObject({ code: 'invalid-manifest' });
  });
});
