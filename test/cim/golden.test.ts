/** What is on disk, decoded here by hand from the published layout, without the project's own decoder. */

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  fileMetadata,
  GUIDS,
  patternBytes,
  putDirectory,
  putFile,
  putStream,
  temporaryDirectories,
  writeImage,
} from './fixture.ts';

const temporary = temporaryDirectories();
const GUID = GUIDS[0];

function writeGolden(): (name: string) => Buffer {
  const directory = temporary();
  writeImage(directory, 0, (writer) => {
    putDirectory(writer, 'dir');
    putFile(writer, 'dir/b.txt', 'hello', { attributes: 0x1 | 0x20 });
    putFile(writer, 'dir/A.bin', patternBytes(5000, 7));
    putStream(writer, 'dir/b.txt', 'note', 'aside');
    writer.createHardLink('link', 'dir/b.txt');
  });
  return (name) => readFileSync(join(directory, name));
}

describe('bytes on disk', () => {
  it('start every file with the common header', () => {
    const read = writeGolden();
    const types = {
      'image0.cim': 0,
      [`region_${GUID}_0`]: 1,
      [`region_${GUID}_2`]: 1,
      [`objectid_${GUID}_1`]: 2,
    };
    for (const [name, type] of Object.entries(types)) {
      const bytes = read(name);
      expect(bytes.toString('latin1', 0, 8)).toBe('cimfile0');
      expect(bytes[12]).toBe(type);
      expect([bytes.readUInt32LE(16), bytes.readUInt32LE(20)]).toEqual([1, 0]);
      expect(bytes.subarray(24, 32)).toEqual(Buffer.alloc(8));
    }
  });

  it('name the region set in mixed-endian order', () => {
    const image = writeGolden()('image0.cim');
    expect(image.length).toBe(72);
    expect(image.toString('hex', 32, 48)).toBe('33221100554477668899aabbccddeeff');
    expect(image.readUInt16LE(48)).toBe(3);
    expect(image.readUInt16LE(70)).toBe(0);
  });

  it('keep types apart and pad every region to whole pages', () => {
    const read = writeGolden();
    for (const type of [0, 1, 2]) {
      const region = read(`region_${GUID}_${type}`);
      expect(region.length % 4096).toBe(0);
      expect(region.readUInt16LE(32)).toBe(type);
      expect(region[34]).toBe(type);
    }
    expect(read(`region_${GUID}_1`).subarray(4096, 9096)).toEqual(patternBytes(5000, 7));
    expect(read(`region_${GUID}_2`).toString('latin1', 40, 45)).toBe('hello');
    expect(read(`region_${GUID}_2`).toString('latin1', 48, 53)).toBe('aside');
  });

  it('lead from the header to the files', () => {
    const read = writeGolden();
    const meta = read(`region_${GUID}_0`);
    const at = (bytes: Buffer, position: number) => {
      expect(bytes.readUInt16LE(position + 6)).toBe(0);
      return bytes.readUIntLE(position, 6);
    };
    const filesystem = at(read('image0.cim'), 56);
    const upcase = at(meta, filesystem);
    const tables = at(meta, filesystem + 8);
    expect(meta.readUInt32LE(filesystem + 16)).toBe(1);
    expect(meta.readUInt32LE(filesystem + 20)).toBe(1);
    const up = (character: string) =>
      String.fromCharCode(meta.readUInt16LE(upcase + 2 * character.charCodeAt(0)));
    expect(['a', 'z', 'Z', '1', 'é', 'ж', 'ß', 'ı', '\u{ff41}'].map(up)).toEqual([
      'A',
      'Z',
      'Z',
      '1',
      'É',
      'Ж',
      'ß',
      'ı',
      '\u{ff21}',
    ]);

    const table = at(meta, tables);
    expect([meta.readUInt16LE(tables + 8), meta.readUInt16LE(tables + 10)]).toEqual([4, 88]);
    const entry = (id: number) => meta.subarray(table + (id - 1) * 88, table + id * 88);

    // The root: entries "dir" and "link", in that order.
    const root = entry(1);
    expect(root[54]).toBe(1);
    const links = at(root, 40);
    const length = root.readUIntLE(48, 6);
    expect(meta.readUInt32LE(links)).toBe(length);
    expect(meta.readUInt32LE(links + 4)).toBe(2);
    expect([meta.readUInt32LE(links + 8), meta.readUInt32LE(links + 12)]).toEqual([2, 3]);
    const name = (position: number) => {
      const start = links + meta.readUInt32LE(position);
      return meta.toString('utf16le', start + 2, start + 2 + 2 * meta.readUInt16LE(start));
    };
    expect([name(links + 16), name(links + 20)]).toEqual(['dir', 'link']);
    expect(length).toBe(8 + 2 * 8 + 2 + 6 + 2 + 8);

    // The directory: "A.bin" before "b.txt".
    const inner = at(entry(2), 40);
    expect([meta.readUInt32LE(inner + 8), meta.readUInt32LE(inner + 12)]).toEqual([4, 3]);

    // b.txt: read-only and archive, times, 5 bytes at 40 of region 2, the NULL-DACL descriptor, a stream table.
    const small = entry(3);
    expect(small.readUInt16LE(0)).toBe(1 | 8);
    expect([8, 16, 24, 32].map((position) => small.readBigUInt64LE(position))).toEqual([1n, 2n, 3n, 4n]);
    expect(small.readBigUInt64LE(40)).toBe((2n << 48n) | 40n);
    expect(small.readBigUInt64LE(48)).toBe(5n);
    const descriptor = at(small, 56);
    expect(meta.toString('hex', descriptor, descriptor + 22)).toBe(`140001000480${'00'.repeat(16)}`);
    const streams = at(small, 80);
    expect(meta.readUInt32LE(streams + 4)).toBe(1);
    expect(meta.readBigUInt64LE(streams + 8)).toBe((2n << 48n) | 48n);
    expect(meta.readBigUInt64LE(streams + 16)).toBe(5n);
    const streamName = streams + meta.readUInt32LE(streams + 24);
    expect(meta.toString('utf16le', streamName + 2, streamName + 10)).toBe('note');

    // A.bin: 5,000 bytes on the second page of region 1.
    expect(entry(4).readBigUInt64LE(40)).toBe((1n << 48n) | 4096n);
    expect(entry(4).readBigUInt64LE(48)).toBe(5000n);
  });

  it('list object IDs with digests of the bytes', () => {
    const ids = writeGolden()(`objectid_${GUID}_1`);
    expect([ids.readUInt32LE(40), ids.readUInt32LE(44), ids.length]).toEqual([48, 1, 88]);
    expect(ids.readBigUInt64LE(48)).toBe(5000n);
    const digest = createHash('blake2b512').update(patternBytes(5000, 7)).digest('hex').slice(0, 48);
    expect(ids.toString('hex', 56, 80)).toBe(digest);
    expect(ids.readBigUInt64LE(80)).toBe(4096n);
  });

  it('mark a stream of zeros as sparse, without data', () => {
    const directory = temporary();
    writeImage(directory, 0, (writer) => {
      const stream = writer.createFile('zeros', fileMetadata(10_000));
      stream.write(Buffer.alloc(10_000));
      stream.close();
    });
    const meta = readFileSync(join(directory, `region_${GUID}_0`));
    const tables = meta.readUIntLE(readFileSync(join(directory, 'image0.cim')).readUIntLE(56, 6) + 8, 6);
    const entry = meta.readUIntLE(tables, 6) + 88;
    expect(meta.readBigUInt64LE(entry + 40)).toBe(0n);
    expect(meta.readBigUInt64LE(entry + 48)).toBe((1n << 56n) | 10_000n);
    expect(readFileSync(join(directory, `region_${GUID}_1`)).length).toBe(4096);
  });
});
