import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, open, readdir, readFile, rm, statfs, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { createEmbeddedHost } from '../../../src/hosts/embedded/embedded-host.ts';
import type { UnpackRequest } from '../../../src/hosts/host.ts';
import { type LayerItem, layerItems } from '../../support/host-layers.ts';
import { isRoot, requireOrSkip } from '../../support/requirements.ts';
import {
  asBlocks,
  build,
  context,
  makeDirectory,
  makeStack,
  mergeOf,
  mountRequest,
  openBench,
} from './fixture.ts';

const root = requireOrSkip('root (to mount)', isRoot);
const capabilities = await createEmbeddedHost({ root: '/nowhere' }).capabilities();
const kernel = requireOrSkip('kernel EROFS mounts', capabilities['view.Kernel'].available);

async function bigLayer(directory: string, bytes: number): Promise<[UnpackRequest, ...UnpackRequest[]]> {
  return makeStack(directory, [
    { name: 'Files/', type: 'directory' },
    { name: 'Files/big.bin', type: 'file', content: randomBytes(bytes) },
  ]);
}

describe.runIf(root)('a full disk', () => {
  it('is one no-space error and leaves nothing, neither of a layer nor of an extraction', async () => {
    const directory = await makeDirectory();
    const small = join(directory, 'small');
    await mkdir(small);
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=4m', 'small', small]);
    const host = createEmbeddedHost({ root: join(small, 'root') });
    const [tooBig] = await bigLayer(join(directory, 'blobs'), 8_000_000);
    await expect(host.unpackLayer(tooBig, context)).rejects.toMatchObject({
      code: 'no-space',
      hint: expect.stringMatching(/free space/) as string,
    });
    const fits = await bigLayer(join(directory, 'blobs'), 2_500_000);
    await build(host, fits);
    const mount = mountRequest(join(directory, 'm'), fits, 'Extracted');
    await expect(host.mount(mount, context)).rejects.toMatchObject({ code: 'no-space' });
    const state = await host.observe({ ...context, paths: [mount.path] });
    expect(state.layers).toMatchObject([{ chainId: fits[0].chainId, faults: [] }]);
    expect([state.mounts, state.leftovers]).toEqual([[], []]);
    expect(state.paths[mount.path]).toEqual({ kind: 'absent' });
    expect(await readdir(join(small, 'root', 'extracted'))).toEqual([]);
  });
});

describe.runIf(root)('a full disk, of block layers,', () => {
  it('is one no-space error wherever it comes, and leaves nothing', async () => {
    const directory = await makeDirectory();
    const small = join(directory, 'small');
    await mkdir(small);
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64m', 'small', small]);
    const host = createEmbeddedHost({ root: join(small, 'root') });
    const names = Array.from({ length: 5_000 }, (_, index) => [`d${index % 100}/${index}`, 'x'] as const);
    const lower = layerItems(Object.fromEntries(names));
    const upper: LayerItem[] = [{ name: 'Files/big.bin', type: 'file', content: randomBytes(3_000_000) }];
    const requests = asBlocks(await makeStack(join(directory, 'blobs'), lower, upper), { seal: true });

    const failsWith = async (bytesLeft: number, effect: () => Promise<unknown>): Promise<void> => {
      const before = await host.observe(context);
      const { bavail, bsize } = await statfs(small);
      const ballast = join(small, 'ballast');
      await writeFile(ballast, Buffer.alloc(bavail * bsize - bytesLeft));
      await expect(effect(), `${bytesLeft} bytes left`).rejects.toMatchObject({ code: 'no-space' });
      await rm(ballast);
      const { layers, merges, leftovers } = await host.observe(context);
      expect([layers, merges, leftovers]).toEqual([before.layers, before.merges, []]);
    };
    const merge = () => host.mergeChain(mergeOf(requests), context);
    for (const request of requests) {
      for (const left of [0, 65_536, 500_000]) await failsWith(left, () => build(host, [request]));
      await build(host, [request]);
    }
    for (const left of [0, 65_536, 200_000]) await failsWith(left, merge);
    const { bytes } = await merge();
    await host.removeMerge(requests[1]!, context);
    // Enough for the merged CIM, too little for its seal.
    await failsWith(bytes - 4096, merge);
    await merge();
    expect(await host.observe(context)).toMatchObject({ merges: [{ faults: [] }], leftovers: [] });
  });
});

