/**
 * What hcsshim's own tests of its converter ask of a layer's disk (ext4/tar2ext4 and ext4/internal/compactext4, as of 2026): entries in any
 * order, parents that never come, links to links, what replaces what, limits. Looked at through the kernel.
 */

import { execFileSync } from 'node:child_process';
import { lstatSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { LARGEST_MAX_SIZE } from '../../src/ext4/writer.ts';
import { getXattr } from '../../src/native/linux/xattr.ts';
import type { TarEntry } from '../../src/tar/tar-writer.ts';
import { inChunks, makeTar, tarOf } from '../tar/tar-helpers.ts';
import { canMount, e2fsck, hasE2fsprogs, makeImage, Workshop } from './images.ts';

let shop: Workshop;
beforeEach(() => {
  shop = new Workshop();
});
afterEach(() => shop.close());

type Entry = TarEntry & { content?: string };
const file = (name: string, content = '', more: Partial<Entry> = {}): Entry => ({
  name,
  type: 'file',
  content,
  mode: 0o777,
  ...more,
});
const directory = (name: string, mode = 0o777): Entry => ({ name, type: 'directory', mode });
const link = (name: string, linkName: string): Entry => ({ name, type: 'hard-link', linkName });
const xattr = (name: string, length: number) => ({ [`SCHILY.xattr.${name}`]: 'v'.repeat(length) });

async function mounted(...entries: Entry[]): Promise<(name: string) => string> {
  return mountedTar(tarOf(...entries));
}

async function mountedTar(tar: Buffer): Promise<(name: string) => string> {
  const image = shop.at('image');
  await makeImage(inChunks(tar), image);
  e2fsck(image);
  const root = shop.mount(image);
  return (name) => `${root}/${name}`;
}

const refused = (...entries: Entry[]) =>
  expect(makeImage(inChunks(tarOf(...entries)), shop.at('refused'))).rejects.toMatchObject({
    code: 'corrupt',
  });

describe.runIf(hasE2fsprogs && canMount)("a layer's disk", () => {
  it('takes entries in any order, whiteouts and their directories too', async () => {
    const at = await mounted(
      file('foo/.wh.bar.txt', 'inside bar.txt'),
      directory('data/'),
      file('root.txt', 'inside root.txt'),
      directory('foo/'),
      file('A/.wh..wh..opq'),
      file('A/B/b.txt', 'inside b.txt'),
      file('A/a.txt', 'inside a.txt'),
      directory('A/', 0o750),
      directory('A/B/', 0o700),
    );
    expect(readdirSync(at(''), { recursive: true }).sort()).toEqual(
      ['A', 'A/B', 'A/B/b.txt', 'A/a.txt', 'data', 'foo', 'foo/bar.txt', 'lost+found', 'root.txt'].sort(),
    );
    expect([lstatSync(at('foo/bar.txt')).isCharacterDevice(), lstatSync(at('foo/bar.txt')).rdev]).toEqual([
      true,
      0,
    ]);
    expect(Buffer.from(getXattr(Buffer.from(at('A')), 'trusted.overlay.opaque') ?? []).toString()).toBe('y');
    expect(readFileSync(at('A/B/b.txt'), 'utf8')).toBe('inside b.txt');
    expect(['A', 'A/B', 'foo'].map((name) => statSync(at(name)).mode & 0o777)).toEqual([0o750, 0o700, 0o777]);
  });

  it('gives a symlink a second name by a hard link, not what it leads to', async () => {
    const at = await mounted(
      file('/tmp/zzz.txt', 'inside'),
      { name: '/tmp/xxx.txt', type: 'symlink', linkName: '/tmp/zzz.txt' },
      link('/tmp/yyy.txt', '/tmp/xxx.txt'),
    );
    expect(lstatSync(at('tmp/yyy.txt')).isSymbolicLink()).toBe(true);
    expect(lstatSync(at('tmp/yyy.txt')).ino).toBe(lstatSync(at('tmp/xxx.txt')).ino);
  });

  it('replaces what came before: attributes, contents, links, extended attributes', async () => {
    const at = await mounted(
      directory('lost+found'),
      directory('dir'),
      file('dir/file'),
      directory('dir', 0o700),
      file('file', 'old'),
      file('file', 'new', { mode: 0o600 }),
      file('file2', 'kept by its other name'),
      link('link', 'file2'),
      file('file2', 'new'),
      file('onelink'),
      link('onelink2', 'onelink'),
      link('onelink', 'file'),
      file('smaller', '', { records: { ...xattr('user.small', 8), ...xattr('user.foo', 200) } }),
      file('smaller', '', { records: xattr('user.foo', 4) }),
      file('none', '', { records: xattr('user.foo', 400) }),
      file('none'),
    );
    expect(readdirSync(at('dir'))).toEqual(['file']);
    expect([statSync(at('dir')).mode & 0o777, statSync(at('file')).mode & 0o777]).toEqual([0o700, 0o600]);
    expect(['file', 'file2', 'link'].map((name) => readFileSync(at(name), 'utf8'))).toEqual([
      'new',
      'new',
      'kept by its other name',
    ]);
    expect(statSync(at('onelink')).ino).toBe(statSync(at('file')).ino);
    expect(statSync(at('onelink2')).nlink).toBe(1);
    const values = [
      ['smaller', 'user.foo'],
      ['smaller', 'user.small'],
      ['none', 'user.foo'],
    ] as const;
    expect(values.map(([name, each]) => getXattr(Buffer.from(at(name)), each)?.length)).toEqual([
      4,
      undefined,
      undefined,
    ]);
    await refused(file('lost+found'));
    await refused(file(''));
    await refused(file('file'), link('', 'file'));
  });

  it('has files of 65,000 names, and none of more', async () => {
    const linked = (links: number) =>
      makeTar((out) => {
        out.file({ name: 'file' }, Buffer.alloc(0));
        for (let index = 0; index < links; index++) out.entry(link(`link-${index}`, 'file'));
      });
    const at = await mountedTar(linked(64_999));
    expect(statSync(at('link-64998')).nlink).toBe(65_000);
    const failure = makeImage(inChunks(linked(65_000)), shop.at('refused'));
    await expect(failure).rejects.toThrow('"file" has 65000 names, no more are possible');
  });

  it('has the times at both ends of what ext4 can say, and those beyond are the nearest', async () => {
    const first = BigInt(-(2 ** 31)) * 1_000_000_000n;
    const last = (BigInt(3 * 2 ** 32) + BigInt(2 ** 31)) * 1_000_000_000n - 1n;
    const times = { first, last, before: first - 1n, after: last + 1_000_000_000n };
    const at = await mounted(...Object.entries(times).map(([name, mtime]) => file(name, '', { mtime })));
    const found = (name: string) => statSync(at(name), { bigint: true }).mtimeNs;
    expect([found('first'), found('last')]).toEqual([first, last]);
    expect(found('before')).toBe(first);
    expect(found('after') / 1_000_000_000n).toBe(last / 1_000_000_000n);
  });

  it('may be allowed the largest size there is', async () => {
    const image = shop.at('image');
    await makeImage(inChunks(tarOf(file('file', 'file'))), image, { maxSize: LARGEST_MAX_SIZE });
    e2fsck(image);
    expect(readFileSync(`${shop.mount(image)}/file`, 'utf8')).toBe('file');
    expect(execFileSync('du', ['-k', image], { encoding: 'utf8' })).toMatch(/^\d{1,4}\t/);
  });
});
