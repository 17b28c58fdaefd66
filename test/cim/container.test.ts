/** Block CIMs in their container: what is on disk, what is read back, what is refused, what damage is found. */

import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { createBlockCimWriter } from '../../src/cim/block-writer.ts';
import { publishContainer } from '../../src/cim/publish.ts';
import { FileAttribute } from '../../src/cim/types.ts';
import { verifyCim } from '../../src/cim/verify.ts';
import { hasTool, isRoot, requireOrSkip } from '../support/requirements.ts';
import { containerOf, finishBlock, guidOf, listCim, withCim, writeBlock } from './block-fixture.ts';
import {
  directoryMetadata,
  patternBytes,
  putDirectory,
  putFile,
  putStream,
  temporaryDirectories,
} from './fixture.ts';

const temporary = temporaryDirectories();
const LARGE = patternBytes(10_000, 1);

function writeSample(directory: string, n = 1): string {
  return writeBlock(directory, n, (writer) => {
    putDirectory(writer, 'dir');
    putFile(writer, 'dir/large', LARGE);
    putFile(writer, 'dir/small', 'small', { attributes: FileAttribute.hidden });
    putStream(writer, 'dir/small', 'aside', 'stream');
    writer.createHardLink('dir/again', 'dir/small');
    writer.tombstone('dir/gone');
    writer.createMergeLink('dir/link', 'lower/Ä.txt');
  });
}

describe('a container on disk', () => {
  it('begins with a header that leads to its directory', () => {
    const bytes = readFileSync(containerOf(writeSample(temporary())));
    const sha256 = (data: Buffer) => createHash('sha256').update(data).digest();
    expect(bytes.toString('latin1', 0, 8)).toBe('cimletbc');
    expect([bytes.readUInt32LE(8), bytes.readUInt32LE(12)]).toEqual([1, 0]);
    const offset = Number(bytes.readBigUInt64LE(16));
    const length = Number(bytes.readBigUInt64LE(24));
    const directory = bytes.subarray(offset, offset + length);
    expect(bytes.subarray(32, 64)).toEqual(sha256(directory));
    expect(Number(bytes.readBigUInt64LE(64))).toBe(bytes.length);
    expect(bytes.subarray(72, 480)).toEqual(Buffer.alloc(408));
    expect(bytes.subarray(480, 512)).toEqual(sha256(bytes.subarray(0, 480)));
    expect(bytes.subarray(512, 4096)).toEqual(Buffer.alloc(3584));

    expect(directory.toString('latin1', 0, 8)).toBe('cimletcd');
    expect([directory.readUInt32LE(8), directory.readUInt32LE(12)]).toEqual([1, 0]);
    expect([directory.readUInt16LE(16), directory.readUInt16LE(18)]).toEqual([9, 7]);
    expect(directory.toString('utf8', 20, 29)).toBe('layer.cim');
    const parts = Array.from({ length: 7 }, (_, i) => {
      const part = directory.subarray(29 + i * 56, 85 + i * 56);
      const start = Number(part.readBigUInt64LE(8));
      const stored = bytes.subarray(start, start + Number(part.readBigUInt64LE(16)));
      expect(start % 4096).toBe(0);
      expect(stored.toString('latin1', 0, 8)).toBe('cimfile0');
      const isData = part[0] === 1 && part[1] === 1;
      expect(part.subarray(24)).toEqual(isData ? Buffer.alloc(32) : sha256(stored));
      return [part[0], part[1], part.readUInt16LE(2)];
    });
    // Data in place, then small data and metadata, object IDs of each, the image.
    expect(parts).toEqual([
      [1, 1, 1],
      [1, 2, 2],
      [1, 0, 0],
      [2, 0, 0],
      [2, 1, 1],
      [2, 2, 2],
      [0, 0, 0],
    ]);
    expect(directory.length).toBe(29 + 7 * 56);
    // The large file lies in the container itself, on a page behind the region's header.
    expect(bytes.subarray(8192, 18_192)).toEqual(LARGE);
  });

  it('is the same for the same calls, whatever was there before', () => {
    const [a, b] = [temporary(), temporary()];
    writeFileSync(join(b, 'tmp-layer1.bcim'), Buffer.alloc(1_000_000, 7));
    writeSample(b, 2);
    const bytes = readFileSync(containerOf(writeSample(a)));
    expect(readFileSync(containerOf(writeSample(b))).equals(bytes)).toBe(true);
    expect(readdirSync(a)).toEqual(['layer1.bcim']);
  });
});

