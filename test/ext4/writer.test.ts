/** Images as e2fsck and the kernel see them, against the same tar extracted by GNU tar. */

import {
  closeSync,
  createReadStream,
  openSync,
  readFileSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { checkDisk } from '../../src/ext4/check.ts';
import { openImage } from '../../src/ext4/image-file.ts';
import { Ext4Reader } from '../../src/ext4/reader.ts';
import { inChunks, makeTar, run, tarOf } from '../tar/tar-helpers.ts';
import {
  canMount,
  describeTree,
  e2fsck,
  hasE2fsprogs,
  makeImage,
  makeTree,
  pattern,
  Workshop,
} from './images.ts';

let shop: Workshop;
beforeEach(() => {
  shop = new Workshop();
});
afterEach(() => shop.close());

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
    for (let island = 0; island < 2000; island++)
      writeSync(descriptor, pattern(2000 + island, island), 0, 2000 + island, island * 25 * 4096);
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

  it('knows names again that came long before: what comes twice, links, and directories that were left', async () => {
    // More than a MiB of names, which is what is kept in memory of them.
    const [folders, each] = [90, 100];
    const nameOf = (index: number) => `${String(index).padStart(5, '0')}-${'n'.repeat(120)}`;
    const expected = new Map<string, string>();
    const tar = makeTar((out) => {
      const file = (path: string, content: string) => {
        out.file({ name: path, mode: 0o644 }, Buffer.from(content));
        expected.set(path, content);
      };
      for (let index = 0; index < folders * each; index++)
        file(`folder-${Math.floor(index / each)}/${nameOf(index)}`, `${index}`);
      for (let index = 0; index < folders * each; index += 61) {
        const path = `folder-${Math.floor(index / each)}/${nameOf(index)}`;
        file(path, 'again');
        const name = `folder-${(index * 7) % folders}/link-${index}`;
        out.entry({ name, type: 'hard-link', linkName: path });
        expected.set(name, 'again');
      }
    });
    const image = shop.at('image');
    await makeImage(inChunks(tar, 1 << 20), image);
    e2fsck(image);
    const mounted = shop.mount(image);
    const found = run('find', [mounted, '-type', 'f', '-printf', '%P\\n']).toString().trim().split('\n');
    expect(found.sort()).toEqual([...expected.keys()].sort());
    for (const [path, content] of expected) expect(readFileSync(`${mounted}/${path}`, 'utf8')).toBe(content);
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

    // Our own reader finds them by the index, too, not by looking through the directory.
    const disk = openImage(image);
    let reads = 0;
    const counting = {
      path: disk.path,
      size: disk.size,
      readInto: (target: Uint8Array, position: number) => disk.readInto(target, position),
      read: (position: number, length: number) => {
        reads++;
        return disk.read(position, length);
      },
      close: () => disk.close(),
    };
    try {
      const files = new Ext4Reader(counting);
      for (let number = 0; number < count; number += 17)
        expect(files.find(`d/${nameOf(number)}`)?.size).toBe(0);
      expect(files.find('d/missing')).toBeUndefined();
      expect(reads).toBeLessThan(count);
    } finally {
      disk.close();
    }
  });

  it('has directories of more than 65,000 directories', async () => {
    // More than the arguments of a call can be, too.
    const count = 135_000;
    const tar = makeTar((out) => {
      for (let number = 0; number < count; number++)
        out.entry({ name: `d/${number}`, type: 'directory', mode: 0o755 });
    });
    const image = shop.at('image');
    await makeImage(inChunks(tar, 1 << 20), image);
    e2fsck(image);
    expect(statSync(`${shop.mount(image)}/d`).nlink).toBe(1);
    expect(checkDisk(image).faults).toEqual([]);
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
