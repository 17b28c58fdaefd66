/** What becomes of layers whose entries contradict one another, hide things, or can't be held. */

import { readdirSync, statSync } from 'node:fs';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { CimletError } from '../../src/errors.ts';
import { checkDisk } from '../../src/ext4/check.ts';
import { Disk } from '../../src/ext4/disk.ts';
import { ModeType } from '../../src/ext4/format.ts';
import { typeOf } from '../../src/ext4/inode.ts';
import type { Ext4Options } from '../../src/ext4/writer.ts';
import type { TarEntry } from '../../src/tar/tar-writer.ts';
import { inChunks, makeTar, run, tarOf } from '../tar/tar-helpers.ts';
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
  mode: 0o644,
  ...more,
});
const directory = (name: string, mode = 0o755): Entry => ({ name, type: 'directory', mode });
const symlink = (name: string, linkName: string): Entry => ({ name, type: 'symlink', linkName });
const hardLink = (name: string, linkName: string): Entry => ({ name, type: 'hard-link', linkName });

/** Each path of an image with what it is, in short; names of one file share a number. */
function show(image: string): Record<string, string> {
  const disk = new Disk(image);
  try {
    const { files } = disk;
    const found: Record<string, string> = {};
    const names = new Map<number, string[]>();
    for (const { path, file: each } of files.walk(files.inode(2))) {
      if (path === 'lost+found') continue;
      names.set(each.number, [...(names.get(each.number) ?? []), path]);
      const opaque = files
        .xattrs(each)
        .some(({ name, value }) => name.endsWith('opaque') && value.equals(Buffer.from('y')));
      const type = typeOf(each.mode);
      const mode = (each.mode & 0o7777).toString(8);
      if (type === ModeType.directory) found[path] = `directory ${mode}${opaque ? ' opaque' : ''}`;
      else if (type === ModeType.symlink) found[path] = `-> ${files.target(each)}`;
      else if (type === ModeType.characterDevice) found[path] = `device ${files.device(each).major}`;
      else found[path] = `file ${mode} ${Buffer.concat([...files.chunks(each)])}`;
    }
    for (const group of names.values())
      if (group.length > 1) for (const name of group) found[name] += ` = ${group.join(' = ')}`;
    return found;
  } finally {
    disk.close();
  }
}

async function imageOf(entries: readonly Entry[], options: Ext4Options = {}): Promise<string> {
  const image = shop.at('image');
  await makeImage(inChunks(tarOf(...entries), 700), image, options);
  if (hasE2fsprogs) e2fsck(image);
  return image;
}

const imported = async (...entries: Entry[]) => show(await imageOf(entries));

describe('of entries for one path, the last wins', () => {
  it('a file of another size, whose blocks become free', async () => {
    expect(await imported(file('a', 'x'.repeat(100_000)), file('a', 'y', { mode: 0o600 }))).toEqual({
      a: 'file 600 y',
    });
  });

  it('a directory keeps what is in it, and gets the attributes', async () => {
    expect(await imported(directory('d'), file('d/f', 'f'), directory('d', 0o700))).toEqual({
      d: 'directory 700',
      'd/f': 'file 644 f',
    });
  });

  it('a file in place of a directory, and a directory in place of a file', async () => {
    const entries = [
      directory('d/e/f'),
      file('d/e/g', 'g'),
      hardLink('kept', 'd/e/g'),
      file('d', 'd'),
      file('x', 'x'),
      file('x/y', 'y'),
    ];
    await expect(imported(...entries)).rejects.toMatchObject({
      message: expect.stringContaining('"x" on its path'),
    });
    expect(await imported(...entries.slice(0, 5), directory('x'), file('x/y', 'y'))).toEqual({
      d: 'file 644 d',
      kept: 'file 644 g',
      x: 'directory 755',
      'x/y': 'file 644 y',
    });
  });

  it('other names of a file that is replaced keep it', async () => {
    expect(await imported(file('a', 'old'), hardLink('b', 'a'), file('a', 'new'))).toEqual({
      a: 'file 644 new',
      b: 'file 644 old',
    });
  });

  it('a link to itself changes nothing', async () => {
    expect(await imported(file('a', 'a'), hardLink('a', './a'))).toEqual({ a: 'file 644 a' });
  });
});

