import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createHive, createKey, createValue, type HiveKey, KeyFlag } from '../../src/hive/model.ts';
import { readHive } from '../../src/hive/reader.ts';
import { writeHive } from '../../src/hive/writer.ts';
import {
  arbitraryHive,
  collectKeys,
  descriptor,
  key,
  LAYERED,
  pattern,
  richHive,
  text,
  tombstone,
} from './fixture.ts';

/** Rows of 16 bytes with their offset, without the rows that are all zero. */
function dump(bytes: Buffer): string {
  const rows: string[] = [];
  for (let at = 0; at < bytes.length; at += 16) {
    const row = bytes.subarray(at, at + 16);
    if (row.every((byte) => byte === 0)) continue;
    const hex = row.toString('hex').replace(/(.{8})(?=.)/g, '$1 ');
    rows.push(
      `${at.toString(16).padStart(6, '0')}  ${hex}  ${row.toString('latin1').replace(/[^ -~]/g, '.')}`,
    );
  }
  return `${rows.join('\n')}\n`;
}

interface WalkedCell {
  offset: number;
  allocated: boolean;
  bytes: Buffer;
}

/** Bins and cells, decoded here by hand. */
function walkCells(bytes: Buffer): WalkedCell[] {
  const cells: WalkedCell[] = [];
  for (let bin = 4096; bin < bytes.length; bin += bytes.readUInt32LE(bin + 8)) {
    expect(bytes.toString('latin1', bin, bin + 4)).toBe('hbin');
    expect(bytes.readUInt32LE(bin + 4)).toBe(bin - 4096);
    const end = bin + bytes.readUInt32LE(bin + 8);
    expect(end % 4096).toBe(0);
    for (let cell = bin + 32; cell < end; ) {
      const size = bytes.readInt32LE(cell);
      expect(Math.abs(size) % 8).toBe(0);
      const contents = bytes.subarray(cell + 4, cell + Math.abs(size));
      cells.push({ offset: cell - 4096, allocated: size < 0, bytes: contents });
      cell += Math.abs(size);
      expect(cell).toBeLessThanOrEqual(end);
    }
  }
  return cells;
}

function signed(cells: WalkedCell[], signature: string): WalkedCell[] {
  return cells.filter(({ bytes }) => bytes.toString('latin1', 0, 2) === signature);
}

function expectRoundTrip(hive: ReturnType<typeof richHive>): void {
  const bytes = writeHive(hive);
  const again = readHive(bytes, 'again');
  expect(again).toEqual(hive);
  expect(writeHive(again).equals(bytes)).toBe(true);
}

