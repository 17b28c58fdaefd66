import { expect, it } from 'vitest';
import { parseMountInfo, readMountInfo, topMountAt } from '../../../src/hosts/embedded/mount-info.ts';

const TABLE = [
  '21 1 254:0 / / rw,relatime shared:1 master:2 - ext4 /dev/vda rw,discard',
  '40 21 0:50 / /mnt/a\\040b\\134c\\011 ro - erofs /views/a\\040b.erofs ro',
  '41 40 0:51 / /mnt/a\\040b\\134c\\011 rw - tmpfs none rw',
  '42 21 0:52 / /mnt/caf\u00c3\u00a9 ro - erofs /x ro',
  'not a mount at all',
  '',
].join('\n');

it('decodes escapes and optional fields', () => {
  const entries = parseMountInfo(TABLE);
  expect(entries).toHaveLength(4);
  expect(entries[0]).toEqual({
    id: 21,
    parentId: 1,
    device: '254:0',
    root: '/',
    mountPoint: '/',
    receives: true,
    type: 'ext4',
    source: '/dev/vda',
    options: 'rw,discard',
  });
  expect(entries[1]).toMatchObject({
    mountPoint: '/mnt/a b\\c\t',
    receives: false,
    source: '/views/a b.erofs',
  });
  expect(entries[3]?.mountPoint).toBe('/mnt/café');
});

it('finds the mount that is on top, in whatever order they are listed', () => {
  const entries = parseMountInfo(TABLE);
  expect(topMountAt(entries, '/mnt/a b\\c\t')?.type).toBe('tmpfs');
  expect(topMountAt(entries.toReversed(), '/mnt/a b\\c\t')?.type).toBe('tmpfs');
  expect(topMountAt(entries, '/mnt/nothing')).toBeUndefined();
});

it.runIf(process.platform === 'linux')('reads the table of this process', () => {
  expect(topMountAt(readMountInfo(), '/proc')?.type).toBe('proc');
});
