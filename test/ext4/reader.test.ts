/** The reader on images that mke2fs made, on our own, and on damaged ones. */

import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  copyFileSync,
  createReadStream,
  mkdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { CimletError } from '../../src/errors.ts';
import { checkDisk } from '../../src/ext4/check.ts';
import { Disk } from '../../src/ext4/disk.ts';
import { ModeType } from '../../src/ext4/format.ts';
import { typeOf } from '../../src/ext4/inode.ts';
import { inChunks, run, tarOf } from '../tar/tar-helpers.ts';
import {
  canMount,
  type Described,
  describeTree,
  hasE2fsprogs,
  makeImage,
  makeTree,
  Workshop,
} from './images.ts';

let shop: Workshop;
beforeEach(() => {
  shop = new Workshop();
});
afterEach(() => shop.close());

/** What `describeTree` says of a mount, read by our own reader. */
function describeImage(image: string): Map<string, Described> {
  const disk = new Disk(image);
  try {
    const { files } = disk;
    const result = new Map<string, Described>();
    const names = new Map<number, string[]>();
    const root = { path: '', file: files.inode(2) };
    for (const { path, file } of [root, ...files.walk(root.file)]) {
      if (path === 'lost+found' || path.startsWith('lost+found/')) continue;
      const type = typeOf(file.mode);
      const device = type === ModeType.blockDevice || type === ModeType.characterDevice;
      const { major, minor } = files.device(file);
      const hash = createHash('sha256');
      if (type === ModeType.file) for (const chunk of files.chunks(file)) hash.update(chunk);
      const group = names.get(file.number) ?? [];
      names.set(file.number, group);
      group.push(path);
      result.set(path, {
        mode: file.mode.toString(8),
        owner: `${file.uid}:${file.gid}`,
        size: type === ModeType.file || type === ModeType.symlink ? String(file.size) : '',
        mtime: String(file.mtime),
        device: device ? String((minor & 0xff) + major * 256 + Math.floor(minor / 256) * 2 ** 20) : '0',
        names: group,
        content:
          type === ModeType.file ? hash.digest('hex') : type === ModeType.symlink ? files.target(file) : '',
        xattrs: files
          .xattrs(file)
          .map(({ name, value }) => `${name}=0x${value.toString('hex')}`)
          .sort(),
      });
    }
    return result;
  } finally {
    disk.close();
  }
}

const sorted = (tree: Map<string, Described>) =>
  [...tree]
    .map(([path, each]) => [path, { ...each, names: [...each.names].sort() }] as const)
    .sort(([a], [b]) => (a < b ? -1 : 1));

describe.runIf(hasE2fsprogs && canMount)('reads what a mount shows', () => {
  it.each<[string, string[]]>([
    ['of blocks of 4 KiB', ['-b', '4096']],
    ['of blocks of 1 KiB', ['-b', '1024']],
    ['with inline data', ['-O', 'inline_data']],
    ['without 64-bit block numbers, checksums and journal', ['-O', '^64bit,^metadata_csum,^has_journal']],
    ['with small inodes', ['-I', '128']],
  ])('of an image of mke2fs %s', (_what, options) => {
    const tree = shop.directory();
    makeTree(tree);
    // mke2fs can't copy larger ones.
    run('setfattr', ['-x', 'user.large', `${tree}/size-60`]);
    rmSync(`${tree}/link-long`);
    symlinkSync('y'.repeat(900), `${tree}/link-900`);
    mkdirSync(`${tree}/many`);
    for (let number = 0; number < 600; number++) writeFileSync(`${tree}/many/${number}-of-many-files`, '');
    const image = shop.at('image');
    const made = spawnSync('mke2fs', ['-q', '-t', 'ext4', '-d', tree, ...options, image, '32M'], {
      encoding: 'utf8',
    });
    expect(made.status, made.stderr).toBe(0);
    // An index for the directories.
    spawnSync('e2fsck', ['-fyD', image]);
    expect(sorted(describeImage(image))).toEqual(sorted(describeTree(shop.mount(image))));
    expect(checkDisk(image).faults).toEqual([]);
  });

  it.each([false, true])('of an image of our own, inline data: %s', async (inlineData) => {
    const tree = shop.directory();
    makeTree(tree);
    const tar = shop.at('layer.tar');
    run('tar', ['--format=posix', '--xattrs', '--xattrs-include=*', '-C', tree, '-cf', tar, '.']);
    const image = shop.at('image');
    await makeImage(createReadStream(tar), image, { inlineData });
    expect(sorted(describeImage(image))).toEqual(sorted(describeTree(shop.mount(image))));
    expect(checkDisk(image).faults).toEqual([]);
  });
});