describe('a block CIM', () => {
  it('is read back with its marks, and verifies', () => {
    const path = writeSample(temporary());
    withCim(path, (reader) => {
      expect(reader.kind).toBe('block');
      expect(listCim(reader)).toEqual({
        dir: '/',
        'dir/large': LARGE.toString('latin1'),
        'dir/small': 'small',
        'dir/again': 'small',
        'dir/gone': 'tombstone',
        'dir/link': '=> lower/Ä.txt',
      });
      const small = reader.lookup('DIR/SMALL')!;
      expect(reader.lookup('dir/again')).toBe(small);
      expect(reader.stat(small).attributes).toBe(FileAttribute.hidden);
      expect(Buffer.concat([...reader.streamChunks(small, 'aside')]).toString()).toBe('stream');
      expect(reader.stat(reader.lookup('dir/link')!)).toMatchObject({
        mark: { kind: 'merge-link', target: 'lower/Ä.txt' },
        reparseData: undefined,
        reparseTag: 0,
        attributes: 0,
      });
      const extent = reader.extent(reader.lookup('dir/large')!)!;
      const region = reader.regions[extent.region]!;
      expect([region.path, region.base + extent.offset]).toEqual([containerOf(path), 8192]);
    });
    expect(verifyCim(path)).toEqual([]);
  });

  it('needs no name in the path when it is the only one', () => {
    const path = writeSample(temporary());
    withCim(containerOf(path), (reader) => expect(reader.lookup('dir/small')).toBeDefined());
    expect(() => withCim(join(containerOf(path), 'other.cim'), () => undefined)).toThrow('no such CIM');
  });

  it('shares a container with others, which it leaves as they were', () => {
    const directory = temporary();
    const path = writeSample(directory);
    const file = containerOf(path);
    const before = readFileSync(file);
    const writer = createBlockCimWriter({ file, name: 'second', regionGuid: guidOf(2), append: true });
    putFile(writer, 'half', LARGE);
    withCim(path, (reader) => expect(reader.lookup('dir/small')).toBeDefined());
    writer.close();
    expect(readFileSync(file).equals(before)).toBe(true);

    const append = { file, name: 'second', regionGuid: guidOf(2), append: true };
    const { files } = finishBlock(createBlockCimWriter(append), (writer) => putFile(writer, 'b', LARGE));
    expect(files).toEqual([{ name: 'layer1.bcim', size: readFileSync(file).length }]);
    expect(withCim(path, listCim)).toHaveProperty(['dir/small'], 'small');
    expect(withCim(join(file, 'second.cim'), listCim)).toEqual({ b: LARGE.toString('latin1') });
    expect(verifyCim(path)).toEqual([]);
    expect(verifyCim(join(file, 'second.cim'))).toEqual([]);
    expect(() => withCim(file, () => undefined)).toThrow('which of its 2 CIMs?');
    expect(() => createBlockCimWriter(append)).toThrow('it has a CIM of that name');
  });

  it('comes under a temporary name, and goes when it is closed unfinished', () => {
    const directory = temporary();
    const file = join(directory, 'x.bcim');
    const options = { file, name: 'x', regionGuid: guidOf(1) };
    const writer = createBlockCimWriter(options);
    putFile(writer, 'a', 'a');
    expect(readdirSync(directory)).toEqual(['tmp-x.bcim']);
    writer.close();
    expect(readdirSync(directory)).toEqual([]);
    finishBlock(createBlockCimWriter(options), () => undefined);
    expect(existsSync(file)).toBe(false);
    publishContainer(file);
    publishContainer(file);
    expect(readdirSync(directory)).toEqual(['x.bcim']);
    rmSync(file);
    expect(() => publishContainer(file)).toThrow('neither it nor its temporary file');
  });

  it.each([
    { name: 'a/b', message: 'NUL, "/"' },
    { regionGuid: 'no', message: 'is no GUID' },
    { append: true, message: 'no such file' },
  ])('is not begun with $message', ({ message, ...wrong }) => {
    const directory = temporary();
    const file = join(directory, 'x.bcim');
    expect(() => createBlockCimWriter({ file, name: 'x', regionGuid: guidOf(1), ...wrong })).toThrow(message);
    expect(readdirSync(directory)).toEqual([]);
  });
});

