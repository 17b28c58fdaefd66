import { randomBytes } from 'node:crypto';
import { lstat, readdir, readFile, readlink, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { createEmbeddedHost } from '../../../src/hosts/embedded/embedded-host.ts';
import type { ViewKind } from '../../../src/hosts/host.ts';
import { hexOf } from '../../../src/hosts/identity.ts';
import { getXattr, listXattrs } from '../../../src/native/linux/xattr.ts';
import type { LayerItem } from '../../support/host-layers.ts';
import { requireOrSkip } from '../../support/requirements.ts';
import { build, context, makeStack, mountRequest, openBench } from './fixture.ts';

const capabilities = await createEmbeddedHost({ root: '/nowhere' }).capabilities();
const kernel = requireOrSkip('kernel EROFS mounts', capabilities['view.Kernel'].available);

/** 1960-01-02 03:04:05.6789012 UTC. */
const OLD_TIME = -315_521_754_321_098_800n;
const NULL_DACL = Buffer.concat([Buffer.from([1, 0, 4, 0x80]), Buffer.alloc(16)]);
/** Owner and group S-1-5-18, no ACLs, self-relative. */
const SYSTEM_SD = Buffer.concat([
  Buffer.from([1, 0, 0, 0x80, 20, 0, 0, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
  ...[0, 1].map(() => Buffer.from([1, 1, 0, 0, 0, 0, 0, 5, 18, 0, 0, 0])),
]);
const BIG = randomBytes(300_000);
const LONG_NAME = 'ü'.repeat(200);
const STREAM_OVER_LIMIT = Buffer.alloc(70_000, 's');

const file = (name: string, content: string | Uint8Array, rest: Partial<LayerItem> = {}): LayerItem => ({
  ...rest,
  name: `Files/${name}`,
  type: 'file',
  content: Buffer.from(content),
});
const link = (name: string, linkName: string, records: Record<string, string> = {}): LayerItem => ({
  name: `Files/${name}`,
  type: 'symlink',
  linkName,
  records,
});

const BASE: LayerItem[] = [
  { name: 'Files/', type: 'directory' },
  file('plain.txt', 'plain'),
  file('big.bin', BIG),
  file('zero.bin', new Uint8Array(1_000_000)),
  file('empty', ''),
  file('old.txt', 'old', {
    mtime: OLD_TIME,
    records: { 'LIBARCHIVE.creationtime': '1234567890.1234567', 'MSWINDOWS.fileattr': '35' },
  }),
  file('system.txt', 's', {
    records: {
      'MSWINDOWS.rawsd': SYSTEM_SD.toString('base64'),
      'MSWINDOWS.xattr.KERNEL': Buffer.from('value').toString('base64'),
    },
  }),
  file('streams.txt', 'default'),
  file('streams.txt:zone', '[ZoneTransfer]'),
  file('many.txt', 'default'),
  file('many.txt:huge:$DATA', STREAM_OVER_LIMIT),
  file('many.txt:small', 'x'),
  { name: 'Files/dir/', type: 'directory', records: { 'MSWINDOWS.fileattr': '17' } },
  file(`dir/${LONG_NAME}`, 'long'),
  { name: 'Files/dir/hard.bin', type: 'hard-link', linkName: 'Files/big.bin' },
  link('relative', '..\\dir\\x'),
  link('absolute', 'C:\\Windows\\System32'),
  link('otherdrive', 'D:\\data'),
  link('share', '\\\\server\\share\\x'),
  link('unix', '/etc/passwd'),
  link('junction', 'C:\\dir', { 'MSWINDOWS.mountpoint': '1' }),
];
const UPPER: LayerItem[] = [
  { name: 'Files/', type: 'directory' },
  file('plain.txt', 'changed'),
  file('upper.bin', BIG.subarray(0, 4096)),
  { name: 'Files/dir/upper-hard', type: 'hard-link', linkName: 'Files/big.bin' },
  file('.wh.empty', ''),
];

const views: [ViewKind, boolean][] = [
  ['Kernel', kernel],
  ['Extracted', true],
];
for (const [view, available] of views)
  describe.runIf(available)(`a ${view} view`, () => {
    it('shows contents, names, links, times, modes and attributes', async () => {
      const { directory, root, host } = await openBench();
      const requests = await makeStack(join(directory, 'blobs'), BASE, UPPER);
      await build(host, requests);
      const path = join(directory, 'm');
      await host.mount(mountRequest(path, requests, view), context);
      const at = (name: string) => join(path, name);
      const text = (name: string, attribute: string) => {
        const value = getXattr(at(name), attribute);
        return value === undefined ? undefined : Buffer.from(value).toString();
      };

      expect(await readFile(at('plain.txt'), 'utf8')).toBe('changed');
      expect((await readFile(at('big.bin'))).equals(BIG)).toBe(true);
      expect((await readFile(at('upper.bin'))).equals(BIG.subarray(0, 4096))).toBe(true);
      expect((await readFile(at('zero.bin'))).equals(Buffer.alloc(1_000_000))).toBe(true);
      expect(await readdir(path)).not.toContain('empty');

      const big = await stat(at('big.bin'));
      expect(big.nlink).toBe(3);
      expect((await stat(at('dir/hard.bin'))).ino).toBe(big.ino);
      expect((await stat(at('dir/upper-hard'))).ino).toBe(big.ino);

      const targets = ['relative', 'absolute', 'otherdrive', 'share', 'unix', 'junction'].map((name) =>
        readlink(at(name)),
      );
      expect(await Promise.all(targets)).toEqual([
        '../dir/x',
        '/Windows/System32',
        'D:/data',
        '//server/share/x',
        '/etc/passwd',
        '/dir',
      ]);

      const old = await lstat(at('old.txt'), { bigint: true });
      if (view === 'Kernel') expect(old.mtimeNs).toBe(OLD_TIME);
      else expect(Math.abs(Number(old.mtimeNs - OLD_TIME))).toBeLessThan(1_000);
      expect(Number(old.mode & 0o777n)).toBe(0o444);
      expect((await stat(at('plain.txt'))).mode & 0o777).toBe(0o644);
      expect((await stat(at('dir'))).mode & 0o777).toBe(0o555);
      expect(text('old.txt', 'user.cim.attributes')).toBe('0x23');
      expect(text('old.txt', 'user.cim.creationtime')).toBe('128790414901234567');
      expect(text('dir', 'user.cim.attributes')).toBe('0x11');
      expect(getXattr(at('plain.txt'), 'user.cim.sd')).toEqual(new Uint8Array(NULL_DACL));
      expect(getXattr(at('system.txt'), 'user.cim.sd')).toEqual(new Uint8Array(SYSTEM_SD));
      expect(Buffer.from(getXattr(at('system.txt'), 'user.cim.ea')!).toString('latin1')).toContain(
        'KERNEL\0value',
      );
      expect(text('streams.txt', 'user.cim.stream.zone')).toBe('[ZoneTransfer]');
      expect(listXattrs(at('streams.txt')).map(String)).not.toContain('user.cim.streams');
      expect(text('many.txt', 'user.cim.streams')).toBe('70000 huge\n1 small\n');
      expect(text('many.txt', 'user.cim.stream.small')).toBe('x');
      if (process.getuid?.() === 0) {
        expect(text('absolute', 'trusted.cim.attributes')).toBe('0x400');
        expect(getXattr(at('absolute'), 'trusted.cim.reparse')?.[3]).toBe(0xa0);
      }

      const [shown] = (await readdir(at('dir'))).filter((name) => name.startsWith('ü'));
      expect(shown).toMatch(/^ü{100}~[0-9a-f]{16}$/);
      expect(text(`dir/${shown}`, 'user.cim.name')).toBe(LONG_NAME);
      expect(await readFile(at(`dir/${shown}`), 'utf8')).toBe('long');

      if (view === 'Kernel') {
        const image = await stat(join(root, 'views', `${hexOf(requests[1]!.chainId)}.erofs`));
        expect(image.size, 'no page-aligned data is copied').toBeLessThan(BIG.length / 2);
      }
      await host.dismount(mountRequest(path, requests).volumeGuid, context);
    });
  });

describe.runIf(kernel)('the view image', () => {
  it('is the same for the same chain, and made again when it is missing or wrong', async () => {
    const images: Buffer[] = [];
    for (let round = 0; round < 2; round++) {
      const { directory, root, host } = await openBench();
      const requests = await makeStack(join(directory, 'blobs'), BASE, UPPER);
      await build(host, requests);
      const request = mountRequest(join(directory, 'm'), requests);
      const image = join(root, 'views', `${hexOf(requests[1]!.chainId)}.erofs`);
      await host.mount(request, context);
      const good = await readFile(image);
      images.push(good);
      for (const damage of [good.subarray(0, 8192), Buffer.alloc(good.length), undefined]) {
        await host.dismount(request.volumeGuid, context);
        if (damage === undefined) await rm(image);
        else await writeFile(image, damage);
        await host.mount(request, context);
        expect((await readFile(image)).equals(good)).toBe(true);
      }
    }
    expect(images[0]?.equals(images[1]!)).toBe(true);
  });
});

describe('layers', () => {
  it('are byte-identical on two hosts', async () => {
    const listings: string[] = [];
    const contents: Buffer[][] = [];
    for (let round = 0; round < 2; round++) {
      const { directory, root, host } = await openBench();
      await build(host, await makeStack(join(directory, 'blobs'), BASE, UPPER));
      const names = (await readdir(join(root, 'cim-layers'))).sort();
      listings.push(names.join());
      contents.push(await Promise.all(names.map((name) => readFile(join(root, 'cim-layers', name)))));
    }
    expect(listings[0]).toBe(listings[1]);
    expect(contents[0]!.every((bytes, index) => bytes.equals(contents[1]![index]!))).toBe(true);
  });
});
