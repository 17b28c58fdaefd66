/** Large hives: work that grew with the square of a list would not end here. */

import { describe, expect, it } from 'vitest';
import { mergeHives } from '../../src/hive/merge.ts';
import { createHive, type HiveKey } from '../../src/hive/model.ts';
import { readHive } from '../../src/hive/reader.ts';
import { writeHive } from '../../src/hive/writer.ts';
import { key, text, tombstone } from './fixture.ts';

const COUNT = 100_000;

function numbers<T>(make: (i: number) => T): T[] {
  return Array.from({ length: COUNT }, (_, i) => make(i));
}

describe('100,000', () => {
  it.each<[string, () => HiveKey, () => HiveKey]>([
    [
      'subkeys of one key',
      () => key('ROOT', { subkeys: numbers((i) => key(`k${i}`)) }),
      () => key('ROOT', { subkeys: numbers((i) => key(`K${i}`, { layer: i % 2 ? 'tombstone' : 'merge' })) }),
    ],
    [
      'values of one key',
      () => key('ROOT', { values: numbers((i) => text(`v${i}`, `${i}`)) }),
      () => key('ROOT', { values: numbers((i) => (i % 2 ? tombstone(`V${i}`) : text(`V${i}`, 'delta'))) }),
    ],
  ])('%s are written, read and merged', (_, makeBase, makeDelta) => {
    const base = createHive(makeBase());
    const bytes = writeHive(base);
    const read = readHive(bytes, 'large');
    expect(read.root.subkeys.length + read.root.values.length).toBe(COUNT);
    expect(writeHive(read).equals(bytes)).toBe(true);
    const { root } = mergeHives(read, readHive(writeHive(createHive(makeDelta())), 'delta'));
    expect(root.subkeys.length + root.values.length).toBe(COUNT / 2);
    expect(root.subkeys.every(({ name }) => name.startsWith('K'))).toBe(true);
    expect(root.values.every(({ name }) => name.startsWith('V'))).toBe(true);
  });
});
