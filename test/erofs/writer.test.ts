import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  closeSync,
  existsSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { ErofsInode, ErofsSource } from '../../src/erofs/source.ts';
import { writeErofs } from '../../src/erofs/writer.ts';
import { isRoot, requireOrSkip } from '../support/requirements.ts';
import {
  DEFAULTS,
  directory,
  expectTree,
  type File,
  file,
  type Node,
  sourceOf,
  symlink,
  writeDevices,
} from './model.ts';
import { canMountFiles, fsck, hasErofsTools, Workshop } from './mounts.ts';

const GIB = 1024 ** 3;

/** Bytes that tell where they are, and compress to nothing like each other. */
function pattern(size: number, seed = 1): Buffer {
  const bytes = Buffer.alloc(size);
  for (let at = 0; at < size; at++) bytes[at] = (Math.imul(at + seed, 2654435761) >>> 24) & 0xff;
  return bytes;
}

let shop: Workshop;
beforeEach(() => {
  shop = new Workshop();
});
afterEach(() => shop.close());

describe.runIf(canMountFiles)('an image as the kernel shows it', () => {
  it('holds an empty root', async () => {
    const root = directory();
    await writeErofs(sourceOf(root), shop.at('image'));
    expectTree(await shop.mount(shop.at('image')), root);
  });

  it('keeps files of sizes around a block, in the image, on a device and as holes', async () => {
    const root = directory();
    let offset = 0;
    for (const size of [0, 1, 2047, 3900, 4031, 4032, 4033, 4095, 4096, 4097, 8191, 8192, 8193, 1_000_001]) {
      root.children[`bytes-${size}`] = file(pattern(size, size));
      root.children[`hole-${size}`] = file(Buffer.alloc(size), { at: 'hole' });
      root.children[`device-${size}`] = file(pattern(size, 2 * size), { at: { device: 0, offset } });
      offset += Math.ceil(size / 4096) * 4096;
    }
    const devices = writeDevices(root, [shop.at('region')]);
    const { bytes } = await writeErofs(sourceOf(root, devices), shop.at('image'));
    expect(bytes).toBe(statSync(shop.at('image')).size);
    expectTree(await shop.mount(shop.at('image'), [shop.at('region')]), root);
  });

  it('copies contents that come in pieces of any size', async () => {
    const bytes = pattern(3_000_001);
    const cuts = [0, 1, 4096, 4096, 74_096, 1_122_672, bytes.length];
    const pieces = cuts.slice(1).map((end, index) => bytes.subarray(cuts[index], end));
    const root = directory({ large: file(bytes) });
    const source = sourceOf(root);
    const withPieces: ErofsSource = {
      ...source,
      inode(key) {
        const inode = source.inode(key);
        return inode.type === 'file' ? { ...inode, data: { kind: 'bytes', read: () => pieces } } : inode;
      },
    };
    await writeErofs(withPieces, shop.at('image'));
    expectTree(await shop.mount(shop.at('image')), root);
  });

  it('keeps types, modes, owners, times to the nanosecond and before 1970, links and targets', async () => {
    const shared = file('one inode', { mode: 0o4711, uid: 70_000, gid: 4_000_000_000 });
    const link = symlink('../elsewhere/ü');
    const root = directory({
      a: shared,
      b: directory(
        { c: shared, link, again: link },
        { mode: 0o1777, mtime: { seconds: -11_644_473_600n, nanoseconds: 100 } },
      ),
      old: file('', { mtime: { seconds: -1n, nanoseconds: 999_999_999 } }),
      late: file('', { mtime: { seconds: 253_402_300_799n, nanoseconds: 1 } }),
      long: symlink('x'.repeat(4095)),
      longer: symlink('/'.repeat(3990), { xattrs: [{ name: 'trusted.cim.reparse', value: pattern(300) }] }),
      dangling: symlink('nowhere'),
    });
    await writeErofs(sourceOf(root), shop.at('image'));
    expectTree(await shop.mount(shop.at('image')), root);
  });

  it('keeps names of any bytes and 255 of them, sorted by bytes', async () => {
    const names = [
      '!',
      '#',
      '+',
      ',',
      '-',
      '...',
      '.a',
      'A',
      'a',
      'ä',
      'Ä',
      '日本語',
      '🙂',
      'x'.repeat(255),
      'ü'.repeat(127),
    ];
    const root = directory(Object.fromEntries(names.map((name) => [name, file(name)])));
    await writeErofs(sourceOf(root), shop.at('image'));
    expectTree(await shop.mount(shop.at('image')), root);
  });

  it('finds each of 10,000 entries', async () => {
    const many = directory();
    for (let index = 0; index < 10_000; index++)
      many.children[`entry ${index}`] = file(index % 100 === 0 ? `${index}` : '');
    const root = directory({ many, directories: directory() });
    for (let index = 0; index < 300; index++) root.children[`${index}`] = directory({ inner: directory() });
    await writeErofs(sourceOf(root), shop.at('image'));
    expectTree(await shop.mount(shop.at('image')), root);
  });

  it.each([-1, 0, 1])('fills directory blocks to the last byte, and %i', async (off) => {
    // An entry takes 12 bytes and its name; `.` and `..` take 27.
    const names = Array.from({ length: 15 }, (_, index) => `${index}`.padStart(243, 'a'));
    const root = directory();
    for (const name of [...names, 'b'.repeat(4096 - 27 - 15 * 255 - 12 + off)])
      root.children[name] = file(name);
    for (const more of [[], ['c'], ['d'.repeat(255), 'e'.repeat(255)]]) {
      for (const name of more) root.children[name] = file(name);
      const image = shop.at(`image-${Object.keys(root.children).length}`);
      await writeErofs(sourceOf(root), image);
      expectTree(await shop.mount(image), root);
    }
  });

  it('keeps xattrs: repeated, unique, empty, of 64 KiB, too many to share, on every type', async () => {
    const owner = { name: 'user.cim.sd', value: pattern(180) };
    const numbered = (count: number, bytes: number) =>
      Array.from({ length: count }, (_, index) => ({ name: `user.n${index}`, value: pattern(bytes, index) }));
    const root = directory(
      {
        repeated: file('a', { xattrs: [owner, { name: 'user.cim.own', value: pattern(3) }] }),
        again: file('b', { xattrs: [owner] }),
        empty: file('c', { xattrs: [{ name: 'user.empty', value: Buffer.alloc(0) }] }),
        huge: file('d', { xattrs: [{ name: 'user.huge', value: pattern(65_535) }, owner] }),
        many: file(pattern(3000), { xattrs: numbered(400, 20) }),
        manyToo: file(pattern(3000), { xattrs: numbered(400, 20) }),
        wide: file(pattern(3000), { xattrs: numbered(60, 1000) }),
        link: symlink('a', { xattrs: [{ name: 'trusted.cim.sd', value: owner.value }] }),
        directory: directory({}, { xattrs: [owner, { name: 'security.cimlet', value: pattern(9) }] }),
        named: file('', { xattrs: [{ name: `user.${'n'.repeat(250)}`, value: pattern(5) }] }),
      },
      { xattrs: [owner] },
    );
    await writeErofs(sourceOf(root), shop.at('image'));
    expectTree(await shop.mount(shop.at('image')), root);
  });

  it('shares what repeats: 5,000 equal descriptors take the room of one', async () => {
    const xattrs = [{ name: 'user.cim.sd', value: pattern(900) }];
    const root = directory();
    for (let index = 0; index < 5000; index++) root.children[`${index}`] = file('', { xattrs });
    const { bytes } = await writeErofs(sourceOf(root), shop.at('image'));
    expect(bytes).toBeLessThan(5000 * 200);
  });

  it('shows 400 devices', async () => {
    const root = directory();
    const paths = Array.from({ length: 400 }, (_, index) => shop.at(`region-${index}`));
    paths.forEach((_, device) => {
      root.children[`file-${device}`] = file(pattern(5000, device), {
        at: { device, offset: (device % 3) * 4096 },
      });
    });
    const devices = writeDevices(root, paths);
    await writeErofs(sourceOf(root, devices), shop.at('image'));
    expectTree(await shop.mount(shop.at('image'), paths), root);
  });

  it('shows files of many gigabytes, anywhere on a device', async () => {
    const size = 40 * GIB + 5;
    const source = sourceOf(directory({ large: file('x', { at: { device: 0, offset: 3 * GIB } }) }), [
      { size: 64 * GIB },
    ]);
    const sized = (inode: ErofsInode): ErofsInode => (inode.type === 'file' ? { ...inode, size } : inode);
    await writeErofs({ ...source, inode: (key) => sized(source.inode(key)) }, shop.at('image'));
    const marks: [at: number, text: string][] = [0, 4095, 17 * GIB - 2, 32 * GIB, size - 5].map((at) => [
      at,
      `#${at % 9973}`.slice(0, 5),
    ]);
    const region = openSync(shop.at('region'), 'w');
    ftruncateSync(region, 64 * GIB);
    for (const [at, text] of marks) writeSync(region, text, 3 * GIB + at);
    closeSync(region);
    const large = openSync(`${await shop.mount(shop.at('image'), [shop.at('region')])}/large`, 'r');
    for (const [at, text] of marks) {
      const found = Buffer.alloc(text.length);
      readSync(large, found, 0, found.length, at);
      expect(found.toString()).toBe(text);
    }
    closeSync(large);
    expect(statSync(shop.at('mount-0', 'large')).size).toBe(size);
    if (hasErofsTools) fsck(shop.at('image'), [shop.at('region')]);
  });

  it('equals any tree', { timeout: 120_000 }, async () => {
    await fc.assert(
      fc.asyncProperty(trees(), async (root) => {
        const devices = writeDevices(root, [shop.at('d0'), shop.at('d1')], 64 * 4096);
        const image = shop.at(`image-${readdirSync(shop.path).length}`);
        await writeErofs(sourceOf(root, devices), image);
        if (hasErofsTools) fsck(image, [shop.at('d0'), shop.at('d1')]);
        expectTree(await shop.mount(image, [shop.at('d0'), shop.at('d1')]), root);
      }),
      { numRuns: 40 },
    );
  });
});

