import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { verifyCim } from '../../src/cim/verify.ts';
import { createCimWriter } from '../../src/cim/writer.ts';
import {
  directoryMetadata,
  fileMetadata,
  GUIDS,
  patternBytes,
  putDirectory,
  putFile,
  putStream,
  readPath,
  temporaryDirectories,
  withReader,
  writeImage,
} from './fixture.ts';

const temporary = temporaryDirectories();

function regionSize(directory: string, n: number, type: number): number {
  return statSync(join(directory, `region_${GUIDS[n]}_${type}`)).size;
}

function writeBase(directory: string): void {
  writeImage(directory, 0, (writer) => {
    putDirectory(writer, 'kept');
    putFile(writer, 'kept/a', 'kept a');
    putFile(writer, 'kept/big', patternBytes(20_000, 1));
    putDirectory(writer, 'changed');
    putFile(writer, 'changed/a', 'old a');
    putFile(writer, 'changed/b', 'old b');
    putDirectory(writer, 'gone');
    putDirectory(writer, 'gone/deep');
    putFile(writer, 'gone/deep/file', 'x');
    writer.createHardLink('survivor', 'gone/deep/file');
    putStream(writer, 'kept/a', 'side', 'inherited side');
  });
}

describe('a fork', () => {
  it('shows the parent with its own changes, and leaves the parent as it was', () => {
    const directory = temporary();
    writeBase(directory);
    const before = readdirSync(directory).map((name) => readFileSync(join(directory, name), 'latin1'));
    writeImage(directory, 1, (writer) => {
      expect(writer.stat('KEPT/big')).toMatchObject({ size: 20_000 });
      expect(writer.entries('changed').map(({ name }) => name)).toEqual(['a', 'b']);
      putFile(writer, 'changed/A', 'new a');
      putFile(writer, 'changed/c', 'new c');
      expect(writer.deletePath('gone')).toBe(true);
      expect(writer.stat('gone/deep/file')).toBeUndefined();
      expect(writer.stat('survivor')).toMatchObject({ size: 1 });
      writer.createHardLink('changed/link', 'kept/a');
    });
    withReader(directory, 1, (reader) => {
      expect([...reader.walk()].map(({ path }) => path)).toEqual([
        'changed',
        'changed/A',
        'changed/b',
        'changed/c',
        'changed/link',
        'kept',
        'kept/a',
        'kept/big',
        'survivor',
      ]);
      expect(readPath(reader, 'changed/a')).toBe('new a');
      expect(readPath(reader, 'changed/b')).toBe('old b');
      expect(reader.lookup('changed/link')).toBe(reader.lookup('kept/a'));
      expect(readPath(reader, 'kept/a', 'side')).toBe('inherited side');
      // The parent's region 1 holds it: regions are numbered ancestors first.
      expect(reader.extent(reader.lookup('kept/big')!)).toMatchObject({ region: 1, length: 20_000 });
    });
    withReader(directory, 0, (reader) => expect(readPath(reader, 'changed/a')).toBe('old a'));
    const after = readdirSync(directory).filter((name) => name.includes(GUIDS[0]) || name === 'image0.cim');
    expect(after.map((name) => readFileSync(join(directory, name), 'latin1'))).toEqual(before);
    for (const n of [0, 1]) expect(verifyCim(join(directory, `image${n}.cim`))).toEqual([]);
  });

  it('lists all ancestors in order, then its own regions', () => {
    const directory = temporary();
    writeBase(directory);
    for (const n of [1, 2, 3])
      writeImage(directory, n, (writer) => putFile(writer, `big${n}`, patternBytes(5000, 100 + n)));
    withReader(directory, 3, (reader) => {
      expect(reader.header.parents.map(({ guid }) => guid)).toEqual(GUIDS.slice(0, 3));
      expect(reader.regions.map(({ type }) => type)).toEqual([0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2]);
      for (const n of [1, 2, 3]) expect(reader.extent(reader.lookup(`big${n}`)!)?.region).toBe(3 * n + 1);
    });
    expect(verifyCim(join(directory, 'image3.cim'))).toEqual([]);
  });

  it('stores nothing that an ancestor has', () => {
    const directory = temporary();
    writeBase(directory);
    writeImage(directory, 1, () => undefined);
    writeImage(directory, 2, (writer) => {
      putFile(writer, 'copy', patternBytes(20_000, 1));
      const stream = writer.createFile('copy in parts', fileMetadata(20_000));
      for (let done = 0; done < 20_000; done += 1000)
        stream.write(patternBytes(20_000, 1).subarray(done, done + 1000));
      stream.close();
      putFile(writer, 'small copy', 'kept a');
    });
    withReader(directory, 2, (reader) => {
      const original = reader.extent(reader.lookup('kept/big')!);
      expect(reader.extent(reader.lookup('copy')!)).toEqual(original);
      expect(reader.extent(reader.lookup('copy in parts')!)).toEqual(original);
      expect(reader.extent(reader.lookup('small copy')!)).toEqual(reader.extent(reader.lookup('kept/a')!));
    });
    expect([regionSize(directory, 2, 1), regionSize(directory, 2, 2)]).toEqual([4096, 4096]);
  });

  it('relies on no bytes of an ancestor that are damaged', () => {
    const directory = temporary();
    writeBase(directory);
    const path = join(directory, `region_${GUIDS[0]}_1`);
    writeFileSync(path, readFileSync(path).fill(0, 5000, 5001));
    writeImage(directory, 1, (writer) => putFile(writer, 'copy', patternBytes(20_000, 1)));
    withReader(directory, 1, (reader) => {
      expect(reader.extent(reader.lookup('copy')!)?.region).toBe(4);
      expect(readPath(reader, 'copy')).toBe(patternBytes(20_000, 1).toString());
    });
  });

  it('relies on no object ID that points outside the objects', () => {
    const directory = temporary();
    writeBase(directory);
    const path = join(directory, `objectid_${GUIDS[0]}_1`);
    const ids = readFileSync(path);
    // The table's only entry: the offset of kept/big.
    ids.writeBigUInt64LE(0n, 48 + 32);
    writeFileSync(path, ids);
    writeImage(directory, 1, (writer) => putFile(writer, 'copy', patternBytes(20_000, 1)));
    withReader(directory, 1, (reader) => {
      expect(reader.extent(reader.lookup('copy')!)?.region).toBe(4);
    });
  });

  it('shares the file tables and directories it does not change', () => {
    const directory = temporary();
    writeImage(directory, 0, (writer) => {
      for (let d = 0; d < 10; d++) {
        putDirectory(writer, `d${d}`);
        for (let f = 0; f < 1000; f++) writer.createFile(`d${d}/f${f}`, fileMetadata(0)).close();
      }
    });
    writeImage(directory, 1, (writer) => putFile(writer, 'd3/new', 'x'));
    withReader(directory, 1, (reader) => {
      expect(reader.fileCount).toBe(10_012);
      expect(reader.tables.map(({ at }) => at?.region)).toEqual([0, 0, 3, 0, 0, 0, 0, 0, 0, 3]);
      expect([...reader.entries(reader.lookup('d3')!)]).toHaveLength(1001);
      expect(reader.lookup('D9/F999')).toBe(10_011);
    });
    expect(regionSize(directory, 1, 0)).toBeLessThan(regionSize(directory, 0, 0) / 4);
    expect(verifyCim(join(directory, 'image1.cim'))).toEqual([]);
  });

  it('adds to inherited streams, and drops them with their file or directory', () => {
    const directory = temporary();
    writeImage(directory, 0, (writer) => {
      putDirectory(writer, 'dir');
      putStream(writer, 'dir', 'old', '1');
      putFile(writer, 'file', 'f');
      putStream(writer, 'file', 'old', '2');
      putFile(writer, 'replaced', 'r');
      putStream(writer, 'replaced', 'old', '3');
    });
    writeImage(directory, 1, (writer) => {
      putStream(writer, 'file', 'new', '4');
      writer.createFile('dir', directoryMetadata()).close();
      putStream(writer, 'dir', 'new', '5');
      putFile(writer, 'replaced', 'r2');
      putFile(writer, 'dir/unrelated', '');
    });
    withReader(directory, 1, (reader) => {
      const names = (path: string) => reader.streams(reader.lookup(path)!).map(({ name }) => name);
      expect([names('file'), names('dir'), names('replaced')]).toEqual([['new', 'old'], ['new'], []]);
      expect(readPath(reader, 'file', 'old')).toBe('2');
    });
    expect(verifyCim(join(directory, 'image1.cim'))).toEqual([]);
  });

  it('makes files anew below a directory that was deleted', () => {
    const directory = temporary();
    writeBase(directory);
    writeImage(directory, 1, (writer) => {
      expect(writer.deletePath('kept/a/no')).toBe(false);
      putFile(writer, 'gone/deep/added', 'y');
      writer.deletePath('gone');
      putDirectory(writer, 'gone');
      putFile(writer, 'gone/fresh', 'z');
    });
    withReader(directory, 1, (reader) => {
      expect([...reader.entries(reader.lookup('gone')!)].map(({ name }) => name)).toEqual(['fresh']);
    });
    expect(verifyCim(join(directory, 'image1.cim'))).toEqual([]);
  });

  it("is refused of a missing parent, of itself, and with an ancestor's GUID", () => {
    const directory = temporary();
    writeBase(directory);
    const make = (name: string, regionGuid: string, parent: string) => () =>
      createCimWriter({ directory, name, regionGuid, parent });
    expect(make('x', GUIDS[1], 'none')).toThrow(expect.objectContaining({ code: 'not-found' }));
    expect(make('x', GUIDS[0], 'image0')).toThrow(expect.objectContaining({ code: 'failed-precondition' }));
    expect(make('image0', GUIDS[1], 'image0')).toThrow(
      expect.objectContaining({ code: 'failed-precondition' }),
    );
    expect(readdirSync(directory)).toHaveLength(7);
  });
});
