/** Images as e2fsck and the kernel see them, against the same tar extracted by GNU tar. */

import { execFileSync } from 'node:child_process';
import {
  closeSync,
  createReadStream,
  linkSync,
  mkdirSync,
  openSync,
  readFileSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { inChunks, makeTar, run, tarOf } from '../layers/tar-helpers.ts';
import { canMount, describeTree, e2fsck, hasE2fsprogs, makeImage, Workshop } from './images.ts';

let shop: Workshop;
beforeEach(() => {
  shop = new Workshop();
});
afterEach(() => shop.close());

/** Bytes that are not all zeros anywhere. */
function pattern(length: number, seed = 1): Buffer {
  return Buffer.from(Uint8Array.from({ length }, (_, index) => 1 + ((index * 7 + seed * 13) % 255)));
}

/** A tree with one of everything that a layer can hold. */
function makeTree(root: string): void {
  const at = (name: string) => `${root}/${name}`;
  for (const size of [0, 1, 59, 60, 61, 136, 137, 511, 512, 4095, 4096, 4097, 300_000])
    writeFileSync(at(`size-${size}`), pattern(size, size));
  mkdirSync(at('directory/below'), { recursive: true });
  symlinkSync('directory/below', at('short'));
  symlinkSync('x'.repeat(59), at('link-59'));
  symlinkSync('x'.repeat(60), at('link-60'));
  symlinkSync('y/'.repeat(2047), at('link-long'));
  writeFileSync(at('n'.repeat(255)), 'long name');
  writeFileSync(Buffer.concat([Buffer.from(`${root}/bytes-`), Buffer.from([0xff, 0x0a, 0xe4])]), 'bytes');
  linkSync(at('size-4097'), at('directory/below/other-name'));
  linkSync(at('short'), at('directory/link-to-a-link'));
  execFileSync('mknod', [at('character'), 'c', '5', '1']);
  execFileSync('mknod', [at('block'), 'b', '259', '70000']);
  execFileSync('mknod', [at('whiteout'), 'c', '0', '0']);
  execFileSync('mkfifo', [at('fifo')]);
  execFileSync('chown', ['70000:4000000000', at('size-1')]);
  execFileSync('chmod', ['4711', at('size-1')]);
  execFileSync('chmod', ['1777', at('directory')]);
  const set = (name: string, value: Buffer, file: string) =>
    execFileSync('setfattr', ['-h', '-n', name, '-v', `0x${value.toString('hex')}`, at(file)]);
  set('user.small', Buffer.from([0xff, 0, 0x80, 0x0a]), 'size-0');
  set('user.of-a-directory', Buffer.from('value'), 'directory');
  set('user.medium', pattern(200), 'size-60');
  set('user.large', pattern(3500), 'size-60');
  set('trusted.a', pattern(10), 'size-60');
  set('security.capability', Buffer.from('0100000200200000000000000000000000000000', 'hex'), 'size-61');
  set('trusted.link', Buffer.from('on a symlink'), 'short');
  // user::rw-, user:1000:rw-, group::r--, mask::rw-, other::r--
  const acl = '0200000001000600ffffffff02000600e803000004000400ffffffff10000600ffffffff20000400ffffffff';
  set('system.posix_acl_access', Buffer.from(acl, 'hex'), 'size-511');
  set('system.posix_acl_default', Buffer.from(acl, 'hex'), 'directory');
  execFileSync('touch', ['-d', '1905-05-05 05:05:05.123456789 UTC', at('size-512')]);
  execFileSync('touch', ['-d', '1969-12-31 23:59:59.999999999 UTC', at('size-4095')]);
  execFileSync('touch', ['-d', '2040-01-01 00:00:00.000000001 UTC', at('size-4096')]);
  execFileSync('touch', ['-d', '2110-01-01 00:00:00.5 UTC', at('size-137')]);
  execFileSync('touch', ['-h', '-d', '2446-05-10 22:38:55.999999999 UTC', at('short')]);
}

describe.runIf(hasE2fsprogs && canMount)('an image of a tar', () => {
  for (const inlineData of [false, true])
    it(`holds what GNU tar extracts${inlineData ? ', with inline data' : ''}`, async () => {
      const tree = shop.directory();
      makeTree(tree);
      const tar = shop.at('layer.tar');
      run('tar', ['--format=posix', '--xattrs', '--xattrs-include=*', '-C', tree, '-cf', tar, '.']);
      const image = shop.at('image');
      await makeImage(createReadStream(tar, { highWaterMark: 1000 }), image, { inlineData });
      e2fsck(image);
      const extracted = describeTree(shop.extract(tar));
      expect([...describeTree(shop.mount(image))]).toEqual([...extracted]);
      expect(extracted.size).toBeGreaterThan(25);
    });

  it('keeps holes as holes, in files up to 128 GiB', async () => {
    const tree = shop.directory();
    writeFileSync(`${tree}/sparse`, pattern(5000));
    truncateSync(`${tree}/sparse`, 128 * 2 ** 30);
    const islands = `${tree}/islands`;
    const descriptor = openSync(islands, 'w');
    for (let island = 0; island < 1000; island++)
      writeSync(descriptor, pattern(3000 + island, island), 0, 3000 + island, island * 25 * 4096);
    closeSync(descriptor);
    const tar = shop.at('layer.tar');
    for (const version of ['0.1', '1.0']) {
      run('tar', ['--format=posix', '-S', `--sparse-version=${version}`, '-C', tree, '-cf', tar, '.']);
      const image = shop.at(`image-${version}`);
      const { size } = await makeImage(createReadStream(tar), image);
      expect(size).toBeLessThan(16 * 2 ** 20);
      e2fsck(image);
      const mounted = shop.mount(image);
      expect(statSync(`${mounted}/sparse`).size).toBe(128 * 2 ** 30);
      expect(run('head', ['-c', '8192', `${mounted}/sparse`])).toEqual(
        Buffer.concat([pattern(5000), Buffer.alloc(3192)]),
      );
      expect(run('cmp', [islands, `${mounted}/islands`])).toHaveLength(0);
    }
  });

  it('stores no long runs of zeros', async () => {
    const content = Buffer.alloc(1_000_000);
    pattern(5000).copy(content, 300_000);
    const tar = makeTar((out) => out.file({ name: 'zeros' }, content));
    const image = shop.at('image');
    const { size } = await makeImage(inChunks(tar, 7777), image);
    expect(size).toBeLessThan(60_000);
    e2fsck(image);
    expect(readFileSync(`${shop.mount(image)}/zeros`).equals(content)).toBe(true);
  });

  it('finds every name of a directory of 100,000', async () => {
    const count = 100_000;
    const nameOf = (number: number) => `${number}-${'n'.repeat(number % 50)}`;
    const tar = makeTar((out) => {
      for (let number = 0; number < count; number++)
        out.entry({ name: `d/${nameOf(number)}`, type: 'file', mode: 0o644 });
    });
    const image = shop.at('image');
    await makeImage(inChunks(tar, 1 << 20), image);
    e2fsck(image);
    const mounted = shop.mount(image);
    const listed = run('ls', ['-U', `${mounted}/d`])
      .toString()
      .trim()
      .split('\n');
    expect(listed.sort()).toEqual(Array.from({ length: count }, (_, number) => nameOf(number)).sort());
    for (let number = 0; number < count; number += 97) statSync(`${mounted}/d/${nameOf(number)}`);
  });

  it('has directories of more than 65,000 directories', async () => {
    const tar = makeTar((out) => {
      for (let number = 0; number < 66_000; number++)
        out.entry({ name: `d/${number}`, type: 'directory', mode: 0o755 });
    });
    const image = shop.at('image');
    await makeImage(inChunks(tar, 1 << 20), image);
    e2fsck(image);
    expect(statSync(`${shop.mount(image)}/d`).nlink).toBe(1);
  });

  it('is the same for the same tar, however it comes in pieces', async () => {
    const tree = shop.directory();
    makeTree(tree);
    const tar = run('tar', ['--format=posix', '--xattrs', '-C', tree, '-cf', '-', '.']);
    for (const [name, size] of [
      ['one', 1 << 20],
      ['two', 517],
    ] as const)
      await makeImage(inChunks(tar, size), shop.at(name));
    expect(readFileSync(shop.at('one')).equals(readFileSync(shop.at('two')))).toBe(true);
  });

  it('is empty but for lost+found without entries', async () => {
    const image = shop.at('image');
    await makeImage(inChunks(tarOf()), image);
    e2fsck(image);
    expect(run('ls', [shop.mount(image)]).toString()).toBe('lost+found\n');
  });
});
