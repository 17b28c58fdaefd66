import { closeSync, openSync } from 'node:fs';
import { readdir, readFile, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { createEmbeddedHost } from '../../../src/hosts/embedded/embedded-host.ts';
import type { Host } from '../../../src/hosts/host.ts';
import { requireOrSkip } from '../../support/requirements.ts';
import { type Bench, build, context, makeStack, mountRequest, openBench } from './fixture.ts';

const capabilities = await createEmbeddedHost({ root: '/nowhere' }).capabilities();
const kernel = requireOrSkip('kernel EROFS mounts', capabilities['view.Kernel'].available);

const BASE = Buffer.alloc(300_000, 'base');
const TOP = Buffer.alloc(200_000, 'top');

async function shown(forceLoop = false) {
  const bench = await openBench({ forceLoop });
  const requests = await makeStack(
    join(bench.directory, 'blobs'),
    [
      { name: 'Files/', type: 'directory' },
      { name: 'Files/base', type: 'file', content: BASE },
    ],
    [{ name: 'Files/top', type: 'file', content: TOP }],
  );
  await build(bench.host, requests);
  const request = mountRequest(join(bench.directory, 'new/m'), requests);
  await bench.host.mount(request, context);
  return { ...bench, requests, request };
}

/** Cuts the file data of every layer off, in place: the kernel's open files lose it too. */
async function damage({ root }: Bench): Promise<void> {
  const folder = join(root, 'cim-layers');
  for (const name of await readdir(folder))
    if (/^region_.*_1$/.test(name)) await truncate(join(folder, name), 4096);
}

async function expectSound(host: Host, path: string): Promise<void> {
  expect((await host.observe({ signal: context.signal })).mounts).toMatchObject([{ path, state: 'mounted' }]);
  expect((await readFile(join(path, 'base'))).equals(BASE)).toBe(true);
  expect((await readFile(join(path, 'top'))).equals(TOP)).toBe(true);
}

describe.runIf(kernel)('a mounted view whose layers were damaged', () => {
  it.each([
    ['files', false],
    ['loop devices', true],
  ])('shows them whole once they are built anew, even while it is in use (%s)', async (_name, forceLoop) => {
    const bench = await shown(forceLoop);
    const { host, requests, request } = bench;
    const user = openSync(join(request.path, 'base'), 'r');
    try {
      await damage(bench);
      await expect(readFile(join(request.path, 'base'))).rejects.toThrow('EIO');
      await build(host, requests);
      await expectSound(host, request.path);
    } finally {
      closeSync(user);
    }
    await host.dismount(request.volumeGuid, context);
    expect(await readdir(bench.directory)).not.toContain('new');
  });

  it('is seen as missing and mounted again when the run that built them died before', async () => {
    const bench = await shown();
    const { host, root, requests, request } = bench;
    await damage(bench);
    await build(host, requests);
    const file = join(root, 'mounts', `${request.volumeGuid}.json`);
    await writeFile(file, JSON.stringify({ ...JSON.parse(await readFile(file, 'utf8')), stale: true }));
    const { mounts, paths } = await host.observe({ signal: context.signal, paths: [request.path] });
    expect(mounts).toMatchObject([{ state: 'missing', message: expect.stringContaining('built anew') }]);
    expect(paths[request.path]?.kind).toBe('own-mount');
    await host.mount(request, context);
    await expectSound(host, request.path);
  });

  it('is left alone when a layer is committed again without having been built', async () => {
    const { host, root, requests, request } = await shown();
    await build(host, requests);
    expect(await readFile(join(root, 'mounts', `${request.volumeGuid}.json`), 'utf8')).not.toContain('stale');
    await expectSound(host, request.path);
  });
});