describe.runIf(root)('a read-only root', () => {
  it('is refused with the path, and observed all the same', async () => {
    const directory = await makeDirectory();
    const place = join(directory, 'ro');
    await mkdir(place);
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'ro', 'read-only', place]);
    const host = createEmbeddedHost({ root: join(place, 'root') });
    const [layer] = await makeStack(join(directory, 'blobs'), layerItems({ a: 'a' }));
    await expect(host.unpackLayer(layer, context)).rejects.toMatchObject({
      code: 'access-denied',
      message: expect.stringContaining(`${join(place, 'root')}: read-only file system`) as string,
    });
    expect(await host.observe(context)).toMatchObject({ layers: [], mounts: [], leftovers: [] });
  });
});

describe('cancelling', () => {
  it('an unpack halfway leaves nothing', async () => {
    const { directory, host } = await openBench();
    const [layer] = await bigLayer(join(directory, 'blobs'), 64_000_000);
    const controller = new AbortController();
    const unpacking = host.unpackLayer(layer, {
      signal: controller.signal,
      progress: () => controller.abort(),
    });
    await expect(unpacking).rejects.toMatchObject({ code: 'cancelled' });
    expect(await host.observe(context)).toMatchObject({ layers: [], leftovers: [] });
  });

  it('a merge halfway leaves nothing', async () => {
    const { directory, host } = await openBench();
    const names = Array.from({ length: 5_000 }, (_, index) => [`d${index % 50}/${index}`, 'x'] as const);
    const lower = layerItems(Object.fromEntries(names));
    const requests = asBlocks(await makeStack(join(directory, 'blobs'), lower, layerItems({ 'a.txt': 'a' })));
    await build(host, requests);
    const controller = new AbortController();
    const merging = host.mergeChain(mergeOf(requests), {
      signal: controller.signal,
      progress: () => setImmediate(() => controller.abort()),
    });
    await expect(merging).rejects.toMatchObject({ code: 'cancelled' });
    expect(await host.observe(context)).toMatchObject({ merges: [], leftovers: [] });
  });

  it('an extraction halfway leaves nothing', async () => {
    const { directory, root: hostRoot, host } = await openBench();
    const names = Array.from({ length: 2_000 }, (_, index) => [`d/${index}`, 'x'] as const);
    const requests = await makeStack(join(directory, 'blobs'), layerItems(Object.fromEntries(names)));
    await build(host, requests);
    const controller = new AbortController();
    const mount = mountRequest(join(directory, 'deep/m'), requests, 'Extracted');
    const mounting = host.mount(mount, { signal: controller.signal, progress: () => controller.abort() });
    await expect(mounting).rejects.toMatchObject({ code: 'cancelled' });
    expect(await host.observe(context)).toMatchObject({ mounts: [], leftovers: [] });
    expect(await readdir(join(hostRoot, 'extracted'))).toEqual([]);
    expect(existsSync(join(directory, 'deep'))).toBe(false);
  });
});