describe('writeHive', () => {
  it('writes these bytes for a small hive', async () => {
    const hive = createHive(
      key('ROOT', {
        flags: KeyFlag.noDelete,
        subkeys: [
          key('Zoë', {
            className: 'c',
            values: [text('', 'default'), createValue('n', 4, Buffer.from([1, 2, 3, 4]))],
          }),
          key('日', { security: descriptor(544), virtualization: 0x12 }),
        ],
      }),
      { fileName: 'SMALL' },
    );
    await expect(dump(writeHive(hive))).toMatchFileSnapshot('golden/small.txt');
  });

  it('marks a hive with layered keys as version 1.6', async () => {
    const hive = createHive(
      key('ROOT', {
        subkeys: [
          key('gone', { layer: 'tombstone' }),
          key('new', { layer: 'supersede-tree', inheritsClass: true, values: [tombstone('old')] }),
        ],
      }),
    );
    await expect(dump(writeHive(hive))).toMatchFileSnapshot('golden/layered.txt');
    expect(readHive(writeHive(hive), 'layered')).toEqual(hive);
  });

  it('keeps everything that a hive can hold', () => {
    expectRoundTrip(richHive());
    expectRoundTrip(
      createHive(
        key('r', { subkeys: [key('p', { flags: KeyFlag.predefinedHandle, predefinedHandle: 0x80000050 })] }),
      ),
    );
    expectRoundTrip(createHive(createKey('without security')));
  });

  it('keeps any tree', () => {
    fc.assert(fc.property(arbitraryHive(), expectRoundTrip), { numRuns: 200 });
    fc.assert(fc.property(arbitraryHive(LAYERED), expectRoundTrip), { numRuns: 100 });
  });

  it('fills its bins with cells in use, and refers to each once', () => {
    const hive = richHive();
    const bytes = writeHive(hive);
    const cells = walkCells(bytes);
    expect(bytes.readUInt32LE(40)).toBe(bytes.length - 4096);
    expect(signed(cells, 'nk').length).toBe(collectKeys(hive.root).length);
    const free = cells
      .filter(({ allocated }) => !allocated)
      .reduce((sum, cell) => sum + cell.bytes.length, 0);
    expect(free / bytes.length).toBeLessThan(0.1);
  });

  it('shares security descriptors in a ring that counts its users', () => {
    const hive = richHive();
    const cells = signed(walkCells(writeHive(hive)), 'sk');
    const keys = collectKeys(hive.root);
    expect(cells.length).toBe(2);
    expect(cells.map(({ bytes }) => bytes.readUInt32LE(12))).toEqual([keys.length - 1, 1]);
    expect(cells.map(({ bytes }) => bytes.readUInt32LE(4))).toEqual([cells[1]!.offset, cells[0]!.offset]);
    expect(cells.map(({ bytes }) => bytes.readUInt32LE(8))).toEqual([cells[1]!.offset, cells[0]!.offset]);
  });

  it.each([
    [1, []],
    [507, []],
    [508, [507, 1]],
    [1100, [507, 507, 86]],
  ])('splits a list of %i subkeys where Windows does', (count, parts) => {
    const subkeys = Array.from({ length: count }, (_, i) => key(`k${i}`));
    const cells = walkCells(writeHive(createHive(key('ROOT', { subkeys }))));
    const leaves = signed(cells, 'lh').map(({ bytes }) => bytes.readUInt16LE(2));
    expect(leaves).toEqual(parts.length === 0 ? [count] : parts);
    expect(signed(cells, 'ri').map(({ bytes }) => bytes.readUInt16LE(2))).toEqual(
      parts.length === 0 ? [] : [parts.length],
    );
  });

  it('sorts and hashes names in upper case', () => {
    const subkeys = ['b', 'A', 'é', 'È', '_', 'a1'].map((name) => key(name));
    const bytes = writeHive(createHive(key('ROOT', { subkeys })));
    const list = signed(walkCells(bytes), 'lh')[0]!.bytes;
    const entries = Array.from({ length: 6 }, (_, i) => {
      const node = 4096 + 4 + list.readUInt32LE(4 + i * 8);
      const name = bytes.toString('latin1', node + 76, node + 76 + bytes.readUInt16LE(node + 72));
      return [name, list.readUInt32LE(8 + i * 8)];
    });
    expect(entries).toEqual([
      ['A', 65],
      ['a1', 65 * 37 + 49],
      ['b', 66],
      ['_', 95],
      ['È', 0xc8],
      ['é', 0xc9],
    ]);
  });

  it('cuts data above 16,344 bytes into segments', () => {
    const values = [16_344, 16_345, 32_689].map((size) => createValue(`${size}`, 3, pattern(size)));
    const cells = walkCells(writeHive(createHive(key('ROOT', { values }))));
    expect(signed(cells, 'db').map(({ bytes }) => bytes.readUInt16LE(2))).toEqual([2, 3]);
  });

  it.each<[string, HiveKey]>([
    ['no name', key('')],
    ['a backslash', key('a\\b')],
    ['a long name', key('n'.repeat(257))],
    ['two subkeys', key('k', { subkeys: [key('a'), key('A')] })],
    ['two values', key('k', { values: [text('a', ''), text('A', '')] })],
    ['a long value name', key('k', { values: [text('n'.repeat(16_384), '')] })],
    ['values beside a handle', key('k', { predefinedHandle: 1, values: [text('a', '')] })],
  ])('takes no key with %s', (_, subkey) => {
    expect(() => writeHive(createHive(key('ROOT', { subkeys: [subkey] })))).toThrow(/write hive/);
  });

  it('takes 512 levels and no more', () => {
    const nest = (depth: number): HiveKey =>
      Array.from({ length: depth }).reduce<HiveKey>((inner) => key('k', { subkeys: [inner] }), key('k'));
    expectRoundTrip(createHive(nest(512)));
    expect(() => writeHive(createHive(nest(513)))).toThrow(/deeper than 512/);
  });
});
