/** Hives to test with: one that has everything, and arbitrary ones. */

import fc from 'fast-check';
import {
  createHive,
  createKey,
  createValue,
  type Hive,
  type HiveKey,
  type HiveValue,
  KeyFlag,
  type LayerSemantics,
  ValueType,
} from '../../src/hive/model.ts';
import { upcaseName } from '../../src/hive/names.ts';

export const TIME = 133_000_000_000_000_000n;

/** Owner and group SYSTEM, full access for the account whose relative ID is given. */
export function descriptor(relativeId = 18): Buffer {
  const bytes = Buffer.from(
    '0100048014000000200000000000000000000000' +
      '010100000000000512000000'.repeat(2) +
      '02001c000100000000001400ff011f00010100000000000512000000',
    'hex',
  );
  bytes.writeUInt32LE(44, 16);
  bytes.writeUInt32LE(relativeId, bytes.length - 4);
  return bytes;
}

export function key(name: string, fields: Partial<Omit<HiveKey, 'name'>> = {}): HiveKey {
  return createKey(name, { timestamp: TIME, security: descriptor(), ...fields });
}

export function text(name: string, value: string): HiveValue {
  return createValue(name, ValueType.string, Buffer.from(`${value}\0`, 'utf16le'));
}

export function tombstone(name: string): HiveValue {
  return { ...createValue(name, ValueType.none, Buffer.alloc(0)), tombstone: true };
}

/** Data that differ by size and position. */
export function pattern(size: number): Buffer {
  return Buffer.from(Uint8Array.from({ length: size }, (_, i) => (i * 7 + (i >> 8) + size) & 0xff));
}

/** Every feature of the format that other readers understand too. */
export function richHive(): Hive {
  const sizes = [0, 1, 2, 3, 4, 5, 8, 1000, 16_344, 16_345, 32_688, 32_689, 100_000];
  return createHive(
    key('ROOT', {
      flags: KeyFlag.noDelete,
      subkeys: [
        key('Types', {
          values: Object.entries(ValueType).map(([name, type]) => createValue(name, type, pattern(8))),
        }),
        key('Sizes', { values: sizes.map((size) => createValue(`size ${size}`, 3, pattern(size))) }),
        key('Names', {
          values: [
            text('', 'the default'),
            text('é', 'Latin-1'),
            text('日本', 'UTF-16'),
            text('x'.repeat(300), 'long'),
          ],
          subkeys: ['Ünïcode', 'ΑΒΓ', 'кириллица', '\u{1f600}', 'with space', 'n'.repeat(255)].map((name) =>
            key(name),
          ),
        }),
        key('Class', { className: 'the class, é 日', security: descriptor(544) }),
        key('Link', {
          flags: KeyFlag.symbolicLink,
          values: [createValue('SymbolicLinkValue', ValueType.link, Buffer.from('\\Registry\\X', 'utf16le'))],
        }),
        key('Virtual', { virtualization: 0x2a, timestamp: 1n }),
        key('Many', { subkeys: Array.from({ length: 1100 }, (_, i) => key(`Sub${i}`)) }),
        ['a', 'b', 'c', 'd', 'e', 'f'].reduceRight(
          (inner, name) => key(name, { subkeys: [inner] }),
          key('deepest', { values: [text('found', 'yes')] }),
        ),
      ],
    }),
    { fileName: '\\SystemRoot\\Config\\SYSTEM' },
  );
}

export interface TreeOptions {
  names: fc.Arbitrary<string>;
  /** Absent: nothing is layered. */
  layers?: fc.Arbitrary<LayerSemantics>;
}

const PLAIN: TreeOptions = {
  names: fc.constantFrom('a', 'A', 'b', 'B', 'Key', 'é', 'É', 'ß', 'ж', '日', '\ud800', '\u{1f600}', 'c d'),
};

export const LAYERED: TreeOptions = {
  names: fc.constantFrom('a', 'A', 'b', 'B', 'é', 'É'),
  layers: fc.constantFrom('merge', 'merge', 'merge', 'tombstone', 'supersede-local', 'supersede-tree'),
};

/** Any hive with few names, so that two of them have keys in common. */
export function arbitraryHive({ names, layers }: TreeOptions = PLAIN): fc.Arbitrary<Hive> {
  const layered = layers !== undefined;
  const unique = { selector: (item: { name: string }) => upcaseName(item.name), maxLength: 4 };
  const value = fc.record({
    name: fc.oneof(names, fc.constant('')),
    type: fc.oneof(fc.nat(12), fc.constantFrom(0xffff0000, 0xffffffff)),
    data: fc.constantFrom(0, 1, 3, 4, 5, 12, 300, 16_344, 16_345, 40_000).map(pattern),
    tombstone: fc.constant(false),
  });
  const values = fc.uniqueArray(layered ? fc.oneof(value, names.map(tombstone)) : value, unique);
  const security = fc.constantFrom(descriptor(18), descriptor(544), Buffer.from('any bytes'));
  const { tree } = fc.letrec<{ tree: HiveKey }>((tie) => ({
    tree: fc
      .record({
        name: names,
        className: fc.option(fc.constantFrom('class', 'é日'), { nil: undefined }),
        timestamp: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
        security,
        flags: fc.constantFrom(0, KeyFlag.noDelete, KeyFlag.symbolicLink, 0x1280),
        virtualization: fc.nat(0xffff),
        layer: layers ?? fc.constant('merge' as const),
        inheritsClass: layered ? fc.boolean() : fc.constant(false),
        values,
        subkeys: fc.oneof(
          { depthSize: 'small', withCrossShrink: true },
          fc.constant([]),
          fc.uniqueArray(tie('tree'), unique),
        ),
      })
      .map(({ name, ...fields }) => createKey(name, fields)),
  }));
  return fc
    .record({ root: tree, timestamp: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), fileName: names })
    .map(({ root, ...fields }) => createHive({ ...root, layer: 'merge' }, fields));
}

export function collectKeys(root: HiveKey): HiveKey[] {
  return [root, ...root.subkeys.flatMap(collectKeys)];
}
