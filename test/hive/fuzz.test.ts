/** Damaged hives: there is a hive or a `corrupt` error, soon, and never anything else. */

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { isErrorCode } from '../../src/errors.ts';
import { mergeHives } from '../../src/hive/merge.ts';
import { createHive, createValue, type Hive } from '../../src/hive/model.ts';
import { readHive } from '../../src/hive/reader.ts';
import { writeHive } from '../../src/hive/writer.ts';
import { key, pattern, richHive, text, tombstone } from './fixture.ts';

const SOUND = createHive(
  key('ROOT', {
    className: 'root class',
    subkeys: [
      key('a', { values: [text('', 'default'), createValue('dword', 4, pattern(4)), tombstone('gone')] }),
      key('b', { layer: 'supersede-tree', subkeys: [key('c', { layer: 'tombstone' }), key('日本')] }),
      key('big', { values: [createValue('segments', 3, pattern(33_000))] }),
    ],
  }),
);

function fixChecksum(bytes: Buffer): Buffer {
  let sum = 0;
  for (let at = 0; at < 508; at += 4) sum ^= bytes.readInt32LE(at);
  bytes.writeUInt32LE(sum === 0 ? 1 : sum === -1 ? 0xfffffffe : sum >>> 0, 508);
  return bytes;
}

/** Whatever can be read can be written and merged. */
function expectHiveOrCorrupt(bytes: Buffer): void {
  let hive: Hive;
  try {
    hive = readHive(bytes, 'fuzzed');
  } catch (error) {
    expect(isErrorCode(error, 'corrupt'), String(error)).toBe(true);
    return;
  }
  const written = writeHive(hive);
  expect(writeHive(readHive(written, 'written')).equals(written)).toBe(true);
  if (hive.root.layer !== 'tombstone') writeHive(mergeHives(SOUND, hive));
}

describe('damaged hives', () => {
  it('cut anywhere are refused', () => {
    const bytes = writeHive(SOUND);
    for (let length = 0; length < bytes.length; length += length < 600 ? 1 : 97)
      expect(() => readHive(bytes.subarray(0, length), 'cut')).toThrow(/^read hive cut: /);
  });

  it('survive any single bit flipped', () => {
    const { root } = SOUND;
    const subkeys = root.subkeys.filter(({ name }) => name !== 'big');
    const bytes = writeHive({ ...SOUND, root: { ...root, subkeys } });
    for (let bit = 0; bit < 1280 * 8; bit++) {
      const at = 4096 + (bit >> 3);
      bytes.writeUInt8(bytes.readUInt8(at) ^ (1 << (bit & 7)), at);
      expectHiveOrCorrupt(bytes);
      bytes.writeUInt8(bytes.readUInt8(at) ^ (1 << (bit & 7)), at);
    }
  });

  it('survive any words written anywhere', () => {
    const sound = [writeHive(SOUND), writeHive(richHive())];
    const offset = fc.nat(0x1000).map((word) => word * 8);
    const word = fc.oneof(
      offset,
      fc.constantFrom(0, 1, 0xffff, 0xffffffff, 0x80000000, 0x7fffffff),
      fc.nat(),
    );
    const damage = fc.record({ at: fc.nat(0x3000).map((index) => index * 2), word });
    fc.assert(
      fc.property(fc.nat(1), fc.array(damage, { minLength: 1, maxLength: 6 }), (which, damages) => {
        const bytes = Buffer.from(sound[which]!);
        for (const { at, word } of damages) bytes.writeUInt32LE(word >>> 0, at);
        expectHiveOrCorrupt(fixChecksum(bytes));
      }),
      { numRuns: 400 },
    );
  });

  it('of noise behind a sound base block are refused', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 4096, maxLength: 4096 }), (noise) => {
        const bytes = Buffer.concat([writeHive(createHive(key('ROOT'))).subarray(0, 4096), noise]);
        expectHiveOrCorrupt(bytes);
      }),
      { numRuns: 50 },
    );
  });
});
