import { readdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { inspectCim } from '../../src/cim/inspect.ts';
import { openCim } from '../../src/cim/reader.ts';
import { verifyCim } from '../../src/cim/verify.ts';
import { createCimWriter } from '../../src/cim/writer.ts';
import {
  GUIDS,
  patternBytes,
  putDirectory,
  putFile,
  readAll,
  readPath,
  temporaryDirectories,
  withReader,
  writeImage,
} from './fixture.ts';
import { HAND_MADE_GUID, HandMadeImage } from './hand-made.ts';

const temporary = temporaryDirectories();

describe('CimReader', () => {
  it('refuses to walk deeper than a path can be long', () => {
    const directory = temporary();
    const image = new HandMadeImage(88);
    let id = image.addDirectory([]);
    for (let depth = 0; depth < 200; depth++) id = image.addDirectory([['d'.repeat(255), id]]);
    const reader = openCim(image.write(directory, id));
    try {
      expect(() => [...reader.walk()]).toThrow(
        expect.objectContaining({ code: 'corrupt', message: expect.stringContaining('32767') }),
      );
    } finally {
      reader.close();
    }
  });

  it('finds names whatever their case, in any script', () => {
    const directory = temporary();
    const names = [
      'Straße',
      'ДОМ',
      'İı',
      '日本',
      '\u{1f600}',
      '\ud800',
      'ﬁn',
      'a b',
      'Ǆ',
      '~',
      '_',
      'Z',
      'aa',
      'AB',
    ];
    writeImage(directory, 0, (writer) => {
      for (const name of names) putFile(writer, name, name);
    });
    withReader(directory, 0, (reader) => {
      for (const name of names) expect(reader.lookup(name)).toBeDefined();
      expect(reader.lookup('sTRAßE')).toBe(reader.lookup('Straße'));
      expect(reader.lookup('дом')).toBe(reader.lookup('ДОМ'));
      expect(reader.lookup('ǆ')).toBe(reader.lookup('Ǆ'));
      expect(reader.lookup('straSSe')).toBeUndefined();
      expect(new Set([...reader.entries(reader.root)].map(({ name }) => name))).toEqual(new Set(names));
    });
    expect(verifyCim(join(directory, 'image0.cim'))).toEqual([]);
  });

  it('looks up paths from the root', () => {
    const directory = temporary();
    writeImage(directory, 0, (writer) => {
      putDirectory(writer, 'a');
      putDirectory(writer, 'a/b');
      putFile(writer, 'a/b/c', 'x');
    });
    withReader(directory, 0, (reader) => {
      expect(reader.lookup('')).toBe(reader.root);
      expect(reader.lookup('/A//B/C')).toBe(reader.lookup('a/b/c'));
      expect(reader.lookup('a/b/c/d')).toBeUndefined();
      expect(reader.lookup('a/x/c')).toBeUndefined();
      expect([...reader.entries(reader.lookup('a/b/c')!)]).toEqual([]);
      expect([...reader.walk(reader.lookup('a')!)].map(({ path }) => path)).toEqual(['b', 'b/c']);
    });
  });

  it('reads any part of a stream', () => {
    const directory = temporary();
    const data = patternBytes(10_000, 9);
    writeImage(directory, 0, (writer) => putFile(writer, 'file', data));
    withReader(directory, 0, (reader) => {
      const id = reader.lookup('file')!;
      const buffer = Buffer.alloc(100);
      expect(reader.readStream(id, undefined, buffer, 9950)).toBe(50);
      expect(buffer.subarray(0, 50)).toEqual(data.subarray(9950));
      expect(reader.readStream(id, undefined, buffer, 10_000)).toBe(0);
      expect(reader.readStream(id, undefined, buffer, 99_999)).toBe(0);
      expect([...reader.streamChunks(id, undefined, 4096)].map(({ length }) => length)).toEqual([
        4096, 4096, 1808,
      ]);
      expect(() => reader.readStream(id, 'none', buffer, 0)).toThrow(
        expect.objectContaining({ code: 'not-found' }),
      );
      expect(() => reader.readStream(reader.root, undefined, buffer, 0)).toThrow('is a directory');
      expect(() => reader.stat(99)).toThrow('file ID 99');
      expect(() => reader.stat(0)).toThrow('file ID 0');
    });
  });

  it('reads PE images, whose bytes lie apart', () => {
    const directory = temporary();
    const image = new HandMadeImage(88);
    // 1,000 bytes of file: the first 400 at 0 of the data, then 300 from 4,096 on, then 300 from 8,192 on.
    const file = patternBytes(1000, 3);
    const data = Buffer.alloc(8492, 0xee);
    file.copy(data, 0, 0, 400);
    file.copy(data, 4096, 400, 700);
    file.copy(data, 8192, 700, 1000);
    const descriptor = Buffer.alloc(24 + 16);
    descriptor.writeBigUInt64LE(BigInt(image.add(data)), 0);
    descriptor.writeBigUInt64LE(1000n, 8);
    descriptor.writeUInt32LE(12_288, 16);
    descriptor.writeUInt16LE(2, 20);
    [400, 4096 - 400, 700, 8192 - 700].forEach((value, i) => {
      descriptor.writeUInt32LE(value, 24 + i * 4);
    });
    const id = image.addFile(image.add(descriptor), 1000, 2);
    const reader = openCim(image.write(directory, image.addDirectory([['pe.exe', id]])));
    expect(readPath(reader, 'PE.EXE')).toBe(file.toString());
    const part = Buffer.alloc(350);
    expect(reader.readStream(id, undefined, part, 390)).toBe(350);
    expect(part).toEqual(file.subarray(390, 740));
    expect(reader.extent(id)).toBeUndefined();
    expect(reader.isSparse(id)).toBe(false);
    reader.close();
    rmSync(join(directory, 'hand.cim'));
  });

  it.each([56, 64, 120])('reads file entries of %i bytes', (entrySize) => {
    const directory = temporary();
    const image = new HandMadeImage(entrySize);
    const id = image.addFile(image.add(Buffer.from('hand-made')), 9, 0);
    const path = image.write(directory, image.addDirectory([['file', id]]));
    const reader = openCim(path);
    expect(readAll(reader, reader.lookup('FILE')!).toString()).toBe('hand-made');
    expect(reader.stat(id)).toMatchObject({ creationTime: 5n, size: 9, attributes: 0, reparseTag: 0 });
    expect(reader.stat(id).securityDescriptor).toBeUndefined();
    reader.close();
    expect(verifyCim(path).map(({ message }) => message)).toEqual([
      expect.stringContaining('object ID file is missing'),
    ]);
    const fork = () => createCimWriter({ directory, name: 'fork', regionGuid: GUIDS[0], parent: 'hand' });
    if (entrySize > 88) {
      expect(fork).toThrow(expect.objectContaining({ code: 'unsupported-host' }));
      expect(readdirSync(directory).filter((name) => name.startsWith('tmp-'))).toEqual([]);
    } else {
      const writer = fork();
      putFile(writer, 'more', 'x');
      writer.finish();
    }
  });

  it('refuses names that would lead out of a directory', () => {
    for (const name of ['..', '.', 'a/b', 'a\\b', 'a\0', '']) {
      const directory = temporary();
      const image = new HandMadeImage(88);
      const root = image.addDirectory([[name, image.addFile(0, 0, 0)]]);
      const reader = openCim(image.write(directory, root));
      expect(() => [...reader.walk()], JSON.stringify(name)).toThrow(
        expect.objectContaining({ code: 'corrupt' }),
      );
      reader.close();
    }
  });

  it('ends on a cycle', () => {
    const directory = temporary();
    const image = new HandMadeImage(88);
    const root = image.addDirectory([
      ['a', 1],
      ['b', 1],
    ]);
    const reader = openCim(image.write(directory, root));
    expect(reader.lookup('a/b/a/b')).toBe(root);
    expect(() => [...reader.walk()]).toThrow('reached twice');
    reader.close();
  });
});

describe('openCim', () => {
  it.each([2, 3, 4])('refuses format version %i, whose files can still be listed', (major) => {
    const directory = temporary();
    const image = new HandMadeImage(88);
    const path = image.write(directory, image.addDirectory([]), major);
    expect(() => openCim(path)).toThrow(expect.objectContaining({ code: 'unsupported-host' }));
    const facts = inspectCim(path);
    expect(facts.version).toEqual({ major, minor: 0 });
    expect(facts.problem).toContain(`${major}.0`);
    expect(facts.files.map(({ name, size }) => [name, size])).toEqual([
      ['hand.cim', 72],
      [`region_${HAND_MADE_GUID}_0`, image.region.length],
      [`objectid_${HAND_MADE_GUID}_0`, undefined],
    ]);
  });

  it('tells a missing image from a broken one', () => {
    const directory = temporary();
    expect(() => openCim(join(directory, 'no.cim'))).toThrow(expect.objectContaining({ code: 'not-found' }));
    for (const content of ['', 'cimfile0', 'x'.repeat(100)]) {
      writeFileSync(join(directory, 'bad.cim'), content);
      expect(() => openCim(join(directory, 'bad.cim'))).toThrow(expect.objectContaining({ code: 'corrupt' }));
    }
    writeImage(directory, 0, (writer) => putFile(writer, 'file', patternBytes(9000, 1)));
    const data = join(directory, `region_${GUIDS[0]}_1`);
    truncateSync(data, 8192);
    withReader(directory, 0, (reader) =>
      expect(() => readPath(reader, 'file')).toThrow(/region_.*_1: offset 0x1000: data of file 2/),
    );
    rmSync(data);
    expect(() => openCim(join(directory, 'image0.cim'))).toThrow('the region file is missing');
    expect(inspectCim(join(directory, 'image0.cim')).problem).toContain('missing');
  });

  it('describes a sound image', () => {
    const directory = temporary();
    writeImage(directory, 0, (writer) => putFile(writer, 'file', 'x'));
    writeImage(directory, 1, () => undefined);
    const facts = inspectCim(join(directory, 'image1.cim'));
    expect(facts).toMatchObject({ regionGuid: GUIDS[1], parents: [{ guid: GUIDS[0], count: 3 }] });
    expect(facts.contents).toMatchObject({ fileIds: 2, fileTables: 1, root: 1 });
    expect(facts.contents?.regions).toHaveLength(6);
    expect(facts.files.filter(({ inherited }) => inherited)).toHaveLength(6);
  });
});
