import fc from 'fast-check';
import { expect, it } from 'vitest';
import { isPlainName, viewNames } from '../../../src/hosts/embedded/view-name.ts';
import { encodeText } from '../../../src/tar/tar-text.ts';

it.each([
  ['plain.txt', true],
  ['ü'.repeat(127), true],
  ['ü'.repeat(128), false],
  ['x'.repeat(255), true],
  ['lone \ud800 surrogate', false],
  ['pair \u{1f600}', true],
  ['.', false],
  ['..', false],
  ['a/b', false],
  ['nul\0', false],
])('%j can be shown as it is: %s', (name, plain) => {
  expect(isPlainName(name)).toBe(plain);
});

it('encodes lone surrogates as WTF-8 and everything else as UTF-8', () => {
  expect(encodeText('a\ud800b').toString('hex')).toBe('61eda08062');
  expect(encodeText('\udfff').toString('hex')).toBe('edbfbf');
  expect(encodeText('\u{1f600}é').toString()).toBe('\u{1f600}é');
});

it('gives a name its own even when that is taken', () => {
  const long = 'y'.repeat(300);
  const [derived = ''] = viewNames([long]);
  expect(derived).toMatch(/^y{200}~[0-9a-f]{16}$/);
  expect(viewNames([derived, long])).toEqual([derived, `${derived}~1`]);
});

it('always yields distinct names that Linux takes', () => {
  const name = fc
    .string({ unit: 'binary', minLength: 1, maxLength: 255 })
    .map((text) => `${text}\ud800`.slice(-255));
  const names = fc.uniqueArray(fc.oneof(fc.string({ minLength: 1, maxLength: 255 }), name), {
    maxLength: 20,
  });
  fc.assert(
    fc.property(names, (given) => {
      const shown = viewNames(given);
      expect(new Set(shown).size).toBe(given.length);
      for (const each of shown) expect(isPlainName(each)).toBe(true);
      expect(viewNames(given)).toEqual(shown);
    }),
  );
});
