import { execFileSync } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { mkdir, readdir, readFile, truncate, writeFile } from 'node:fs/promises';
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

  it('is what it was when a layer that was built anew could not take its place', async () => {
    const bench = await shown();
    const { host, root, requests, request } = bench;
    const [base] = requests;
    await damage(bench);
    await host.unpackLayer(base, context);
    const folder = join(root, 'snapshots', base.chainId.slice('sha256:'.length));
    execFileSync('mount', ['--bind', folder, folder]);
    await expect(host.commitLayer(base, context)).rejects.toMatchObject({ code: 'busy' });
    expect((await host.observe({ signal: context.signal })).mounts).toMatchObject([{ state: 'mounted' }]);
    execFileSync('umount', [folder]);
    await build(host, requests);
    await expectSound(host, request.path);
  });

  it('is left alone when a layer is committed again without having been built', async () => {
    const { host, root, requests, request } = await shown();
    await build(host, requests);
    expect(await readFile(join(root, 'mounts', `${request.volumeGuid}.json`), 'utf8')).not.toContain('stale');
    await expectSound(host, request.path);
  });
});

describe.runIf(kernel)('what somebody mounted in the folder of a layer', () => {
  it('is not deleted with it', async () => {
    const { host, root, directory } = await openBench();
    const [layer] = await makeStack(join(directory, 'blobs'), [{ name: 'Files/', type: 'directory' }]);
    await build(host, [layer]);
    const folder = layer.chainId.slice('sha256:'.length);
    const [precious, inside] = [join(directory, 'precious'), join(root, 'snapshots', folder, 'inside')];
    for (const path of [precious, inside]) await mkdir(path);
    await writeFile(join(precious, 'file'), 'kept');
    execFileSync('mount', ['--bind', precious, inside]);
    const warnings: string[] = [];
    await host.removeLayer(layer, { ...context, warn: (message) => warnings.push(message) });
    expect(warnings).toEqual([expect.stringContaining(`mounted at ${root}/snapshots/rm-${folder}/inside`)]);
    await host.cleanLeftovers(context);
    expect(await readFile(join(precious, 'file'), 'utf8')).toBe('kept');
    expect(await readdir(join(root, 'snapshots'))).toEqual([]);
  });
});