describe.runIf(hasErofsTools)('an image as erofs-utils see it', () => {
  it('passes fsck.erofs, describes itself to dump.erofs, and extracts', async () => {
    const root = directory({
      text: file('inline'),
      large: file(pattern(100_000)),
      region: file(pattern(50_000, 7), { at: { device: 1, offset: 8192 } }),
      // No hole: fsck.erofs 1.5 extracts those as empty files.
      sub: directory({ link: symlink('../text') }),
    });
    const paths = [shop.at('one'), shop.at('two')];
    const devices = writeDevices(root, paths);
    await writeErofs(sourceOf(root, devices), shop.at('image'));
    fsck(shop.at('image'), paths, shop.at('extracted'));
    expectTree(shop.at('extracted'), root, 'extracted');
    const description = execFileSync(
      'dump.erofs',
      ['-s', ...paths.map((path) => `--device=${path}`), shop.at('image')],
      { encoding: 'utf8' },
    );
    expect(description).toMatch(/inode count: +6\n/);
    expect(description).toMatch(/features: +sb_csum mtime chunked_file device_table/);
    expect(description).toContain('00112233-4455-6677-8899-aabbccddeeff');
  });

  it('has a checksum that notices a flipped bit', async () => {
    await writeErofs(sourceOf(directory({ a: file('b') })), shop.at('image'));
    const bytes = readFileSync(shop.at('image'));
    bytes[1024 + 64] = bytes[1024 + 64]! ^ 1;
    writeFileSync(shop.at('image'), bytes);
    expect(() => fsck(shop.at('image'))).toThrow(/checksum/);
  });
});

