/** Layers that several images have. */

import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { openBlobStore } from '../../../src/images/blob-store.ts';
import { openRegistries, type Registries } from '../../../src/images/registry/registries.ts';
import { resolveImage } from '../../../src/images/resolve-image.ts';
import { type FaultProxy, startFaultProxy, status } from './fault-proxy.ts';
import {
  canRunRegistry,
  certsD,
  expectNoPartialBlobs,
  makeImage,
  plainHttp,
  push,
  QUICK,
  scratch,
  startRegistry,
  type TestRegistry,
} from './registry-fixture.ts';

const { signal } = new AbortController();
const NAMES = ['one', 'two', 'three', 'four', 'five', 'six'];

let directory: string;
let registry: TestRegistry;
let proxy: FaultProxy;
let registries: Registries;

describe.runIf(canRunRegistry)('a layer of two images', () => {
  beforeAll(async () => {
    directory = scratch();
    registry = await startRegistry(directory);
    proxy = await startFaultProxy(registry.host);
    const layout = await makeImage(directory);
    for (const name of NAMES) await push(layout, `${registry.host}/${name}:v1`);
  });
  afterEach(async () => {
    proxy.fault = undefined;
    await registries.close();
  });
  afterAll(async () => {
    await proxy.close();
    await registry.stop();
    rmSync(directory, { recursive: true, force: true });
  });

  const openSession = (root: string, other = proxy.host) => {
    registries = openRegistries({
      env: { DOCKER_CONFIG: '/nonexistent' },
      backoff: QUICK,
      store: openBlobStore(join(directory, root, 'images')),
      mayWrite: true,
      configPath: certsD(directory, { ...plainHttp(proxy.host), ...plainHttp(other) }),
    });
  };
  const layersOf = async (name: string, host = proxy.host) => {
    const image = { policy: 'Always', foreignLayers: 'registry-first', digest: undefined } as const;
    const source = registries.source({ reference: `${host}/${name}:v1`, ...image });
    const { layers } = await resolveImage(source, { host: { os: 'windows', architecture: 'amd64' } }, signal);
    return layers.map(({ blob }) => blob);
  };

  it.each(['one', 'two'])(
    'is fetched where it can be had, whichever was resolved last: not from %s',
    async (lacking) => {
      openSession(`lacking-${lacking}`);
      const [blob] = await layersOf('one');
      await layersOf('two');
      proxy.fault = (context) =>
        context.asked.path.includes(`/${lacking}/blobs/`) ? status(404)(context) : 'untouched';
      await registries.fetchLayer(blob!, { signal });
      expect(expectNoPartialBlobs(join(directory, `lacking-${lacking}`))).toContain(blob!.digest.slice(7));
    },
  );

  /** Resolves all, the one it is for first; its base layer, and who is asked for that from now on. */
  const resolveAll = async (name: string) => {
    const [blob] = await layersOf(name);
    for (const other of NAMES) if (other !== name) await layersOf(other);
    proxy.asked.length = 0;
    const askedFor = () => proxy.asked.map(({ path }) => path.split('/')[2]);
    return { blob: blob!, askedFor };
  };

  it.each(['one', 'two'])('that none of them has is the failure of the image it is for: %s', async (own) => {
    openSession(`nowhere-${own}`);
    const { blob } = await resolveAll(own);
    proxy.fault = (context) => status(context.asked.path.includes(`/${own}/`) ? 503 : 404)(context);
    await expect(registries.fetchLayer(blob, { signal })).rejects.toMatchObject({ code: 'unavailable' });
  });

  it('is asked of a few other repositories, once each', async () => {
    openSession('few');
    const { blob, askedFor } = await resolveAll('one');
    proxy.fault = status(404);
    await expect(registries.fetchLayer(blob, { signal })).rejects.toMatchObject({ code: 'not-found' });
    expect(askedFor()).toEqual(['one', 'six', 'five', 'four']);
  });

  it('is not asked again of a registry that does not answer, for the sake of other images', async () => {
    openSession('down');
    const { blob, askedFor } = await resolveAll('one');
    proxy.fault = status(503);
    await expect(registries.fetchLayer(blob, { signal })).rejects.toMatchObject({ code: 'unavailable' });
    expect(askedFor()).toEqual(Array(1 + QUICK.retries).fill('one'));
  });

  it('is fetched from another registry when its own does not answer', async () => {
    const other = await startFaultProxy(registry.host);
    try {
      openSession('other', other.host);
      const [blob] = await layersOf('one');
      await layersOf('two', other.host);
      proxy.fault = status(503);
      await registries.fetchLayer(blob!, { signal });
      expect(other.asked.at(-1)?.path).toContain(`/two/blobs/${blob!.digest}`);
    } finally {
      await other.close();
    }
  });

  it('is not waited for longer than whoever waits wants to', async () => {
    openSession('waiting');
    const [blob] = await layersOf('one');
    proxy.asked.length = 0;
    const asked = Promise.withResolvers<void>();
    const gate = Promise.withResolvers<void>();
    proxy.fault = async ({ asked: { path } }) => {
      if (!path.includes(blob!.digest)) return 'untouched' as const;
      asked.resolve();
      await gate.promise;
      return 'untouched' as const;
    };
    const first = registries.fetchLayer(blob!, { signal });
    await asked.promise;
    const impatient = new AbortController();
    const second = registries.fetchLayer(blob!, { signal: impatient.signal });
    const patient = registries.fetchLayer(blob!, { signal });
    impatient.abort();
    await expect(second).rejects.toMatchObject({ code: 'cancelled' });
    gate.resolve();
    await Promise.all([first, patient]);
    expect(proxy.asked.filter(({ path }) => path.includes(blob!.digest))).toHaveLength(1);
    expect(expectNoPartialBlobs(join(directory, 'waiting'))).toContain(blob!.digest.slice(7));
  });
});
