/** Layers that name their own URLs, by policy; and a disk that is too small. */

import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { afterEach, expect, it, onTestFinished } from 'vitest';
import type { ForeignLayers } from '../../../src/images/registry/blob-places.ts';
import { CONFIG, MANIFEST, OciFixture } from '../../support/oci-fixture.ts';
import { isRoot, requireOrSkip } from '../../support/requirements.ts';
import { makeTemporaryDirectory, sha256 } from '../../support/stored-blob.ts';
import { certsD, expectNoPartialBlobs, expectWhole, noise, plainHttp, pull } from './registry-fixture.ts';

const servers: Server[] = [];
afterEach(() => {
  for (const server of servers.splice(0)) {
    server.closeAllConnections();
    server.close();
  }
});

/** Serves what `find` has; the paths asked for, and with what authorization, are written down. */
async function serve(find: (path: string) => { bytes: Buffer; type?: string } | undefined) {
  const asked: { path: string; authorization: string | undefined }[] = [];
  const server = createServer(({ url: path = '', headers, method }, response) => {
    if (method === 'GET') asked.push({ path, authorization: headers.authorization });
    const found = find(path);
    response.writeHead(found === undefined ? 404 : 200, {
      'content-type': found?.type ?? 'application/octet-stream',
      'content-length': found?.bytes.length ?? 0,
      ...(found === undefined ? {} : { 'docker-content-digest': sha256(found.bytes) }),
    });
    response.end(method === 'HEAD' ? undefined : found?.bytes);
  });
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { asked, host: `127.0.0.1:${(server.address() as AddressInfo).port}` };
}

/** A registry whose image has one foreign layer, and the server that the layer's URL names. */
async function startWorld({ inRegistry = false, damaged = false, scheme = 'http' } = {}) {
  const layer = noise(50_000, 'foreign');
  const elsewhere = await serve((path) =>
    path === '/layers/base.tar?x=1'
      ? { bytes: damaged ? Buffer.from(layer).fill('x', 0, 9) : layer }
      : undefined,
  );
  const fixture = new OciFixture(makeTemporaryDirectory());
  const config = fixture.addBlob(CONFIG, {
    os: 'windows',
    architecture: 'amd64',
    rootfs: { type: 'layers', diff_ids: [sha256(layer)] },
  });
  const mediaType = 'application/vnd.docker.image.rootfs.foreign.diff.tar';
  const urls = [`${scheme}://${elsewhere.host}/layers/base.tar?x=1`];
  const layers = [{ mediaType, digest: sha256(layer), size: layer.length, urls }];
  const manifest = fixture.addBlob(MANIFEST, { schemaVersion: 2, mediaType: MANIFEST, config, layers });
  if (inRegistry) fixture.addBlob(mediaType, layer);
  const registry = await serve((path) => {
    const digest = path.endsWith('/manifests/v1') ? manifest.digest : path.slice(path.lastIndexOf('/') + 1);
    const file = fixture.blobFile(digest);
    if (!existsSync(file)) return undefined;
    const bytes = readFileSync(file);
    return path.includes('/manifests/') ? { bytes, type: MANIFEST } : { bytes };
  });
  const configPath = certsD(makeTemporaryDirectory(), {
    ...plainHttp(registry.host),
    ...plainHttp(elsewhere.host),
  });
  const pullAs = (foreignLayers: ForeignLayers, root = makeTemporaryDirectory()) =>
    pull(`${registry.host}/windows/base:v1`, { root, configPath, image: { foreignLayers } }).then((image) => {
      expectWhole(root, image);
      return image;
    });
  const blobPath = `/v2/windows/base/blobs/${sha256(layer)}`;
  return { registry, elsewhere, pullAs, blobPath };
}

it('registry-first asks the URLs only for what the registry lacks', async () => {
  const lacking = await startWorld();
  await lacking.pullAs('registry-first');
  expect(lacking.registry.asked.map(({ path }) => path)).toContain(lacking.blobPath);
  expect(lacking.elsewhere.asked).toEqual([{ path: '/layers/base.tar?x=1', authorization: undefined }]);
  const having = await startWorld({ inRegistry: true });
  await having.pullAs('registry-first');
  expect(having.elsewhere.asked).toEqual([]);
});

it('urls-first asks the URLs, and the registry when they fail or give other bytes', async () => {
  const good = await startWorld({ inRegistry: true });
  await good.pullAs('urls-first');
  expect(good.registry.asked.map(({ path }) => path)).not.toContain(good.blobPath);
  const bad = await startWorld({ inRegistry: true, damaged: true });
  await bad.pullAs('urls-first');
  expect(bad.registry.asked.map(({ path }) => path)).toContain(bad.blobPath);
});

it('never asks the URLs', async () => {
  const world = await startWorld();
  await expect(world.pullAs('never')).rejects.toMatchObject({ code: 'not-found' });
  expect(world.elsewhere.asked).toEqual([]);
});

it('URLs with damaged bytes, or that are no web address, are one clear error', async () => {
  const damaged = await startWorld({ damaged: true });
  await expect(damaged.pullAs('registry-first')).rejects.toMatchObject({ code: 'corrupt' });
  const file = await startWorld({ scheme: 'file' });
  await expect(file.pullAs('registry-first')).rejects.toMatchObject({ code: 'access-denied' });
});

it.runIf(requireOrSkip('root', isRoot))(
  'a full disk is told, and a larger one filled from where it ended',
  async () => {
    const world = await startWorld({ inRegistry: true });
    const root = makeTemporaryDirectory();
    const images = join(root, 'images');
    mkdirSync(images);
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=32k', 'tmpfs', images]);
    onTestFinished(() => {
      execFileSync('umount', [images]);
    });
    await expect(world.pullAs('registry-first', root)).rejects.toMatchObject({
      code: 'no-space',
      hint: expect.stringContaining('free space'),
    });
    expectNoPartialBlobs(root);
    execFileSync('mount', ['-o', 'remount,size=1m', images]);
    await world.pullAs('registry-first', root);
  },
);
