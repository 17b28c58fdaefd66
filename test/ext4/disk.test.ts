/** Whole disks: dm-verity as cryptsetup verifies it, the footer as qemu reads it, and damage to either. */

import { spawnSync } from 'node:child_process';
import {
  copyFileSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { checkDisk } from '../../src/ext4/check.ts';
import { Disk } from '../../src/ext4/disk.ts';
import { createLayerDisk, type LayerDisk, writeLayerDisk } from '../../src/hosts/layer-disk.ts';
import { hasTool, requireOrSkip } from '../support/requirements.ts';
import { makeTar, run } from '../tar/tar-helpers.ts';
import { canMount, e2fsck, hasE2fsprogs, pattern, Workshop } from './images.ts';

const hasVeritysetup = requireOrSkip('cryptsetup-bin', hasTool('veritysetup'));
const hasQemu = requireOrSkip('qemu-utils', hasTool('qemu-img'));

const shop = new Workshop();
let made: LayerDisk;
const vhd = shop.at('layer.vhd');

const make = (tar: string, file: string, more: Partial<Parameters<typeof createLayerDisk>[0]> = {}) =>
  createLayerDisk({
    tar,
    file,
    verity: true,
    inlineData: false,
    signal: new AbortController().signal,
    ...more,
  });

beforeAll(async () => {
  const tar = makeTar((out) => {
    for (let number = 0; number < 200; number++)
      out.file({ name: `d/${number}`, mode: 0o644 }, pattern(number * 97, number));
    out.file({ name: 'large' }, pattern(3_000_000));
  });
  writeFileSync(shop.at('layer.tar'), tar);
  writeFileSync(shop.at('layer.tar.gz'), gzipSync(tar));
  writeFileSync(shop.at('layer.tar.zst'), zstdCompressSync(tar));
  made = await make(shop.at('layer.tar'), vhd);
});
afterAll(() => shop.close());

/** A copy with one byte changed. */
function damaged(at: number): string {
  const copy = shop.at('damaged.vhd');
  const bytes = readFileSync(vhd);
  bytes[at]! ^= 0x10;
  writeFileSync(copy, bytes);
  return copy;
}

function fileSystemSize(): number {
  const disk = new Disk(vhd);
  disk.close();
  return disk.files.size;
}

function veritysetup(file: string, rootHash: string): number | null {
  return spawnSync('veritysetup', ['verify', `--hash-offset=${fileSystemSize()}`, file, file, rootHash])
    .status;
}

it('is the same from a tar, a gzip and a zstd, and of the same options', async () => {
  for (const name of ['layer.tar', 'layer.tar.gz', 'layer.tar.zst']) {
    const again = shop.at('again.vhd');
    expect(await make(shop.at(name), again)).toEqual(made);
    expect(readFileSync(again).equals(readFileSync(vhd))).toBe(true);
  }
});

describe.runIf(hasVeritysetup)('dm-verity', () => {
  it('is what cryptsetup verifies with the root hash', () => {
    expect(veritysetup(vhd, made.rootHash!)).toBe(0);
    expect(veritysetup(vhd, made.rootHash!.replace(/^../, 'ff'))).not.toBe(0);
    expect(run('veritysetup', ['dump', `--hash-offset=${fileSystemSize()}`, vhd]).toString()).toMatch(
      /Hash algorithm:\s+sha256\s+Salt:\s+0{64}\n/,
    );
  });

  it('finds damage where cryptsetup finds it', () => {
    const size = fileSystemSize();
    for (const at of [1024, 5000, size / 2, size - 1, size + 4096, size + 3 * 4096]) {
      const copy = damaged(at);
      expect(veritysetup(copy, made.rootHash!)).not.toBe(0);
      const { faults } = checkDisk(copy, { rootHash: made.rootHash });
      expect(faults.map(({ offset }) => Math.floor(offset / 4096))).toContain(
        at === size + 4096 ? size / 4096 : Math.floor(at / 4096),
      );
    }
  });
});

it.runIf(hasE2fsprogs && canMount)('is still a file system that e2fsck and the kernel accept', () => {
  e2fsck(vhd);
  expect(readFileSync(`${shop.mount(vhd)}/large`).equals(pattern(3_000_000))).toBe(true);
});

describe('a disk so large that another thread hashes it meanwhile', () => {
  const tar = shop.at('large.tar');
  const size = 50_000_000;
  let folder: string;
  beforeAll(() => {
    writeFileSync(
      tar,
      makeTar((out) => out.file({ name: 'large' }, Buffer.alloc(size, pattern(4093)))),
    );
  });
  beforeEach(() => {
    folder = shop.directory();
  });

  it.runIf(hasVeritysetup)('has the tree that cryptsetup makes of it', async () => {
    const file = `${folder}/layer.vhd`;
    const { rootHash } = await make(tar, file);
    const disk = new Disk(file);
    disk.close();
    const [image, tree] = [`${folder}/image`, `${folder}/tree`];
    copyFileSync(file, image);
    truncateSync(image, disk.files.size);
    const salt = '0'.repeat(64);
    const made = run('veritysetup', ['format', `--salt=${salt}`, image, tree]).toString();
    expect(/Root hash:\s+(\S+)/.exec(made)?.[1]).toBe(rootHash);
    const own = readFileSync(file).subarray(disk.files.size + 4096, disk.verity?.end);
    expect(own.equals(readFileSync(tree).subarray(4096))).toBe(true);
    expect(readdirSync(folder).sort()).toEqual(['image', 'layer.vhd', 'tree']);
  });

  it('is given up with it, whatever ends it', async () => {
    const bytes = readFileSync(tar);
    const controller = new AbortController();
    async function* pieces(end: number, atEnd: () => void) {
      for (let at = 0; at < end; at += 1_000_000) yield bytes.subarray(at, Math.min(end, at + 1_000_000));
      atEnd();
    }
    const write = (chunks: AsyncIterable<Uint8Array>) =>
      writeLayerDisk(chunks, `${folder}/layer.vhd`, {
        verity: true,
        inlineData: false,
        signal: controller.signal,
      });
    await expect(write(pieces(size - 1, () => undefined))).rejects.toMatchObject({ code: 'corrupt' });
    await expect(write(pieces(bytes.length, () => controller.abort()))).rejects.toMatchObject({
      code: 'cancelled',
    });
    expect(readdirSync(folder)).toEqual(['layer.vhd']);
  });
});

describe('a VHD footer', () => {
  it.runIf(hasQemu)('makes it a fixed VHD for qemu', () => {
    const info = JSON.parse(run('qemu-img', ['info', '-f', 'vpc', '--output=json', vhd]).toString());
    expect(info['virtual-size']).toBe(statSync(vhd).size - 512);
  });

  it('that is damaged is refused', () => {
    const end = statSync(vhd).size;
    for (const at of [end - 512 + 20, end - 512 + 64, end - 512 + 68])
      expect(() => new Disk(damaged(at))).toThrow(/VHD footer's checksum is wrong/);
    expect(checkDisk(damaged(end - 500)).faults).toEqual([
      expect.objectContaining({ offset: end - 512 + 64, message: expect.stringContaining('checksum') }),
    ]);
    expect(checkDisk(damaged(end - 512)).faults).toEqual([
      expect.objectContaining({ offset: end - 512, message: expect.stringContaining('no VHD footer') }),
    ]);
  });

  it('may be missing, and then is missing in what is found', () => {
    const copy = shop.at('no-footer');
    copyFileSync(vhd, copy);
    run('truncate', ['-s', '-512', copy]);
    expect(checkDisk(copy)).toEqual({ faults: [], facts: { vhdFooter: false, rootHash: made.rootHash } });
    run('truncate', ['-s', '-100', copy]);
    expect(checkDisk(copy).faults).toHaveLength(1);
  });
});

it('leaves nothing behind when the layer is bad, too large, or it is cancelled', async () => {
  const before = readdirSync(shop.path);
  const cut = shop.directory();
  writeFileSync(`${cut}/cut.tar`, readFileSync(shop.at('layer.tar')).subarray(0, 2_000_000));
  await expect(make(`${cut}/cut.tar`, `${cut}/l.vhd`)).rejects.toMatchObject({ code: 'corrupt' });
  await expect(make(shop.at('layer.tar'), `${cut}/l.vhd`, { maxSize: 2 ** 20 })).rejects.toMatchObject({
    code: 'no-space',
  });
  const signal = AbortSignal.abort();
  await expect(make(shop.at('layer.tar'), `${cut}/l.vhd`, { signal })).rejects.toMatchObject({
    code: 'cancelled',
  });
  await expect(make(`${cut}/nothing`, `${cut}/l.vhd`)).rejects.toMatchObject({ code: 'not-found' });
  expect(readdirSync(cut)).toEqual(['cut.tar']);
  expect(readdirSync(shop.path)).toEqual(expect.arrayContaining(before));
});

it.each([
  ['a pipe', (path: string) => run('mkfifo', [path])],
  ['a symlink', (path: string) => symlinkSync('elsewhere', path)],
  ['a directory', (path: string) => mkdirSync(path)],
] as const)('does not take the place of %s', async (_what, makeOther) => {
  const place = shop.directory();
  const file = `${place}/layer.vhd`;
  makeOther(file);
  const { mode, ino } = lstatSync(file);
  await expect(make(shop.at('layer.tar'), file)).rejects.toMatchObject({
    code: 'failed-precondition',
    message: expect.stringContaining(file),
  });
  expect(lstatSync(file)).toMatchObject({ mode, ino });
  expect(readdirSync(place)).toEqual(['layer.vhd']);
});
