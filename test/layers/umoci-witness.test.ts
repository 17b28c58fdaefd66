/** Layers of Linux images whose entries lead through one another's symlinks, over disks made of each: the overlay is what umoci unpacks. */

import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { writeLayerDisk } from '../../src/hosts/layer-disk.ts';
import type { TarEntry } from '../../src/tar/tar-writer.ts';
import { canMount, type Described, describeTree, makeImage, Workshop } from '../ext4/images.ts';
import { hasTool, requireOrSkip } from '../support/requirements.ts';
import { inChunks, run, tarOf } from '../tar/tar-helpers.ts';

const ready = canMount && requireOrSkip('umoci', hasTool('umoci'));

let shop: Workshop;
beforeEach(() => {
  shop = new Workshop();
});
afterEach(() => shop.close());

type Entry = TarEntry & { content?: string };
const MTIME = 1_000_000_000n * 1_000_000_000n;
const file = (name: string, more: Partial<Entry> = {}): Entry => ({
  name,
  type: 'file',
  content: name,
  mode: 0o644,
  mtime: MTIME,
  ...more,
});
const directory = (name: string, mode = 0o755): Entry => ({ name, type: 'directory', mode, mtime: MTIME });
const symlink = (name: string, linkName: string): Entry => ({
  name,
  type: 'symlink',
  linkName,
  mode: 0o777,
  mtime: MTIME,
});
const hardLink = (name: string, linkName: string): Entry => ({ name, type: 'hard-link', linkName });

/** As umoci unpacks an image of these layers. */
function unpacked(layers: readonly Entry[][]): Map<string, Described> {
  const cwd = shop.directory();
  const umoci = (...args: string[]) => run('umoci', args, { cwd });
  umoci('init', '--layout', 'layout');
  umoci('new', '--image', 'layout:v1');
  for (const [index, entries] of layers.entries()) {
    writeFileSync(join(cwd, `${index}.tar`), tarOf(...entries));
    umoci('raw', 'add-layer', '--image', 'layout:v1', `${index}.tar`);
  }
  umoci('raw', 'unpack', '--image', 'layout:v1', 'rootfs');
  return comparable(describeTree(join(cwd, 'rootfs')));
}

/** As the kernel shows an overlay of disks made of these layers, with overlayfs' own defaults but for `options`. */
async function mounted(layers: readonly Entry[][], options = ''): Promise<Map<string, Described>> {
  const { signal } = new AbortController();
  const disks: string[] = [];
  const mounts: string[] = [];
  for (const [index, entries] of layers.entries()) {
    const disk = shop.at(`${index}.vhd`);
    const lower = [...disks];
    await writeLayerDisk(inChunks(tarOf(...entries), 700), disk, {
      verity: false,
      inlineData: false,
      lower,
      signal,
    });
    disks.unshift(disk);
    mounts.unshift(shop.mount(disk));
  }
  const target = shop.at('overlay');
  mkdirSync(target);
  run('mount', ['-t', 'overlay', 'overlay', '-o', `ro,lowerdir=${mounts.join(':')}${options}`, target]);
  return comparable(describeTree(target));
}

/** No layer says when a directory last got or lost a name. */
function comparable(tree: Map<string, Described>): Map<string, Described> {
  tree.delete('');
  for (const described of tree.values()) if (described.mode.startsWith('4')) described.mtime = '';
  return new Map([...tree].sort(([a], [b]) => (a < b ? -1 : 1)));
}

async function expectSame(...layers: Entry[][]): Promise<void> {
  const expected = unpacked(layers);
  const shown = await mounted(layers);
  expect([...shown.keys()]).toEqual([...expected.keys()]);
  expect([...shown]).toEqual([...expected]);
}

const usr = [directory('usr', 0o711), directory('usr/lib', 0o750), file('usr/lib/ld.so')];

describe.runIf(ready)('entries below a symlink of a lower layer', () => {
  it('go where it leads, inside the image', () =>
    expectSame(
      [
        ...usr,
        directory('usr/lib/d', 0o700),
        symlink('lib', 'usr/lib'),
        symlink('absolute', '/usr/lib'),
        symlink('out', '../../usr/./lib'),
      ],
      [file('lib/a.so'), file('absolute/b.so'), file('out/c.so'), file('lib/d/e.so')],
    ));

  it('go through several, of several layers', () =>
    expectSame(
      [...usr, directory('etc'), symlink('etc/first', '../second')],
      [symlink('second', 'third/lib')],
      [symlink('third', 'usr')],
      [file('etc/first/a.so'), hardLink('b', 'etc/first/a.so')],
    ));

  it('may be whiteouts, and opaque', () =>
    expectSame(
      [
        ...usr,
        file('usr/lib/gone'),
        directory('usr/share'),
        file('usr/share/gone'),
        symlink('lib', 'usr/lib'),
      ],
      [symlink('share', 'usr/share')],
      [file('lib/.wh.gone'), file('share/.wh..wh..opq'), file('share/kept')],
    ));

  it('are hidden with all the rest by a root that is opaque', () =>
    expectSame(
      [...usr, symlink('lib', 'usr/lib'), file('gone'), directory('etc'), file('etc/gone')],
      [file('more')],
      [file('.wh..wh..opq'), file('lib/a'), file('usr/b'), directory('etc')],
      [file('etc/c')],
    ));

  it('and a whiteout through it hides no file of the layer itself', () =>
    expectSame([...usr, symlink('lib', 'usr/lib')], [file('usr/lib/new'), file('lib/.wh.new')]));

  it('make what a dangling one leads to', () =>
    expectSame([symlink('dangling', 'nowhere/here')], [file('dangling/a')]));

  it('stay where they are when the layer hides it or has another file there', () =>
    expectSame(
      [...usr, symlink('gone', 'usr/lib'), symlink('replaced', 'usr/lib'), symlink('other', 'usr/lib')],
      [
        file('.wh.gone'),
        directory('gone'),
        file('gone/a'),
        // First by where it leads, then by the directory that takes its place.
        file('replaced/a'),
        directory('replaced'),
        file('replaced/b'),
        symlink('other', 'usr'),
        file('other/c'),
      ],
    ));
});

describe.runIf(ready)('attributes that overlayfs obeys', () => {
  it('mean nothing in a layer, and are left out with a warning', async () => {
    const order = (name: string, value: string) => ({
      records: { [`SCHILY.xattr.trusted.overlay.${name}`]: value },
    });
    const layers = [
      [...usr, directory('secret'), file('secret/key'), directory('d'), file('d/kept')],
      [
        { ...directory('d'), ...order('opaque', 'y') },
        { ...directory('elsewhere'), ...order('redirect', '/secret') },
        { ...file('f', { content: '' }), ...order('metacopy', '') },
        { ...file('whiteout', { content: '' }), ...order('whiteout', 'y') },
        { ...directory('usr'), ...order('opaque', 'x') },
      ],
    ];
    const expected = unpacked(layers);
    // On a file system of their own they are attributes like others.
    for (const described of expected.values())
      described.xattrs = described.xattrs.filter((xattr) => !xattr.startsWith('trusted.overlay.'));
    expect([...(await mounted(layers, ',redirect_dir=on,metacopy=on'))]).toEqual([...expected]);

    const { warnings } = await makeImage(inChunks(tarOf(...(layers[1] ?? []))), shop.at('image'));
    expect(warnings).toEqual([expect.stringContaining('5 extended attributes that are orders to overlayfs')]);
  });
});