describe.runIf(kernel)('mounts', () => {
  it('in use are busy, and the hint says by whom', async () => {
    const { directory, host } = await openBench();
    const requests = await makeStack(join(directory, 'blobs'), layerItems({ 'a.txt': 'a' }));
    await build(host, requests);
    const mount = mountRequest(join(directory, 'm'), requests);
    await host.mount(mount, context);
    const file = await open(join(mount.path, 'a.txt'));
    await expect(host.dismount(mount.volumeGuid, context)).rejects.toMatchObject({
      code: 'busy',
      hint: expect.stringContaining(`process ${process.pid} `) as string,
    });
    expect((await host.observe(context)).mounts).toMatchObject([{ state: 'mounted' }]);
    await file.close();
    await host.dismount(mount.volumeGuid, context);
    expect(existsSync(mount.path)).toBe(false);
  });

  it('below a symbolic link are found again', async () => {
    const { directory, host } = await openBench();
    const requests = await makeStack(join(directory, 'blobs'), layerItems({ 'a.txt': 'a' }));
    await build(host, requests);
    await mkdir(join(directory, 'real'));
    await symlink('real', join(directory, 'link'));
    const mount = mountRequest(join(directory, 'link/with space/m'), requests);
    await host.mount(mount, context);
    expect((await host.observe(context)).mounts).toMatchObject([{ state: 'mounted', path: mount.path }]);
    await host.dismount(mount.volumeGuid, context);
    expect(await readdir(join(directory, 'real'))).toEqual([]);
  });

  it('into the root through a symbolic link are refused', async () => {
    const { directory, root: hostRoot, host } = await openBench();
    const requests = await makeStack(join(directory, 'blobs'), layerItems({ 'a.txt': 'a' }));
    await build(host, requests);
    await symlink(hostRoot, join(directory, 'link'));
    const mount = mountRequest(join(directory, 'link/m'), requests);
    await expect(host.mount(mount, context)).rejects.toMatchObject({ code: 'invalid-manifest' });
    await expect(host.mount({ ...mount, path: join(directory, 'link') }, context)).rejects.toMatchObject({
      code: 'already-exists',
    });
  });

  it('hidden by a mount on a directory above are covered', async () => {
    const { directory, host } = await openBench();
    const requests = await makeStack(join(directory, 'blobs'), layerItems({ 'a.txt': 'a' }));
    await build(host, requests);
    const mount = mountRequest(join(directory, 'above/m'), requests);
    await host.mount(mount, context);
    execFileSync('mount', ['-t', 'tmpfs', 'foreign', join(directory, 'above')]);
    expect((await host.observe(context)).mounts).toMatchObject([{ state: 'covered' }]);
    await expect(host.dismount(mount.volumeGuid, context)).rejects.toMatchObject({ code: 'busy' });
    execFileSync('umount', [join(directory, 'above')]);
    await host.dismount(mount.volumeGuid, context);
    expect(existsSync(join(directory, 'above'))).toBe(false);
  });

  it('work below a root whose name is longer than the kernel takes', async () => {
    const directory = await makeDirectory();
    const host = createEmbeddedHost({ root: join(directory, 'r'.repeat(200), 's'.repeat(200)) });
    const requests = await makeStack(
      join(directory, 'blobs'),
      layerItems({ 'a.txt': 'a', 'b.txt': 'b'.repeat(5_000) }),
    );
    await build(host, requests);
    const mount = mountRequest(join(directory, 'm'), requests);
    await host.mount(mount, context);
    expect(await readFile(join(mount.path, 'b.txt'), 'utf8')).toBe('b'.repeat(5_000));
    expect((await host.observe(context)).mounts).toMatchObject([{ state: 'mounted' }]);
    await host.dismount(mount.volumeGuid, context);
  });

  it('of one path asked for at once are made once', async () => {
    const { directory, host } = await openBench();
    const requests = await makeStack(join(directory, 'blobs'), layerItems({ 'a.txt': 'a' }));
    await build(host, requests);
    const mount = mountRequest(join(directory, 'm'), requests);
    await Promise.all([1, 2, 3].map(() => host.mount(mount, context)));
    await host.dismount(mount.volumeGuid, context);
    expect(existsSync(mount.path)).toBe(false);
  });
});

describe('one layer asked for by many at once', () => {
  it('is unpacked once', async () => {
    const { directory, host } = await openBench();
    const [layer] = await bigLayer(join(directory, 'blobs'), 100_000);
    await Promise.all(
      [1, 2, 3].map(async () => {
        await host.unpackLayer(layer, context);
        await host.commitLayer(layer, context);
      }),
    );
    expect(await host.observe(context)).toMatchObject({ layers: [{ faults: [] }], leftovers: [] });
  });
});