describe('paths', () => {
  it('go through symlinks, inside the image', async () => {
    const entries = [
      directory('usr/lib'),
      symlink('lib', '/usr/../../usr/lib'),
      symlink('l', './lib/.'),
      file('lib/a', 'a'),
      file('l/b', 'b'),
      hardLink('c', 'l/a'),
    ];
    expect(await imported(...entries)).toMatchObject({
      'usr/lib/a': 'file 644 a = c = usr/lib/a',
      'usr/lib/b': 'file 644 b',
    });
  });

  it('imply directories with the attributes of the one above', async () => {
    expect(await imported(directory('a', 0o750), file('/a/b/c/d', 'd'))).toEqual({
      a: 'directory 750',
      'a/b': 'directory 750',
      'a/b/c': 'directory 750',
      'a/b/c/d': 'file 644 d',
    });
  });

  it('below lost+found are like others', async () => {
    const image = await imageOf([directory('lost+found', 0o755), file('lost+found/f', 'f')]);
    const disk = new Disk(image);
    expect(disk.files.find('lost+found/f')?.size).toBe(1);
    disk.close();
    await expect(imported(file('lost+found', 'f'))).rejects.toMatchObject({ code: 'corrupt' });
  });
});

describe('whiteouts', () => {
  it('are devices 0:0, and opaque directories have an attribute', async () => {
    const entries = [
      file('.wh.a'),
      file('d/.wh..wh..opq'),
      file('.wh..wh.plnk', 'aufs'),
      directory('d', 0o711),
      file('d/.wh.b'),
    ];
    expect(await imported(...entries)).toEqual({
      a: 'device 0',
      d: 'directory 711 opaque',
      'd/b': 'device 0',
    });
  });

  it('hide what is below, never what is in the layer itself', async () => {
    const expected = { d: 'directory 755 opaque', 'd/f': 'file 644 f', f: 'file 644 f' };
    const kept = [directory('d'), file('d/f', 'f'), file('f', 'f')];
    const hidden = [file('.wh.d'), file('.wh.f')];
    expect(await imported(...kept, ...hidden)).toEqual(expected);
    expect(await imported(...hidden, ...kept)).toEqual(expected);
    expect(await imported(...hidden, ...kept.slice(1))).toEqual(expected);
  });
});

