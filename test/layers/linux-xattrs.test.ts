/** Extended attributes of Linux files on their way into layer tars and back, as getfattr sees them. */

import { mkdirSync, writeFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Disk } from '../../src/ext4/disk.ts';
import { Ext4Writer } from '../../src/ext4/writer.ts';
import { exportLinuxUpper } from '../../src/hosts/embedded/export-linux-upper.ts';
import { exportLinuxLayer } from '../../src/layers/export-linux-layer.ts';
import { setXattr } from '../../src/native/linux/xattr.ts';
import { canMount, describeTree, makeImage, Workshop } from '../ext4/images.ts';
import { inChunks } from '../tar/tar-helpers.ts';

let shop: Workshop;
beforeEach(() => {
  shop = new Workshop();
});
afterEach(() => shop.close());

const exportUpper = (path: string) =>
  Buffer.concat([...exportLinuxUpper(Buffer.from(path), (message) => expect.fail(message))]);

function exportDisk(image: string): Buffer {
  const disk = new Disk(image);
  try {
    return Buffer.concat([...exportLinuxLayer(disk.files)]);
  } finally {
    disk.close();
  }
}

describe.runIf(canMount)('extended attributes', () => {
  it('come back whatever their names and values are', async () => {
    const tree = shop.directory();
    mkdirSync(`${tree}/d`);
    writeFileSync(`${tree}/d/f`, '');
    const names = [
      'user.plain',
      'user.żółć',
      'user.100%',
      'user.a b\n',
      Buffer.from([...Buffer.from('user.'), 0xff, 1]),
    ];
    for (const path of [`${tree}/d`, `${tree}/d/f`])
      for (const name of names) {
        expect(setXattr(path, name, Buffer.from([0, 0xff, 0x0a, 0x3d]))).toBe(true);
        expect(
          setXattr(path, Buffer.concat([Buffer.from(name), Buffer.from('-empty')]), new Uint8Array()),
        ).toBe(true);
      }
    const tar = exportUpper(tree);
    const image = shop.at('image');
    await makeImage(inChunks(tar), image);
    const expected = describeTree(tree);
    const shown = describeTree(shop.mount(image));
    expect(expected.get('d/f')?.xattrs).toHaveLength(10);
    expect(shown.get('d/f')?.xattrs).toEqual(expected.get('d/f')?.xattrs);
    expect(shown.get('d')?.xattrs).toEqual(expected.get('d')?.xattrs);
    expect(exportDisk(image).equals(tar)).toBe(true);
  });

  it("are refused where a tar's record would say another name", () => {
    const tree = shop.directory();
    writeFileSync(`${tree}/f`, '');
    setXattr(`${tree}/f`, 'user.a=b', Buffer.from('value'));
    const refusal = { code: 'failed-precondition', message: expect.stringMatching(/"f".*"user\.a=b"/) };
    expect(() => exportUpper(tree)).toThrow(expect.objectContaining(refusal));

    const image = shop.at('image');
    const writer = new Ext4Writer(image);
    const xattrs = [{ name: 'user.a=b', value: Buffer.from('value') }];
    try {
      writer.fifo('f', { mode: 0, uid: 0, gid: 0, mtime: 0n, atime: 0n, ctime: 0n, xattrs });
      writer.finish();
    } finally {
      writer.close();
    }
    expect(() => exportDisk(image)).toThrow(expect.objectContaining(refusal));
  });
});