describe('writeErofs', () => {
  const sample = () =>
    directory({
      b: directory({ inner: file('x', { xattrs: [{ name: 'user.a', value: pattern(2000) }] }) }),
      a: file(pattern(9000)),
      c: symlink('a'),
    });

  it('gives the same bytes again, whatever order the source lists its entries in', async () => {
    await writeErofs(sourceOf(sample()), shop.at('one'));
    await writeErofs(sourceOf(sample()), shop.at('two'));
    await writeErofs(sourceOf(sample(), [], { reversed: true }), shop.at('three'));
    const [one, two, three] = ['one', 'two', 'three'].map((name) =>
      createHash('sha256')
        .update(readFileSync(shop.at(name)))
        .digest('hex'),
    );
    expect(two).toBe(one);
    expect(three).toBe(one);
  });

  it('asks for each inode and directory at most twice', async () => {
    const source = sourceOf(sample());
    const asked = new Map<string, number>();
    const count = <T>(what: string, answer: T): T => {
      asked.set(what, (asked.get(what) ?? 0) + 1);
      return answer;
    };
    await writeErofs(
      {
        ...source,
        inode: (key) => count(`inode ${key}`, source.inode(key)),
        entries: (key) => count(`entries ${key}`, source.entries(key)),
      },
      shop.at('image'),
    );
    expect(Math.max(...asked.values())).toBe(2);
  });

  it('reports its progress', async () => {
    const steps: [number, number][] = [];
    await writeErofs(sourceOf(sample()), shop.at('image'), { onInode: (...step) => steps.push(step) });
    expect(steps).toEqual([1, 2, 3, 4, 5].map((done) => [done, 5]));
  });

  it('never overwrites a file', async () => {
    writeFileSync(shop.at('image'), 'precious');
    await expect(writeErofs(sourceOf(sample()), shop.at('image'))).rejects.toMatchObject({
      code: 'already-exists',
    });
    expect(readFileSync(shop.at('image'), 'utf8')).toBe('precious');
  });

  it('obeys its signal and leaves nothing', async () => {
    const signal = AbortSignal.abort();
    await expect(writeErofs(sourceOf(sample()), shop.at('image'), { signal })).rejects.toMatchObject({
      code: 'cancelled',
    });
    expect(existsSync(shop.at('image'))).toBe(false);
  });

  it.runIf(requireOrSkip('root', isRoot))('says that the disk is full and leaves nothing', async () => {
    mkdirSync(shop.at('small'));
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', shop.at('small')]);
    try {
      const root = directory({ large: file(pattern(500_000)) });
      await expect(writeErofs(sourceOf(root), shop.at('small', 'image'))).rejects.toMatchObject({
        code: 'no-space',
        message: expect.stringContaining(shop.at('small', 'image')) as unknown,
      });
      expect(readdirSync(shop.at('small'))).toEqual([]);
    } finally {
      execFileSync('umount', [shop.at('small')]);
    }
  });

  it('leaves nothing when the source fails halfway, and passes its error on', async () => {
    const source = sourceOf(sample());
    const failure = new Error('region file vanished');
    const failing = (inode: ErofsInode): ErofsInode =>
      inode.type === 'file'
        ? {
            ...inode,
            data: {
              kind: 'bytes',
              read: () => {
                throw failure;
              },
            },
          }
        : inode;
    await expect(
      writeErofs({ ...source, inode: (key) => failing(source.inode(key)) }, shop.at('image')),
    ).rejects.toBe(failure);
    expect(existsSync(shop.at('image'))).toBe(false);
  });

  const loop = directory();
  loop.children.self = loop;
  const twice = directory();
  const named = (name: string) => directory({ [name]: file() });
  const attributed = (name: string, bytes = 1) =>
    directory({ a: file('', { xattrs: [{ name, value: pattern(bytes) }] }) });
  it.each<[string, ReturnType<typeof directory>, RegExp]>([
    ['a directory in itself', loop, /directory \d+ is in the tree twice/],
    ['a directory with two names', directory({ a: twice, b: twice }), /directory \d+ is in the tree twice/],
    ['an empty name', named(''), /"".*0 bytes/],
    ['a name of 256 bytes', named('x'.repeat(256)), /256 bytes, not 1 to 255/],
    ['a name of 256 bytes in UTF-8', named('ü'.repeat(128)), /256 bytes/],
    ['a reserved name', named('..'), /"\.\.".*reserved/],
    ['a slash in a name', named('a/b'), /"a\/b".*contains \//],
    ['a NUL in a name', named('a\0b'), /NUL/],
    ['an xattr outside the namespaces', attributed('system.acl'), /"system.acl".*begins with none/],
    ['an xattr without a name', attributed('user.'), /"user\.".*empty/],
    ['an xattr name of 256 bytes', attributed(`user.${'n'.repeat(251)}`), /over 255 bytes/],
    ['an xattr value over 64 KiB', attributed('user.a', 65_536), /65536 bytes, over 65535/],
    ['an empty symlink', directory({ a: symlink('') }), /0 bytes, not 1 to 4095/],
    ['a symlink target over a page', directory({ a: symlink('x'.repeat(4096)) }), /4096 bytes/],
    ['data on no device', directory({ a: file('x', { at: { device: 2, offset: 0 } }) }), /no device 2/],
    [
      'data off a block boundary',
      directory({ a: file('x', { at: { device: 0, offset: 8 } }) }),
      /offset 8 on device 0/,
    ],
    [
      'data past the device',
      directory({ a: file(pattern(4097), { at: { device: 0, offset: 4096 } }) }),
      /4097 bytes at 4096/,
    ],
  ])('refuses %s', async (_, root, message) => {
    const error: unknown = await writeErofs(sourceOf(root, [{ size: 8192 }]), shop.at('image')).catch(
      (e: unknown) => e,
    );
    expect(error).toMatchObject({ code: 'corrupt' });
    expect((error as Error).message).toMatch(message);
    expect(existsSync(shop.at('image'))).toBe(false);
  });

  it.each([-1, 1])('refuses contents %i byte off the declared size', async (off) => {
    const source = sourceOf(directory({ a: file(pattern(5000)) }));
    const lying = (inode: ErofsInode): ErofsInode =>
      inode.type === 'file' ? { ...inode, size: 5000 - off } : inode;
    await expect(
      writeErofs({ ...source, inode: (key) => lying(source.inode(key)) }, shop.at('image')),
    ).rejects.toMatchObject({ code: 'corrupt', message: expect.stringContaining('contents') as unknown });
  });

  it('refuses the same name twice and a root that is no directory', async () => {
    const source = sourceOf(directory({ a: file() }));
    const doubled = { ...source, entries: (key: number) => [...source.entries(key), ...source.entries(key)] };
    await expect(writeErofs(doubled, shop.at('image'))).rejects.toThrow(/"a": it is there twice/);
    const flat = {
      ...source,
      inode: () => ({ ...DEFAULTS, type: 'file', size: 0, data: { kind: 'hole' } }) as const,
    };
    await expect(writeErofs(flat, shop.at('image'))).rejects.toThrow(/root is not a directory/);
  });
});

/** Trees of every kind of node, with hard links and repeated xattrs. */
function trees(): fc.Arbitrary<ReturnType<typeof directory>> {
  const name = fc
    .oneof(
      fc.string({ minLength: 1, maxLength: 12, unit: 'grapheme' }),
      fc.stringMatching(/^[!-.0-9A-z]{1,60}$/),
    )
    .filter((text) => !/^\.{1,2}$|[/\0]/.test(text) && Buffer.byteLength(text) <= 255 && text.isWellFormed());
  const xattrs = (namespace: string) =>
    fc
      .uniqueArray(fc.tuple(fc.constantFrom('a', 'b.c', 'long'.repeat(9)), fc.nat(3000)), {
        maxLength: 3,
        selector: ([suffix]) => suffix,
      })
      .map((pairs) =>
        pairs.map(([suffix, size]) => ({
          name: `${namespace}.${suffix}`,
          value: pattern(size % 7 === 0 ? 150 : size),
        })),
      );
  const mtime = fc.record({
    seconds: fc.bigInt({ min: -11_644_473_600n, max: 4_000_000_000n }),
    nanoseconds: fc.nat(999_999_999),
  });
  const common = (namespace: string) =>
    fc.record({
      mode: fc.nat(0o7777),
      uid: fc.nat(100_000),
      gid: fc.nat(100_000),
      mtime,
      xattrs: xattrs(namespace),
    });
  const place = fc.oneof(
    fc.constant(undefined),
    fc.constant('hole' as const),
    fc.record({ device: fc.nat(1), block: fc.nat(40) }),
  );
  const files = fc
    .tuple(fc.nat(20_000), fc.nat(1000), place, common('user'))
    .map(([size, seed, at, rest]): File => {
      if (at === undefined) return file(pattern(size, seed), rest);
      if (at === 'hole') return file(Buffer.alloc(size), { ...rest, at });
      // Equal contents for all: extents may overlap.
      return file(Buffer.alloc(size, 0x61 + at.device), {
        ...rest,
        at: { device: at.device, offset: at.block * 4096 },
      });
    });
  const symlinks = fc
    .tuple(
      fc.string({ minLength: 1, maxLength: 300 }).filter((text) => !text.includes('\0')),
      common('trusted'),
    )
    .map(([target, rest]) => symlink(target, rest));
  const pool = fc.array(fc.oneof(files, symlinks), { minLength: 1, maxLength: 12 });
  return pool.chain((nodes) => {
    const { directories } = fc.letrec<{ node: Node; directories: ReturnType<typeof directory> }>((tie) => ({
      node: fc.oneof({ depthSize: 'small' }, fc.constantFrom<Node>(...nodes), tie('directories')),
      directories: fc
        .tuple(
          fc.uniqueArray(fc.tuple(name, tie('node')), { maxLength: 12, selector: ([text]) => text }),
          common('user'),
        )
        .map(([entries, rest]) => directory(Object.fromEntries(entries), rest)),
    }));
    return directories;
  });
}
