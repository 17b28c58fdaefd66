import {
  closeSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { writeErofs } from '../../../src/erofs/writer.ts';
import { mountErofs, unmount } from '../../../src/native/linux/mount.ts';
import { directory, expectTree, file, sourceOf, writeDevices } from '../../erofs/model.ts';
import { canLoop, canMountFiles, Workshop } from '../../erofs/mounts.ts';

const content = Buffer.alloc(70_000, 'region data ');
const root = directory({ inline: file('small'), region: file(content, { at: { device: 0, offset: 4096 } }) });

let shop: Workshop;
beforeEach(() => {
  shop = new Workshop();
});
afterEach(() => shop.close());

/** An image and its region file in a directory. */
async function prepare(at = shop.path): Promise<{ image: string; devices: string[] }> {
  const [image, region] = [join(at, 'image'), join(at, 'region')];
  await writeErofs(sourceOf(root, writeDevices(root, [region])), image);
  return { image, devices: [region] };
}

function mountLine(target: string): string | undefined {
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .find((line) => line.split(' ')[4] === target);
}

describe.runIf(canMountFiles)('mountErofs of files', () => {
  it('shows the image with its devices, read-only, without device files and set-user-ID', async () => {
    const { image, devices } = await prepare();
    const target = await shop.mount(image, devices);
    expectTree(target, root);
    expect(mountLine(target)).toMatch(/ ro,nosuid,nodev,.* - erofs \S+image ro,/);
    expect(() => writeFileSync(join(target, 'inline'), '')).toThrow(/EROFS/);
  });

  it('reaches files whose paths are longer than the kernel takes', async () => {
    const deep = shop.at('x'.repeat(200), 'y'.repeat(200), 'ü'.repeat(100));
    mkdirSync(deep, { recursive: true });
    const { image, devices } = await prepare(deep);
    const target = join(deep, 'target');
    mkdirSync(target);
    await mountErofs({ image, devices, target });
    expectTree(target, root);
    expect(mountLine(target)).toMatch(/ - erofs \/proc\/self\/fd\/\d+ /);
    await unmount(target);
  });

  it('takes device paths with commas, spaces and backslashes as they are', async () => {
    const odd = shop.at('a,b=c d\\e\n');
    mkdirSync(odd);
    const { image, devices } = await prepare(odd);
    expectTree(await shop.mount(image, devices), root);
  });

  it('mounts one image in several places, and over another mount', async () => {
    const { image, devices } = await prepare();
    const first = await shop.mount(image, devices);
    await shop.mount(image, devices);
    await mountErofs({ image, devices, target: first });
    await unmount(first);
    expectTree(first, root);
  });

  it.each<[string, string, RegExp, (() => object)?]>([
    [
      'a missing image',
      'not-found',
      /mount EROFS image \S+ at \S+: .*ENOENT/,
      () => ({ image: shop.at('none') }),
    ],
    ['a missing device', 'not-found', /ENOENT/, () => ({ devices: [shop.at('none')] })],
    ['a missing target', 'not-found', /ENOENT/, () => ({ target: shop.at('none') })],
    ['a file as target', 'native', /EINVAL/, () => ({ target: shop.at('region') })],
    ['a symlink as target', 'native', /EINVAL/, () => ({ target: shop.at('link') })],
    ['something else than an image', 'native', /EINVAL/, () => ({ image: shop.at('region'), devices: [] })],
    ['too many devices', 'native', /EINVAL/, () => ({ devices: [shop.at('region'), shop.at('region')] })],
  ])('refuses %s and leaves nothing', async (_, code, message, change) => {
    const { image, devices } = await prepare();
    mkdirSync(shop.at('target'));
    symlinkSync(shop.at('target'), shop.at('link'));
    const descriptors = readdirSync('/proc/self/fd').length;
    const error: unknown = await mountErofs({
      image,
      devices,
      target: shop.at('target'),
      ...change?.(),
    }).catch((caught: unknown) => caught);
    expect(error).toMatchObject({ code });
    expect((error as Error).message).toMatch(message);
    expect(shop.leftovers()).toEqual([]);
    expect(readdirSync('/proc/self/fd').length).toBe(descriptors);
  });
});

describe.runIf(canMountFiles)('unmount', () => {
  it('says that a mount is busy while a file in it is open, and detaches it when asked', async () => {
    const { image, devices } = await prepare();
    const target = shop.at('target');
    mkdirSync(target);
    await mountErofs({ image, devices, target });
    const open = openSync(join(target, 'inline'), 'r');
    await expect(unmount(target)).rejects.toMatchObject({
      code: 'busy',
      message: expect.stringContaining(target) as unknown,
    });
    await unmount(target, { detach: true });
    expect(mountLine(target)).toBeUndefined();
    expect(readFileSync(open, 'utf8')).toBe('small');
    closeSync(open);
  });

  it('refuses what is not mounted, is not there, or cannot be a path', async () => {
    await expect(unmount(shop.path)).rejects.toMatchObject({ code: 'native' });
    await expect(unmount(shop.at('none'))).rejects.toMatchObject({ code: 'not-found' });
    await expect(unmount(`${shop.path}\0/x`)).rejects.toMatchObject({ code: 'failed-precondition' });
  });
});

describe.runIf(canLoop)('mountErofs through loop devices', () => {
  it('shows the same, and the devices detach with the mount', async () => {
    const { image, devices } = await prepare();
    const target = shop.at('target');
    mkdirSync(target);
    await mountErofs({ image, devices, target, loop: true });
    expectTree(target, root);
    expect(mountLine(target)).toMatch(/ - erofs \/dev\/loop\d+ /);
    expect(shop.leftovers().filter((line) => line.startsWith('/dev/loop'))).toHaveLength(2);
    await unmount(target);
    expect(shop.leftovers()).toEqual([]);
  });

  it('detaches its devices when the mount fails', async () => {
    const { image } = await prepare();
    await expect(
      mountErofs({ image, devices: [shop.at('none')], target: shop.path, loop: true }),
    ).rejects.toMatchObject({ code: 'not-found' });
    await expect(
      mountErofs({ image: shop.at('region'), devices: [], target: shop.path, loop: true }),
    ).rejects.toMatchObject({ code: 'native' });
    expect(shop.leftovers()).toEqual([]);
  });

  it('finds free devices for many mounts at once', async () => {
    const { image, devices } = await prepare();
    const targets = await Promise.all(
      Array.from({ length: 6 }, () => shop.mount(image, devices, { loop: true })),
    );
    for (const target of targets) expect(statSync(join(target, 'region')).size).toBe(content.length);
  });
});
