import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { verifyCim } from '../../src/cim/verify.ts';
import {
  GUIDS,
  patternBytes,
  putDirectory,
  putFile,
  putStream,
  temporaryDirectories,
  writeImage,
} from './fixture.ts';
import { HandMadeImage } from './hand-made.ts';

const temporary = temporaryDirectories();
const GUID = GUIDS[0];
const META = `region_${GUID}_0`;

/** Where things are in the image below, found through the published layout. */
interface Places {
  filesystem: number;
  tables: number;
  entry(id: number): number;
  rootLinks: number;
}

interface Case {
  name: string;
  file?: string;
  change(bytes: Buffer, places: Places): unknown;
  fault: string;
}

const CASES: Case[] = [
  { name: 'magic', file: 'image0.cim', change: (bytes) => bytes.fill(0, 0, 1), fault: 'not a CIM file' },
  { name: 'type', file: 'image0.cim', change: (bytes) => bytes.fill(1, 12, 13), fault: 'file type is 1' },
  {
    name: 'version',
    file: 'image0.cim',
    change: (bytes) => bytes.fill(9, 16, 17),
    fault: 'format version 9.0',
  },
  { name: 'region count', file: 'image0.cim', change: (bytes) => bytes.fill(0, 48, 50), fault: '0 regions' },
  {
    name: 'parent count',
    file: 'image0.cim',
    change: (bytes) => bytes.fill(9, 70, 71),
    fault: '9 parent region sets',
  },
  {
    name: 'filesystem',
    file: 'image0.cim',
    change: (bytes) => bytes.fill(0, 56, 64),
    fault: 'the filesystem object is missing',
  },
  { name: 'region type', change: (bytes) => bytes.fill(7, 34, 35), fault: 'region type 7' },
  { name: 'region magic', change: (bytes) => bytes.fill(7, 0, 1), fault: 'not a CIM file' },
  { name: 'region version', change: (bytes) => bytes.fill(7, 16, 17), fault: 'format version is 7.0' },
  {
    name: 'upcase place',
    change: (bytes, { filesystem }) => bytes.fill(0xff, filesystem, filesystem + 4),
    fault: 'the upcase table (131072 bytes) lies outside',
  },
  {
    name: 'root',
    change: (bytes, { filesystem }) => bytes.fill(3, filesystem + 20, filesystem + 21),
    fault: 'the root, file 3',
  },
  {
    name: 'no root',
    change: (bytes, { filesystem }) => bytes.fill(99, filesystem + 20, filesystem + 21),
    fault: 'the root, file 99',
  },
  {
    name: 'table size',
    change: (bytes, { tables }) => bytes.writeUInt16LE(2000, tables + 8),
    fault: 'declares 2000 files',
  },
  {
    name: 'entry size',
    change: (bytes, { tables }) => bytes.writeUInt16LE(0, tables + 10),
    fault: 'entries of no bytes',
  },
  {
    name: 'flags',
    change: (bytes, { entry }) => bytes.fill(0x80, entry(3), entry(3) + 1),
    fault: 'unknown flags',
  },
  {
    name: 'stream type',
    change: (bytes, { entry }) => bytes.fill(9, entry(3) + 54, entry(3) + 55),
    fault: 'unknown type 9',
  },
  {
    name: 'stream size',
    change: (bytes, { entry }) => bytes.fill(9, entry(3) + 51, entry(3) + 52),
    fault: 'data of file 3',
  },
  {
    name: 'no data',
    change: (bytes, { entry }) => bytes.fill(0, entry(3) + 40, entry(3) + 48),
    fault: 'data of file 3 is nowhere',
  },
  {
    name: 'alignment',
    change: (bytes, { entry }) => bytes.fill(8, entry(4) + 40, entry(4) + 41),
    fault: 'multiple of 4096',
  },
  {
    name: 'no region',
    change: (bytes, { entry }) => bytes.fill(9, entry(3) + 46, entry(3) + 47),
    fault: 'region 9 of 3',
  },
  {
    name: 'reparse tag',
    change: (bytes, { entry }) => bytes.fill(1, entry(3) + 4, entry(3) + 5),
    fault: 'reparse tag without',
  },
  {
    name: 'EA length',
    change: (bytes, { entry }) => bytes.fill(1, entry(3) + 2, entry(3) + 3),
    fault: 'length of extended attributes',
  },
  {
    name: 'descriptor',
    change: (bytes) => bytes.fill(9, 42, 43),
    fault: 'malformed security descriptor: its revision is 9, not 1',
  },
  {
    name: 'link count',
    change: (bytes, { rootLinks }) => bytes.fill(99, rootLinks + 4, rootLinks + 5),
    fault: 'declares 99 entries',
  },
  {
    name: 'link length',
    change: (bytes, { rootLinks }) => bytes.fill(9, rootLinks + 2, rootLinks + 3),
    fault: 'a link table declares',
  },
  {
    name: 'dangling ID',
    change: (bytes, { rootLinks }) => bytes.fill(99, rootLinks + 8, rootLinks + 9),
    fault: 'names file 99, which does not exist',
  },
  {
    name: 'cycle',
    change: (bytes, { rootLinks }) => bytes.fill(1, rootLinks + 8, rootLinks + 9),
    fault: 'directory 1 is reached twice',
  },
  {
    name: 'name place',
    change: (bytes, { rootLinks }) => bytes.fill(9, rootLinks + 21, rootLinks + 22),
    fault: 'lies outside the link table',
  },
  {
    name: 'name length',
    change: (bytes, { rootLinks }) => bytes.fill(99, rootLinks + 32, rootLinks + 33),
    fault: 'reaches beyond',
  },
  {
    name: 'name',
    change: (bytes, { rootLinks }) => bytes.fill(0x2f, rootLinks + 34, rootLinks + 35),
    fault: 'a name holds',
  },
  {
    name: 'order',
    change: (bytes, { rootLinks }) => bytes.fill(0x7a, rootLinks + 34, rootLinks + 35),
    fault: 'not sorted',
  },
  { name: 'data', file: `region_${GUID}_1`, change: (bytes) => bytes.fill(0, 5000, 5001), fault: 'digest' },
  { name: 'small data', file: `region_${GUID}_2`, change: (bytes) => bytes.fill(0, 41, 42), fault: 'digest' },
  {
    name: 'object ID count',
    file: `objectid_${GUID}_2`,
    change: (bytes) => bytes.fill(9, 44, 45),
    fault: '9 object IDs',
  },
  {
    name: 'object ID type',
    file: `objectid_${GUID}_2`,
    change: (bytes) => bytes.fill(0, 34, 35),
    fault: 'object IDs of region type 0',
  },
  {
    name: 'object ID order',
    file: `objectid_${GUID}_2`,
    change: (bytes) => bytes.fill(0xff, 56, 57),
    fault: 'out of order',
  },
  {
    name: 'object ID length',
    file: `objectid_${GUID}_2`,
    change: (bytes) => bytes.fill(0xff, 50, 51),
    fault: 'lies outside',
  },
];