describe('marks', () => {
  it('give way to files, and make directories opaque', () => {
    const path = writeBlock(temporary(), 1, (writer) => {
      writer.tombstone('file');
      putFile(writer, 'file', 'new');
      writer.tombstone('before');
      putDirectory(writer, 'before');
      putFile(writer, 'before/a', 'a');
      putDirectory(writer, 'after');
      putFile(writer, 'after/a', 'a');
      writer.tombstone('AFTER');
      writer.createFile('after', directoryMetadata({ attributes: 0x12 })).close();
      writer.createMergeLink('linked', 'x');
      writer.tombstone('linked');
      writer.createMergeLink('replaced', 'x');
      putFile(writer, 'replaced', 'file');
      putFile(writer, 'was', 'file');
      writer.createMergeLink('was', 'y/z');
      writer.createHardLink('twice', 'was');
      expect(writer.stat('was')?.mark).toEqual({ kind: 'merge-link', target: 'y/z' });
      expect(writer.stat('after')?.mark).toEqual({ kind: 'opaque' });
    });
    expect(withCim(path, listCim)).toEqual({
      file: 'new',
      before: '/opaque',
      'before/a': 'a',
      after: '/opaque',
      'after/a': 'a',
      linked: '=> x',
      replaced: 'file',
      was: '=> y/z',
      twice: '=> y/z',
    });
    expect(verifyCim(path)).toEqual([]);
  });

  it('are refused where they cannot be', () => {
    writeBlock(temporary(), 1, (writer) => {
      writer.tombstone('gone');
      writer.createMergeLink('link', 'x');
      putDirectory(writer, 'dir');
      const refused: [() => unknown, string, string][] = [
        [() => writer.tombstone(''), 'corrupt', 'the root cannot be hidden'],
        [() => writer.tombstone('no/where'), 'not-found', 'the directory no does not exist'],
        [() => writer.tombstone('gone/below'), 'corrupt', 'gone is not a directory'],
        [() => writer.createMergeLink('a', ''), 'corrupt', 'its target is the root'],
        [() => writer.createMergeLink('a', 'x//y'), 'corrupt', 'a name is empty'],
        [() => writer.createMergeLink('dir', 'x'), 'already-exists', 'exists as a directory'],
        [() => writer.createMergeLink('', 'x'), 'already-exists', 'exists as a directory'],
        [() => writer.createMergeLink('no/a', 'x'), 'not-found', 'the directory no does not exist'],
        [() => writer.createHardLink('a', 'gone'), 'not-found', 'gone does not exist'],
        [() => writer.createAlternateStream('gone', 's', 1), 'not-found', 'gone does not exist'],
        [() => writer.createAlternateStream('link', 's', 1), 'failed-precondition', 'no streams of its own'],
        [() => putDirectory(writer, 'link'), 'already-exists', 'it exists as a file'],
      ];
      for (const [action, code, message] of refused)
        expect(action).toThrow(expect.objectContaining({ code, message: expect.stringContaining(message) }));
    });
  });
});

describe('a damaged container', () => {
  it('is found out wherever a bit is flipped', () => {
    const path = writeSample(temporary());
    const file = containerOf(path);
    const bytes = readFileSync(file);
    const unseen: number[] = [];
    // Every byte of the small structures, and a stride that is prime over the rest, which is mostly the upcase table.
    for (let at = 0; at < bytes.length; at += at < 32_768 ? 61 : 509) {
      const damaged = Buffer.from(bytes);
      damaged[at]! ^= 1 << (at % 8);
      writeFileSync(file, damaged);
      if (verifyCim(path).length === 0) unseen.push(at);
    }
    expect(unseen).toEqual([]);
  });

  it('is refused when it is cut short', () => {
    const path = writeSample(temporary());
    const file = containerOf(path);
    const { length } = readFileSync(file);
    for (let size = length - 1; size > 0; size -= 9_001) {
      truncateSync(file, size);
      expect(() => withCim(path, () => undefined)).toThrow(expect.objectContaining({ code: 'corrupt' }));
      expect(verifyCim(path)).not.toEqual([]);
    }
  });
});

const canLoop = requireOrSkip('root and losetup', isRoot && hasTool('losetup'));

describe.runIf(canLoop)('a block device', () => {
  it('holds the same bytes as a file, and CIMs can be added', () => {
    const directory = temporary();
    const expected = readFileSync(containerOf(writeSample(directory)));
    const image = join(directory, 'disk');
    // Not empty before, and with an old container's remains behind the end.
    writeFileSync(image, Buffer.alloc(2 * 1024 * 1024, 0xaa));
    const device = execFileSync('losetup', ['-f', '--show', image], { encoding: 'utf8' }).trim();
    try {
      const place = { device, name: 'layer', regionGuid: guidOf(1) };
      finishBlock(createBlockCimWriter(place), (writer) => {
        putDirectory(writer, 'dir');
        putFile(writer, 'dir/large', LARGE);
        putFile(writer, 'dir/small', 'small', { attributes: FileAttribute.hidden });
        putStream(writer, 'dir/small', 'aside', 'stream');
        writer.createHardLink('dir/again', 'dir/small');
        writer.tombstone('dir/gone');
        writer.createMergeLink('dir/link', 'lower/Ä.txt');
      });
      expect(readFileSync(image).subarray(0, expected.length).equals(expected)).toBe(true);
      const path = join(device, 'layer.cim');
      expect(withCim(path, listCim)).toHaveProperty(['dir/small'], 'small');
      finishBlock(
        createBlockCimWriter({ device, name: 'second', regionGuid: guidOf(2), append: true }),
        (writer) => putFile(writer, 'b', 'b'),
      );
      expect(withCim(join(device, 'second.cim'), listCim)).toEqual({ b: 'b' });
      expect([...verifyCim(path), ...verifyCim(join(device, 'second.cim'))]).toEqual([]);
      const tooLarge = createBlockCimWriter(place);
      try {
        expect(() => {
          for (let i = 0; i < 4; i++) putFile(tooLarge, `f${i}`, patternBytes(1024 * 1024, i));
          tooLarge.finish();
        }).toThrow(expect.objectContaining({ code: 'no-space' }));
      } finally {
        tooLarge.close();
      }
      expect(() => withCim(path, () => undefined)).toThrow('not a container');
    } finally {
      execFileSync('losetup', ['-d', device]);
    }
  });
});
