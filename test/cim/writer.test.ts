import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { FileAttribute } from '../../src/cim/types.ts';
import { verifyCim } from '../../src/cim/verify.ts';
import { type CimWriter, createCimWriter } from '../../src/cim/writer.ts';
import {
  directoryMetadata,
  fileMetadata,
  GUIDS,
  patternBytes,
  putDirectory,
  putFile,
  putStream,
  readAll,
  readPath,
  temporaryDirectories,
  withReader,
  writeImage,
} from './fixture.ts';

const temporary = temporaryDirectories();

function inNewImage(use: (writer: CimWriter) => void): void {
  const directory = temporary();
  const writer = createCimWriter({ directory, name: 'x', regionGuid: GUIDS[0] });
  try {
    use(writer);
  } finally {
    writer.close();
  }
  expect(readdirSync(directory)).toEqual([]);
}

const SYMLINK = Buffer.from('0c0000a0080000000000000000000000', 'hex');
const ATTRIBUTES = Buffer.from('00000000000302006162630078790000', 'hex');
const DESCRIPTOR = Buffer.from(
  '010004800000000000000000000000001400000002000800000000000000'.slice(0, 56),
  'hex',
);

describe('CimWriter', () => {
  it('keeps all metadata', () => {
    const directory = temporary();
    const all =
      FileAttribute.readOnly |
      FileAttribute.hidden |
      FileAttribute.system |
      FileAttribute.archive |
      FileAttribute.sparse;
    writeImage(directory, 0, (writer) => {
      writer.createFile('', directoryMetadata({ lastWriteTime: 77n, attributes: 0x12 })).close();
      putFile(writer, 'file', 'x', {
        attributes: all,
        creationTime: 2n ** 64n - 1n,
        securityDescriptor: DESCRIPTOR,
        extendedAttributes: ATTRIBUTES,
        reparseData: SYMLINK,
      });
    });
    withReader(directory, 0, (reader) => {
      expect(reader.stat(reader.root)).toMatchObject({
        lastWriteTime: 77n,
        attributes: 0x12,
        isDirectory: true,
      });
      const info = reader.stat(reader.lookup('file')!);
      expect(info).toMatchObject({
        attributes: all | FileAttribute.reparsePoint,
        size: 1,
        creationTime: 2n ** 64n - 1n,
        lastWriteTime: 2n,
        changeTime: 3n,
        lastAccessTime: 4n,
        reparseTag: 0xa000000c,
        isDirectory: false,
      });
      expect(info.securityDescriptor).toEqual(DESCRIPTOR);
      expect(info.extendedAttributes).toEqual(ATTRIBUTES);
      expect(info.reparseData).toEqual(SYMLINK);
    });
    expect(verifyCim(join(directory, 'image0.cim'))).toEqual([]);
  });

  it.each([0, 1, 7, 8, 4095, 4096, 4097, 8192, 1024 * 1024, 3 * 1024 * 1024 + 1])(
    'keeps %i bytes, however they come',
    (size) => {
      const directory = temporary();
      const data = patternBytes(size, size);
      writeImage(directory, 0, (writer) => {
        putFile(writer, 'whole', data);
        const stream = writer.createFile('parts', fileMetadata(size));
        for (let done = 0; done < size; done += 70_001) stream.write(data.subarray(done, done + 70_001));
        stream.close();
        putFile(writer, 'after', 'end');
      });
      withReader(directory, 0, (reader) => {
        expect(readAll(reader, reader.lookup('whole')!).equals(data)).toBe(true);
        expect(readAll(reader, reader.lookup('parts')!).equals(data)).toBe(true);
        expect(readPath(reader, 'after')).toBe('end');
        // The second copy is the first one.
        expect(reader.extent(reader.lookup('parts')!)).toEqual(reader.extent(reader.lookup('whole')!));
        if (size >= 4096) expect(reader.extent(reader.lookup('whole')!)!.offset % 4096).toBe(0);
      });
      expect(verifyCim(join(directory, 'image0.cim'))).toEqual([]);
    },
  );

  it('keeps zeros before and within data, and only zeros as sparse', () => {
    const directory = temporary();
    const mixed = Buffer.concat([Buffer.alloc(200_000), Buffer.from('x'), Buffer.alloc(100_000)]);
    writeImage(directory, 0, (writer) => {
      const stream = writer.createFile('mixed', fileMetadata(mixed.length));
      for (let done = 0; done < mixed.length; done += 50_000)
        stream.write(mixed.subarray(done, done + 50_000));
      stream.close();
      putFile(writer, 'zeros', Buffer.alloc(100_000));
      putFile(writer, 'few zeros', Buffer.alloc(100));
    });
    withReader(directory, 0, (reader) => {
      const [mixedId, zeros, few] = ['mixed', 'zeros', 'few zeros'].map((name) => reader.lookup(name)!);
      expect(readAll(reader, mixedId!).equals(mixed)).toBe(true);
      expect([mixedId, zeros, few].map((id) => reader.isSparse(id!))).toEqual([false, true, false]);
      expect(reader.extent(zeros!)).toBeUndefined();
      expect(readAll(reader, zeros!).equals(Buffer.alloc(100_000))).toBe(true);
    });
  });

  it('replaces a file by a new one that other hard links do not see', () => {
    const directory = temporary();
    writeImage(directory, 0, (writer) => {
      putFile(writer, 'name', 'old');
      writer.createHardLink('other', 'NAME');
      putFile(writer, 'Name', 'new');
    });
    withReader(directory, 0, (reader) => {
      expect([readPath(reader, 'name'), readPath(reader, 'other')]).toEqual(['new', 'old']);
      expect([...reader.entries(reader.root)].map(({ name }) => name)).toEqual(['Name', 'other']);
    });
  });

  it('keeps the entries of a directory that comes again', () => {
    const directory = temporary();
    writeImage(directory, 0, (writer) => {
      putDirectory(writer, 'dir');
      putFile(writer, 'dir/file', 'x');
      putStream(writer, 'dir', 'side', 'y');
      writer.createFile('dir', directoryMetadata({ lastWriteTime: 99n })).close();
    });
    withReader(directory, 0, (reader) => {
      expect(readPath(reader, 'dir/file')).toBe('x');
      expect(reader.stat(reader.lookup('dir')!).lastWriteTime).toBe(99n);
      expect(reader.streams(reader.lookup('dir')!)).toEqual([]);
    });
  });

  it('keeps alternate streams of files and directories', () => {
    const directory = temporary();
    writeImage(directory, 0, (writer) => {
      putDirectory(writer, 'dir');
      putStream(writer, 'dir', 'of a directory', 'D');
      putFile(writer, 'file', '');
      putStream(writer, 'file', 'b', patternBytes(9000, 1));
      putStream(writer, 'file', 'A', 'first');
      putStream(writer, 'file', 'a', 'second');
      putStream(writer, 'file', 'zeros', Buffer.alloc(5000));
    });
    withReader(directory, 0, (reader) => {
      const file = reader.lookup('file')!;
      expect(reader.streams(file)).toEqual([
        { name: 'a', size: 6 },
        { name: 'b', size: 9000 },
        { name: 'zeros', size: 5000 },
      ]);
      expect(readAll(reader, file, 'A').toString()).toBe('second');
      expect(readAll(reader, file, 'b')).toEqual(patternBytes(9000, 1));
      expect(reader.extent(file, 'b')).toMatchObject({ region: 1, offset: 4096, length: 9000 });
      expect(reader.isSparse(file, 'zeros')).toBe(true);
      expect(readPath(reader, 'dir', 'of a directory')).toBe('D');
    });
    expect(verifyCim(join(directory, 'image0.cim'))).toEqual([]);
  });

  it('sees its own changes', () => {
    inNewImage((writer) => {
      putDirectory(writer, 'Dir');
      putFile(writer, 'Dir/b', 'abc', { securityDescriptor: DESCRIPTOR, extendedAttributes: ATTRIBUTES });
      putFile(writer, 'dir/A', '');
      const info = writer.stat('DIR/B')!;
      expect(info).toMatchObject({ size: 3, isDirectory: false });
      expect(info.securityDescriptor).toEqual(DESCRIPTOR);
      expect(info.extendedAttributes).toEqual(ATTRIBUTES);
      expect(writer.entries('dir').map(({ name }) => name)).toEqual(['A', 'b']);
      expect(writer.entries('dir/b')).toEqual([]);
      expect(writer.deletePath('dir/b')).toBe(true);
      expect(writer.deletePath('dir/b')).toBe(false);
      expect(writer.deletePath('no/such')).toBe(false);
      expect(writer.stat('dir/b')).toBeUndefined();
      expect(writer.deletePath('dir')).toBe(true);
      expect(writer.entries('')).toEqual([]);
    });
  });

  it('gives identical bytes for identical calls', () => {
    const contents = [0, 1].map(() => {
      const directory = temporary();
      for (const n of [0, 1])
        writeImage(directory, n, (writer) => {
          putDirectory(writer, `d${n}`);
          for (let i = 0; i < 50; i++) putFile(writer, `d${n}/f${i}`, patternBytes(i * 500, i * (n + 1)));
          writer.deletePath('d0/f7');
        });
      return readdirSync(directory)
        .sort()
        .map((name) => [name, readFileSync(join(directory, name)).toString('base64')]);
    });
    expect(contents[0]).toEqual(contents[1]);
    expect(contents[0]).toHaveLength(14);
  });

  it('holds 100,000 files in one directory', () => {
    const directory = temporary();
    writeImage(directory, 0, (writer) => {
      for (let i = 0; i < 100_000; i++) writer.createFile(`File ${i}.txt`, fileMetadata(0)).close();
    });
    withReader(directory, 0, (reader) => {
      expect(reader.tables).toHaveLength(98);
      expect([...reader.entries(reader.root)]).toHaveLength(100_000);
      for (let i = 0; i < 100_000; i += 997) expect(reader.lookup(`FILE ${i}.TXT`)).toBe(i + 2);
    });
  });
});