function writeVictim(): { directory: string; image: string; places: Places } {
  const directory = temporary();
  writeImage(directory, 0, (writer) => {
    putDirectory(writer, 'dir');
    putFile(writer, 'file', 'small');
    putFile(writer, 'dir/big', patternBytes(5000, 1));
    putStream(writer, 'file', 'side', 'streams');
    putFile(writer, 'third', 'last');
  });
  const meta = readFileSync(join(directory, META));
  const image = join(directory, 'image0.cim');
  const filesystem = readFileSync(image).readUIntLE(56, 6);
  const tables = meta.readUIntLE(filesystem + 8, 6);
  const entry = (id: number) => meta.readUIntLE(tables, 6) + (id - 1) * 88;
  return {
    directory,
    image,
    places: { filesystem, tables, entry, rootLinks: meta.readUIntLE(entry(1) + 40, 6) },
  };
}

describe('verifyCim', () => {
  it('finds nothing wrong with a sound image', () => {
    expect(verifyCim(writeVictim().image)).toEqual([]);
  });

  it.each(CASES)('finds a wrong $name', ({ file = META, change, fault }) => {
    const { directory, image, places } = writeVictim();
    const path = join(directory, file);
    const bytes = readFileSync(path);
    change(bytes, places);
    writeFileSync(path, bytes);
    const faults = verifyCim(image);
    expect(faults.map(({ message }) => message)).toContainEqual(expect.stringContaining(fault));
    for (const { file: named, offset } of faults) {
      expect(named.startsWith(directory)).toBe(true);
      expect(offset).toBeGreaterThanOrEqual(0);
    }
  });

  it('finds missing and shortened files, each said once', () => {
    for (const file of [`region_${GUID}_1`, `objectid_${GUID}_1`]) {
      const { directory, image } = writeVictim();
      rmSync(join(directory, file));
      expect(verifyCim(image)).toEqual([
        { file: join(directory, file), offset: 0, message: expect.stringContaining('missing') },
      ]);
    }
    const { directory, image } = writeVictim();
    truncateSync(join(directory, `region_${GUID}_1`), 8192);
    expect(new Set(verifyCim(image).map(({ file }) => file))).toEqual(
      new Set([join(directory, `region_${GUID}_1`)]),
    );
  });

  it('finds faults of an ancestor', () => {
    const { directory } = writeVictim();
    writeImage(directory, 1, () => undefined);
    const path = join(directory, `region_${GUID}_1`);
    const bytes = readFileSync(path);
    bytes.fill(0, 6000, 6001);
    writeFileSync(path, bytes);
    expect(verifyCim(join(directory, 'image1.cim'))).toEqual([
      { file: path, offset: 4096, message: expect.stringContaining('digest') },
    ]);
  });

  it('finds two entries of one name, and a directory with two parents', () => {
    const directory = temporary();
    const image = new HandMadeImage(88);
    const file = image.addFile(0, 0, 0);
    const shared = image.addDirectory([['x', file]]);
    const inner = image.addDirectory([['shared', shared]]);
    const path = image.write(
      directory,
      image.addDirectory([
        ['a', file],
        ['A', file],
        ['in', inner],
        ['shared', shared],
      ]),
    );
    const messages = verifyCim(path).map(({ message }) => message);
    expect(messages).toContainEqual(expect.stringContaining('has two entries "A"'));
    expect(messages).toContainEqual(expect.stringContaining(`directory ${shared} is reached twice`));
  });

  it('finds PE images that reach outside or are out of order', () => {
    for (const [mappings, fault] of [
      [[100, 9_000_000], 'lies outside'],
      [[100, 0, 50, 0], 'out of order'],
      [[2000, 0], undefined],
    ] as [number[], string | undefined][]) {
      const directory = temporary();
      const image = new HandMadeImage(88);
      const descriptor = Buffer.alloc(24 + mappings.length * 4);
      descriptor.writeBigUInt64LE(BigInt(image.add(patternBytes(1000, 1))), 0);
      descriptor.writeBigUInt64LE(1000n, 8);
      descriptor.writeUInt16LE(mappings.length / 2, 20);
      mappings.forEach((value, i) => {
        descriptor.writeUInt32LE(value, 24 + i * 4);
      });
      const id = image.addFile(image.add(descriptor), 1000, 2);
      const path = image.write(directory, image.addDirectory([['pe', id]]));
      const messages = verifyCim(path).map(({ message }) => message);
      expect(messages.filter((message) => !message.includes('object ID'))).toEqual(
        fault === undefined ? [] : [expect.stringContaining(fault)],
      );
    }
  });

  it('refuses object IDs that would take all memory', () => {
    const { image } = writeVictim();
    const name = readdirSync(dirname(image)).find((each) => each.startsWith('objectid_'));
    const file = join(dirname(image), name!);
    truncateSync(file, 3 * 2 ** 30);
    expect(verifyCim(image)).toEqual([
      { file, offset: 2 ** 29, message: 'it has 3221225472 bytes, and at most 536870912 are accepted' },
    ]);
  });

  it('throws only for what is not an image at all', () => {
    expect(() => verifyCim(join(temporary(), 'no.cim'))).toThrow(
      expect.objectContaining({ code: 'not-found' }),
    );
  });
});

it.each([`region_${GUID}_0`, `region_${GUID}_1`, `objectid_${GUID}_1`, 'image0.cim'])(
  'a pipe in place of %s is a fault, and is not waited for',
  (file) => {
    const directory = temporary();
    writeImage(directory, 0, (writer) => putFile(writer, 'file', patternBytes(9000, 1)));
    rmSync(join(directory, file));
    execFileSync('mkfifo', [join(directory, file)]);
    expect(verifyCim(join(directory, 'image0.cim'))).toContainEqual({
      file: join(directory, file),
      offset: 0,
      message: 'it is no file',
    });
  },
);
