/** Damaged images: whatever is wrong, there is a CimletError or a fault, soon, and never anything else. */

import { cpSync, mkdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import { inspectCim } from '../../src/cim/inspect.ts';
import { openCim } from '../../src/cim/reader.ts';
import type { FileId } from '../../src/cim/types.ts';
import { verifyCim } from '../../src/cim/verify.ts';
import { createCimWriter } from '../../src/cim/writer.ts';
import { CimletError } from '../../src/errors.ts';
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
import { HandMadeImage } from './hand-made.ts';

const temporary = temporaryDirectories();
const READ_LIMIT = 1024 * 1024;
const sound = new Map<string, Buffer>();

beforeAll(() => {
  const directory = join(temporary(), 'sound');
  mkdirSync(directory);
  writeImage(directory, 0, (writer) => {
    putDirectory(writer, 'dir');
    putFile(writer, 'dir/big', patternBytes(9000, 1), {
      reparseData: Buffer.from('0c0000a00400000074657374', 'hex'),
    });
    putFile(writer, 'small', 'small', { extendedAttributes: Buffer.from('000000000001010041004200', 'hex') });
    putStream(writer, 'small', 'side', patternBytes(5000, 2));
    putStream(writer, 'small', 'other', 'x');
    putFile(writer, 'zeros', Buffer.alloc(5000));
    for (let i = 0; i < 20; i++) putFile(writer, `dir/file${i}`, `${i}`);
  });
  writeImage(directory, 1, (writer) => {
    putFile(writer, 'dir/new', patternBytes(4096, 3));
    writer.createHardLink('link', 'small');
    writer.deletePath('dir/file3');
  });
  const hand = new HandMadeImage(80);
  const descriptor = Buffer.alloc(24 + 16);
  descriptor.writeBigUInt64LE(BigInt(hand.add(patternBytes(9000, 1))), 0);
  descriptor.writeBigUInt64LE(1000n, 8);
  descriptor.writeUInt16LE(2, 20);
  [400, 3696, 700, 7492].forEach((value, i) => {
    descriptor.writeUInt32LE(value, 24 + i * 4);
  });
  hand.write(directory, hand.addDirectory([['pe', hand.addFile(hand.add(descriptor), 1000, 2)]]));
  for (const path of [
    'image0.cim',
    'image1.cim',
    'hand.cim',
    ...[0, 1, 2].flatMap((type) =>
      [0, 1].flatMap((n) => [`region_${GUIDS[n]}_${type}`, `objectid_${GUIDS[n]}_${type}`]),
    ),
    'region_aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee_0',
  ])
    sound.set(basename(path), readFileSync(join(directory, path)));
});

/** Runs what may only fail with a CimletError. */
function survives(action: () => void): void {
  try {
    action();
  } catch (error) {
    if (!(error instanceof CimletError)) throw error;
  }
}

function readEverything(path: string): void {
  const reader = openCim(path);
  try {
    const see = (id: FileId) => {
      survives(() => reader.stat(id));
      survives(() => reader.streams(id));
      survives(() => reader.extent(id));
      if (!reader.isDirectory(id) && reader.streamSize(id) < READ_LIMIT)
        for (const _ of reader.streamChunks(id));
      for (const { name, size } of reader.streams(id))
        if (size < READ_LIMIT) for (const _ of reader.streamChunks(id, name));
    };
    survives(() => {
      for (const { id } of reader.walk()) survives(() => see(id));
    });
    for (let id = 0; id < 40; id++) survives(() => see(id));
    for (const name of ['DIR/BIG', 'small', 'pe', 'dir/file19', 'none/x'])
      survives(() => reader.lookup(name));
  } finally {
    reader.close();
  }
}

function exercise(directory: string, forked: string): void {
  for (const image of ['image0', 'image1', 'hand']) {
    const path = join(directory, `${image}.cim`);
    survives(() => inspectCim(path));
    survives(() => readEverything(path));
    expect(Array.isArray(verifyCim(path))).toBe(true);
  }
  survives(() => {
    const writer = createCimWriter({ directory, name: 'fork', regionGuid: GUIDS[3], parent: forked });
    try {
      survives(() => writer.createFile('dir/x', fileMetadata(0)).close());
      survives(() => putFile(writer, 'small', patternBytes(5000, 2)));
      survives(() => writer.deletePath('dir'));
      survives(() => writer.finish());
    } finally {
      writer.close();
    }
  });
}

const damage = fc.record({
  file: fc.nat(),
  at: fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true }),
  // Metadata is small beside the upcase table, and is where the interesting bytes are.
  early: fc.boolean(),
  value: fc.option(fc.integer({ min: 0, max: 255 }), { freq: 5 }),
  width: fc.constantFrom(1, 1, 2, 4, 8),
});

describe('a damaged image', () => {
  it('never does worse than a CimletError', () => {
    fc.assert(
      fc.property(fc.array(damage, { minLength: 1, maxLength: 4 }), (damages) => {
        const directory = temporary();
        const names = [...sound.keys()];
        for (const [name, bytes] of sound) writeFileSync(join(directory, name), bytes);
        for (const { file, at, early, value, width } of damages) {
          const path = join(directory, names[file % names.length]!);
          const bytes = readFileSync(path);
          const position = Math.floor(at * (early ? Math.min(bytes.length, 4096) : bytes.length));
          if (value === null) truncateSync(path, position);
          else writeFileSync(path, bytes.fill(value, position, Math.min(bytes.length, position + width)));
        }
        exercise(directory, ['image0', 'image1', 'hand'][damages[0]!.file % 3]!);
      }),
      { numRuns: 150 },
    );
  }, 120_000);

  it('survives every byte of its small structures being wrong', () => {
    const directory = temporary();
    for (const [name, bytes] of sound) writeFileSync(join(directory, name), bytes);
    const path = join(directory, 'hand.cim');
    const region = join(directory, 'region_aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee_0');
    const check = (file: string, skip: (position: number) => boolean) => {
      const bytes = readFileSync(file);
      for (let position = 0; position < bytes.length; position++) {
        if (skip(position)) continue;
        const changed = Buffer.from(bytes);
        changed[position] = changed[position]! ^ (position % 3 === 0 ? 0x01 : 0xff);
        writeFileSync(file, changed);
        survives(() => readEverything(path));
        expect(Array.isArray(verifyCim(path))).toBe(true);
      }
      writeFileSync(file, bytes);
    };
    check(path, () => false);
    // The pattern and the upcase table, which are not structure, are most of the region.
    const length = readFileSync(region).length;
    check(
      region,
      (position) => (position >= 100 && position < 9000) || (position > 9500 && position < length - 100),
    );
  }, 120_000);

  it('is copied without its damage', () => {
    const directory = temporary();
    const copy = join(directory, 'copy');
    mkdirSync(copy);
    for (const [name, bytes] of sound) writeFileSync(join(directory, name), bytes);
    for (const name of sound.keys()) cpSync(join(directory, name), join(copy, name));
    for (const image of ['image0.cim', 'image1.cim']) expect(verifyCim(join(copy, image))).toEqual([]);
  });
});