describe('leftovers', () => {
  it('are what this host makes and nothing records; foreign files stay', async () => {
    const { directory, root: hostRoot, host } = await openBench();
    await build(host, await makeStack(join(directory, 'blobs'), layerItems({ 'a.txt': 'a' })));
    const id = 'ab'.repeat(32);
    const guid = '01234567-89ab-4cde-8f01-23456789abcd';
    const left = [
      `cim-layers/${id}.cim`,
      `cim-layers/tmp-region_${guid}_0`,
      `extracted/tmp-${guid}/file`,
      `extracted/${guid}/file`,
      `mounts/tmp-${guid}.json`,
      `snapshots/${id}/layer.json`,
      `snapshots/rm-${id}/layer.json`,
      `views/tmp-${id}.erofs`,
      `views/${id}.erofs`,
    ];
    const foreign = ['cim-layers/notes.txt', 'snapshots/README', 'views/other', 'mounts/x', 'state.db'];
    for (const name of [...left, ...foreign]) {
      await mkdir(join(hostRoot, name, '..'), { recursive: true });
      await writeFile(join(hostRoot, name), 'torn');
    }
    const before = await host.observe(context);
    expect(before.leftovers).toHaveLength(left.length);
    expect(before.leftovers.map(({ bytes }) => bytes)).toEqual(left.map(() => 4));
    expect(await host.cleanLeftovers(context)).toHaveLength(left.length);
    const after = await host.observe(context);
    expect(after.leftovers).toEqual([]);
    expect(after.layers).toEqual(before.layers);
    expect(foreign.filter((name) => !existsSync(join(hostRoot, name)))).toEqual([]);
  });
});

describe.runIf(root)('what somebody mounted in what is going to be deleted', () => {
  it('keeps an extracted view from being taken away', async () => {
    const { directory, root: hostRoot, host } = await openBench();
    const requests = await makeStack(join(directory, 'blobs'), layerItems({ 'dir/b.txt': 'b' }));
    await build(host, requests);
    const mount = mountRequest(join(directory, 'm'), requests, 'Extracted');
    await host.mount(mount, context);
    const home = await bindHome(directory, join(mount.path, 'dir'));
    const place = join(hostRoot, 'extracted', mount.volumeGuid, 'dir');
    await expect(host.dismount(mount.volumeGuid, context)).rejects.toMatchObject({
      code: 'busy',
      message: expect.stringContaining(place) as string,
    });
    expect(await readFile(join(home, 'file'), 'utf8')).toBe('precious');
    expect(await host.observe(context)).toMatchObject({ mounts: [{ state: 'mounted' }] });
    execFileSync('umount', [place]);
    await host.dismount(mount.volumeGuid, context);
    expect(await host.observe(context)).toMatchObject({ mounts: [], leftovers: [] });
  });

  it('is only unmounted where a crash left something', async () => {
    const { directory, root: hostRoot, host } = await openBench();
    const left = join(hostRoot, 'extracted/rm-01234567-89ab-4cde-8f01-23456789abcd');
    await mkdir(join(left, 'dir'), { recursive: true });
    const home = await bindHome(directory, join(left, 'dir'));
    await bindHome(directory, left);
    await host.cleanLeftovers(context);
    await host.cleanLeftovers(context);
    expect((await host.observe(context)).leftovers).toEqual([]);
    expect(existsSync(left)).toBe(false);
    expect(await readFile(join(home, 'file'), 'utf8')).toBe('precious');
  });

  async function bindHome(directory: string, target: string): Promise<string> {
    const home = join(directory, 'home');
    await mkdir(home, { recursive: true });
    await writeFile(join(home, 'file'), 'precious');
    execFileSync('mount', ['--bind', home, target]);
    return home;
  }
});

describe('names that are no names', () => {
  it('never become paths', async () => {
    const { directory, host } = await openBench();
    const [layer] = await makeStack(join(directory, 'blobs'), layerItems({ a: 'a' }));
    const hostile = { ...layer, chainId: 'sha256:../../etc' as typeof layer.chainId };
    await expect(host.unpackLayer(hostile, context)).rejects.toMatchObject({ code: 'invalid-manifest' });
    await expect(host.removeLayer(hostile, context)).rejects.toMatchObject({ code: 'invalid-manifest' });
    const guid = '../x' as ReturnType<typeof mountRequest>['volumeGuid'];
    await expect(host.dismount(guid, context)).rejects.toMatchObject({ code: 'invalid-manifest' });
  });
});