describe('CimWriter refuses', () => {
  it('names it cannot keep', () => {
    inNewImage((writer) => {
      putFile(writer, 'n'.repeat(255), '');
      for (const path of [
        'n'.repeat(256),
        'a\0b',
        'a\\b',
        '/a',
        'a/',
        'a//b',
        '.',
        '..',
        '../a',
        `${'a/'.repeat(16_384)}a`,
      ])
        expect(() => writer.createFile(path, fileMetadata(0)), path.slice(0, 20)).toThrow(
          expect.objectContaining({ code: 'corrupt' }),
        );
      expect(() => writer.createAlternateStream('', 'a/b', 0)).toThrow(
        expect.objectContaining({ code: 'corrupt' }),
      );
    });
  });

  it('metadata it cannot keep', () => {
    inNewImage((writer) => {
      for (const bad of [
        { size: -1 },
        { size: 1.5 },
        { size: 2 ** 48 },
        { lastWriteTime: -1n },
        { creationTime: 2n ** 64n },
        { securityDescriptor: Buffer.from('nonsense') },
        { securityDescriptor: Buffer.alloc(70_000, 1) },
        { extendedAttributes: Buffer.alloc(5) },
        { extendedAttributes: Buffer.alloc(65_536) },
        { reparseData: Buffer.alloc(4) },
        { reparseData: Buffer.concat([SYMLINK, Buffer.from('more')]) },
        { attributes: FileAttribute.directory, size: 1 },
      ])
        expect(() => writer.createFile('bad', fileMetadata(0, bad))).toThrow(
          expect.objectContaining({ code: 'corrupt' }),
        );
      expect(writer.stat('bad')).toBeUndefined();
    });
  });

  it('paths that do not fit what is there', () => {
    inNewImage((writer) => {
      putFile(writer, 'file', '');
      putDirectory(writer, 'dir');
      const code = (code: string) => expect.objectContaining({ code });
      expect(() => putDirectory(writer, 'file')).toThrow(code('already-exists'));
      expect(() => putFile(writer, 'dir', '')).toThrow(code('already-exists'));
      expect(() => putFile(writer, 'no/file', '')).toThrow(code('not-found'));
      expect(() => putFile(writer, 'file/file', '')).toThrow(code('corrupt'));
      expect(() => writer.createHardLink('x', 'no')).toThrow(code('not-found'));
      expect(() => writer.createHardLink('x', 'dir')).toThrow(code('corrupt'));
      expect(() => writer.createHardLink('dir', 'file')).toThrow(code('already-exists'));
      expect(() => writer.createHardLink('', 'file')).toThrow(code('already-exists'));
      expect(() => writer.createAlternateStream('no', 'x', 0)).toThrow(code('not-found'));
      expect(() => writer.deletePath('')).toThrow(code('corrupt'));
      expect(() => writer.entries('no')).toThrow(code('not-found'));
    });
  });

  it('streams that do not match their size, and two at once', () => {
    inNewImage((writer) => {
      const stream = writer.createFile('file', fileMetadata(3));
      expect(() => stream.write(Buffer.from('four'))).toThrow('more bytes than the 3 declared');
      stream.write(Buffer.from('ab'));
      expect(() => stream.close()).toThrow('2 bytes written, 3 declared');
      expect(() => writer.deletePath('file')).toThrow('the stream of file is still open');
      expect(() => writer.finish()).toThrow('still open');
      stream.write(Buffer.from('c'));
      stream.close();
      stream.close();
      expect(() => stream.write(Buffer.from('d'))).toThrow('closed');
      expect(writer.stat('file')?.size).toBe(3);
    });
  });

  it('GUIDs and names that cannot name files', () => {
    const directory = temporary();
    for (const regionGuid of ['', 'x', GUIDS[0].toUpperCase(), '../etc'])
      expect(() => createCimWriter({ directory, name: 'x', regionGuid })).toThrow('GUID');
    expect(() => createCimWriter({ directory, name: '../x', regionGuid: GUIDS[0] })).toThrow('"/"');
    expect(() =>
      createCimWriter({ directory: join(directory, 'no'), name: 'x', regionGuid: GUIDS[0] }),
    ).toThrow(expect.objectContaining({ code: 'not-found' }));
  });

  it('anything after the end', () => {
    const directory = temporary();
    let kept: CimWriter | undefined;
    writeImage(directory, 0, (writer) => {
      kept = writer;
    });
    expect(() => kept?.stat('')).toThrow('finished');
    kept?.close();
    expect(readdirSync(directory)).toHaveLength(7);
  });
});