it('an image with any byte damaged is read, or refused with the offset, but nothing else', async () => {
  const tree = shop.directory();
  writeFileSync(`${tree}/a`, 'a'.repeat(70_000));
  mkdirSync(`${tree}/d`);
  for (let number = 0; number < 300; number++)
    writeFileSync(`${tree}/d/${number}-${'x'.repeat(20)}`, `${number}`);
  const image = shop.at('image');
  await makeImage(inChunks(run('tar', ['-C', tree, '-cf', '-', '.'])), image, { inlineData: true });
  const sound = readFileSync(image);
  const damaged = shop.at('damaged');
  const position = fc.integer({ min: 1024, max: sound.length - 1 });
  fc.assert(
    fc.property(
      fc.array(fc.tuple(position, fc.integer({ min: 0, max: 255 })), { minLength: 1, maxLength: 40 }),
      (changes) => {
        const bytes = Buffer.from(sound);
        for (const [at, byte] of changes) bytes[at] = byte;
        writeFileSync(damaged, bytes);
        try {
          for (const { file, offset } of checkDisk(damaged).faults) {
            expect(file).toBe(damaged);
            expect(offset).toBeLessThan(sound.length);
          }
        } catch (error) {
          expect(error).toBeInstanceOf(CimletError);
          expect(error).toMatchObject({ code: 'failed-precondition' });
        }
      },
    ),
    { numRuns: 150 },
  );
});

describe('what would take work or memory without end is refused', () => {
  /** An image whose inode of a path was changed. */
  async function changed(path: string, change: (inode: Buffer) => void): Promise<string> {
    const image = shop.at('image');
    await makeImage(inChunks(tarOf({ name: 'd/f', type: 'file', content: 'x'.repeat(5000) })), image);
    const disk = new Disk(image);
    const { number } = disk.files.find(path)!;
    disk.close();
    const bytes = readFileSync(image);
    const table = bytes.readUInt32LE(4096 + 8) * 4096;
    const at = table + (number - 1) * 256;
    change(bytes.subarray(at, at + 256));
    writeFileSync(image, bytes);
    return image;
  }
  const setSize = (inode: Buffer, size: bigint) => {
    inode.writeUInt32LE(Number(size % 2n ** 32n), 4);
    inode.writeUInt32LE(Number(size / 2n ** 32n), 0x6c);
  };

  it.each(['d', 'd/f'])('a size that nothing can have, of %s', async (path) => {
    const image = await changed(path, (inode) => setSize(inode, 2n ** 62n));
    const messages = checkDisk(image).faults.map(({ message }) => message);
    expect(new Set(messages)).toContain(`inode ${path === 'd' ? 12 : 13}: a file of ${2 ** 62} bytes`);
  });

  it('more blocks than there are', async () => {
    const image = await changed('d/f', (inode) => {
      setSize(inode, 2n ** 40n);
      // Four extents of all blocks of the file system.
      inode.writeUInt16LE(4, 0x28 + 2);
      for (let index = 0; index < 4; index++) {
        const at = 0x28 + 12 + index * 12;
        inode.writeUInt32LE(index * 100, at);
        inode.writeUInt32LE(6, at + 4);
        inode.writeUInt32LE(0, at + 8);
      }
    });
    expect(checkDisk(image).faults).toEqual([
      expect.objectContaining({ message: expect.stringContaining('more blocks than the file system has') }),
    ]);
  });
});

it('what is no image, or one cut off, is refused', async () => {
  const image = shop.at('image');
  await makeImage(inChunks(Buffer.alloc(0)), image);
  for (const length of [0, 100, 1500, 4096, 20_000]) {
    const cut = shop.at('cut');
    copyFileSync(image, cut);
    run('truncate', ['-s', String(length), cut]);
    expect(() => new Disk(cut)).toThrow(CimletError);
  }
  writeFileSync(shop.at('text'), 'no image'.repeat(1000));
  expect(() => new Disk(shop.at('text'))).toThrow(/offset 0x438: there is no ext4 file system/);
});