describe('what ext4 cannot hold is refused, naming the entry', () => {
  const deviceTar = (major: string) => {
    const tar = tarOf({ name: 'dev', type: 'character-device', mode: 0o600 });
    tar.write(major.padStart(7, '0'), 329, 'latin1');
    correctChecksum(tar.subarray(0, 512));
    return tar;
  };
  const xattrs = (...sizes: number[]): Partial<Entry> => ({
    records: Object.fromEntries(sizes.map((size, index) => [`SCHILY.xattr.user.${index}`, 'v'.repeat(size)])),
  });
  const huge = { records: { 'GNU.sparse.size': String(2 ** 37 + 1), 'GNU.sparse.map': '0,1' } };
  const acl = { records: { 'SCHILY.xattr.system.posix_acl_access': 'no ACL' } };
  it.each<[string, Buffer, RegExp]>([
    ['a name of 256 bytes', tarOf(file('ü'.repeat(128))), /a name of 256 bytes; at most 255/],
    ['one on the way', tarOf(file(`${'x'.repeat(256)}/a`)), /a name of 256 bytes/],
    ['a path of 4,096 bytes', tarOf(file(`${'a/'.repeat(2047)}bb`)), /a path of 4096 bytes; at most 4095/],
    ['a path without end', tarOf(file(`${'a/'.repeat(12_000)}b`)), /a path of 24001 bytes/],
    [
      'a path that symlinks make as long',
      tarOf(
        symlink('up', 'a/'.repeat(1500)),
        symlink(`${'a/'.repeat(1500)}up`, 'b/'.repeat(1500)),
        file('up/up/c'),
      ),
      /a path of 4097 bytes/,
    ],
    [
      'a link target that is a path of 4,096 bytes',
      tarOf(file('a/f'), hardLink('b', `a${'/a'.repeat(2046)}/bb`)),
      /a path of 4096 bytes/,
    ],
    ["a '..' component", tarOf(file('a/../b')), /'\.\.' component/],
    [
      'symlinks in a circle',
      tarOf(symlink('a', 'b'), symlink('b', 'a'), file('a/c')),
      /more than 40 symlinks/,
    ],
    ['a link to itself', tarOf(hardLink('a', 'a')), /link target "a" isn't there/],
    ['a link to a directory', tarOf(directory('d'), hardLink('a', 'd')), /link target "d" is a directory/],
    [
      'a link to a whiteout that it replaces',
      tarOf(file('.wh.a'), hardLink('a/b', 'a')),
      /"a" is a directory/,
    ],
    [
      'a link into what it replaces',
      tarOf(file('d/f'), hardLink('d', 'd/f')),
      /in the directory that it replaces/,
    ],
    ['a link to what follows', tarOf(hardLink('a', 'b'), file('b')), /"b" isn't there/],
    ['a link target of 4,096 bytes', tarOf(symlink('a', 'x'.repeat(4096))), /link target of 4096 bytes/],
    ['an empty link target', tarOf(symlink('a', '')), /link target of 0 bytes/],
    ['a device out of range', deviceTar('10000'), /device 4096:0/],
    [
      'an extended attribute too large',
      tarOf(file('a', '', xattrs(4049))),
      /user\.0" of 4049 bytes is too large/,
    ],
    ['too many of them', tarOf(file('a', '', xattrs(3000, 3000))), /together are too large/],
    ['what is no ACL', tarOf(file('a', '', acl)), /is not an ACL/],
    ['an owner out of range', tarOf(file('a', '', { uid: 2 ** 32 - 1 })), /owner 4294967295/],
    ['a root that is a file', tarOf(file('./')), /the root is a directory/],
    ['a whiteout without a name', tarOf(file('.wh.')), /a whiteout of nothing/],
    ['a file beyond 128 GiB', tarOf(file('a', 'x', huge)), /a file of 137438953473 bytes/],
  ])('%s', async (_what, tar, message) => {
    const failure = makeImage(inChunks(tar), shop.at('image'));
    await expect(failure).rejects.toMatchObject({
      code: 'corrupt',
      message: expect.stringMatching(/^tar entry "/),
    });
    await expect(failure).rejects.toThrow(message);
  });

  it('a path of 4,095 bytes is not', async () => {
    const path = `${'a/'.repeat(2047)}b`;
    await makeImage(inChunks(tarOf(file(path), hardLink('c', path))), shop.at('image'));
    expect(show(shop.at('image'))[path]).toContain('file 644');
  });

  it.each<[string, string, string, RegExp]>([
    ['more data than its map', '0,1', 'xx', /more data than its map/],
    ['less data than its map', '0,3', 'xx', /less data than its map/],
    ['a map beyond its end', '9999,2', 'xx', /out of order or beyond its end/],
    ['a map out of order', '5,1,3,1', 'xx', /out of order or beyond its end/],
    ['a map that is none', '5,x', 'xx', /map is malformed/],
  ])('a sparse file with %s', async (_what, map, content, message) => {
    const records = { 'GNU.sparse.size': '10000', 'GNU.sparse.map': map };
    const failure = makeImage(inChunks(tarOf(file('a', content, { records }))), shop.at('image'));
    await expect(failure).rejects.toThrow(message);
  });

  it('an image beyond its limit', async () => {
    const tar = makeTar((out) => {
      for (let number = 0; number < 40; number++) out.file({ name: `${number}` }, Buffer.alloc(100_000, 1));
    });
    const failure = makeImage(inChunks(tar), shop.at('image'), { maxSize: 2 ** 20 });
    await expect(failure).rejects.toMatchObject({
      code: 'no-space',
      hint: expect.stringContaining('--max-size'),
    });
    await makeImage(inChunks(tar), shop.at('image'), { maxSize: 5 * 2 ** 20 });
    expect(statSync(shop.at('image')).size).toBeLessThan(5 * 2 ** 20);
    await expect(makeImage(inChunks(tar), shop.at('image'), { maxSize: 0 })).rejects.toMatchObject({
      code: 'failed-precondition',
    });
  });
});

it('attributes that Linux has no namespace for are left out, with a warning', async () => {
  const tar = tarOf(file('a', '', { records: { 'SCHILY.xattr.com.apple.provenance': 'x' } }));
  const { warnings } = await makeImage(inChunks(tar), shop.at('image'));
  expect(warnings).toEqual([expect.stringContaining('1 extended attribute')]);
});

describe.runIf(hasE2fsprogs && canMount)('layers stacked by overlayfs', () => {
  it('show what each adds, and hide what it hides', async () => {
    const layers = [
      [
        file('kept', 'kept'),
        file('gone'),
        file('emptied/a'),
        directory('d/gone'),
        file('d/b', 'b'),
        file('replaced'),
      ],
      [
        file('.wh.gone'),
        file('emptied/.wh..wh..opq'),
        file('emptied/c', 'c'),
        file('d/.wh.gone'),
        file('.wh.replaced'),
        file('replaced/new', 'new'),
      ],
    ];
    const mounts: string[] = [];
    for (const [index, entries] of layers.entries()) {
      const image = shop.at(`layer-${index}`);
      await makeImage(inChunks(tarOf(...entries)), image);
      mounts.unshift(shop.mount(image));
    }
    const target = shop.directory();
    run('mount', ['-t', 'overlay', 'overlay', '-o', `ro,lowerdir=${mounts.join(':')}`, target]);
    const paths = readdirSync(target, { recursive: true, encoding: 'utf8' }).sort();
    expect(paths).toEqual([
      'd',
      'd/b',
      'emptied',
      'emptied/c',
      'kept',
      'lost+found',
      'replaced',
      'replaced/new',
    ]);
  });
});

/** What a layer means, as simply as it can be said. */
type Node =
  | { kind: 'file'; text: string }
  | { kind: 'whiteout' }
  | { kind: 'directory'; mode: number; opaque: boolean; children: Map<string, Node> };
type Folder = Extract<Node, { kind: 'directory' }>;
const folder = (mode: number): Folder => ({ kind: 'directory', mode, opaque: false, children: new Map() });

interface Step {
  do: 'file' | 'directory' | 'link' | 'whiteout' | 'opaque';
  path: string[];
  other: string[];
  number: number;
}

/** The directory that a path's last name is in; undefined when a file is in the way. */
function parentIn(root: Folder, path: readonly string[]): Folder | undefined {
  let here = root;
  for (const name of path.slice(0, -1)) {
    const next = here.children.get(name);
    if (next?.kind === 'file') return undefined;
    if (next?.kind === 'directory') {
      here = next;
      continue;
    }
    const made = { ...folder(here.mode), opaque: next !== undefined };
    here.children.set(name, made);
    here = made;
  }
  return here;
}

/** Takes the step in the model; returns the tar's entry, undefined when the step is impossible. */
function take(root: Folder, { do: what, path, other, number }: Step): Entry | undefined {
  const name = path.at(-1)!;
  const full = path.join('/');
  if (what === 'link') {
    const target = other.reduce<Node | undefined>(
      (node, each) => (node?.kind === 'directory' ? node.children.get(each) : undefined),
      root,
    );
    if (target === undefined || target.kind === 'directory') return undefined;
    // Where a directory on its path would take the place of its target, or it that of what its target is in.
    if (other.every((each, index) => each === path[index]) && other.length < path.length) return undefined;
    if (path.every((each, index) => each === other[index]) && path.length < other.length) return undefined;
    const parent = parentIn(root, path);
    parent?.children.set(name, target);
    return parent && hardLink(full, other.join('/'));
  }
  if (what === 'opaque') {
    const target = parentIn(root, [...path, '.']);
    if (target !== undefined) target.opaque = true;
    return target && file(`${full}/.wh..wh..opq`);
  }
  const parent = parentIn(root, path);
  const existing = parent?.children.get(name);
  if (parent === undefined) return undefined;
  if (what === 'whiteout') {
    if (existing === undefined) parent.children.set(name, { kind: 'whiteout' });
    else if (existing.kind === 'directory') existing.opaque = true;
    return file([...path.slice(0, -1), `.wh.${name}`].join('/'));
  }
  if (what === 'directory') {
    if (existing?.kind === 'directory') existing.mode = number;
    else parent.children.set(name, { ...folder(number), opaque: existing?.kind === 'whiteout' });
    return directory(full, number);
  }
  const text = `${number}`.repeat(number % 2 === 0 ? 3000 : 1);
  parent.children.set(name, { kind: 'file', text });
  return file(full, text);
}

function showModel(root: Folder): Record<string, string> {
  const found: Record<string, string> = {};
  const names = new Map<Node, string[]>();
  const visit = (here: Folder, prefix: string): void => {
    for (const [name, node] of here.children) {
      const path = prefix + name;
      names.set(node, [...(names.get(node) ?? []), path].sort());
      if (node.kind === 'directory')
        found[path] = `directory ${node.mode.toString(8)}${node.opaque ? ' opaque' : ''}`;
      else found[path] = node.kind === 'file' ? `file 644 ${node.text}` : 'device 0';
      if (node.kind === 'directory') visit(node, `${path}/`);
    }
  };
  visit(root, '');
  for (const group of names.values())
    if (group.length > 1) for (const name of group) found[name] += ` = ${group.join(' = ')}`;
  return found;
}

describe('any sequence of entries', () => {
  const path = fc.array(fc.constantFrom('a', 'b', 'c'), { minLength: 1, maxLength: 3 });
  const step: fc.Arbitrary<Step> = fc.record({
    do: fc.constantFrom('file', 'file', 'directory', 'directory', 'link', 'whiteout', 'opaque'),
    path,
    other: path,
    number: fc.integer({ min: 0o100, max: 0o777 }),
  });

  it('gives the tree that a simple model says', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 25 }), fc.boolean(), async (steps, inlineData) => {
        const root = folder(0o755);
        const entries = steps.flatMap((each) => take(root, each) ?? []);
        const sorted = (tree: Record<string, string>) =>
          Object.entries(tree)
            .map(([name, text]) => [name, text.split(' = ')[0], ...text.split(' = ').slice(1).sort()])
            .sort();
        expect(sorted(show(await imageOf(entries, { inlineData })))).toEqual(sorted(showModel(root)));
      }),
      { numRuns: 60 },
    );
  });

  it('and any damage to the tar, ends in an error or a sound image', async () => {
    const sparse = { 'GNU.sparse.size': '100000', 'GNU.sparse.map': '0,100,70000,5,100000,0' };
    const tar = tarOf(
      directory('d'),
      file('d/f', 'f'.repeat(600)),
      file('sparse', 's'.repeat(105), { records: sparse }),
      file('x', 'x', { records: { 'SCHILY.xattr.user.x': 'y'.repeat(300) } }),
      hardLink('h', 'd/f'),
      symlink('s', 'd'),
      file('s/.wh.g'),
      { name: 'dev', type: 'block-device' },
    );
    const blocks = tar.length / 512;
    const change = fc.tuple(fc.nat(blocks - 1), fc.nat(511), fc.nat(255));
    await fc.assert(
      fc.asyncProperty(fc.array(change, { minLength: 1, maxLength: 4 }), async (changes) => {
        const bytes = Buffer.from(tar);
        for (const [block, at, byte] of changes) bytes[block * 512 + at] = byte;
        for (let base = 0; base < bytes.length; base += 512)
          if (/^\d{7}\0/.test(bytes.toString('latin1', base + 100, base + 108)))
            correctChecksum(bytes.subarray(base, base + 512));
        const image = shop.at('image');
        try {
          await makeImage(inChunks(bytes), image, { maxSize: 2 ** 40 });
        } catch (error) {
          expect(error).toBeInstanceOf(CimletError);
          return;
        }
        if (hasE2fsprogs) e2fsck(image);
        expect(checkDisk(image).faults).toEqual([]);
      }),
      { numRuns: 150 },
    );
  });
});

function correctChecksum(header: Buffer): void {
  header.fill(0x20, 148, 156);
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
}
