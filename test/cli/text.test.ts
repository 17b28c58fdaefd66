import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  formatAge,
  formatBytes,
  formatDuration,
  padEnd,
  printable,
  shortenDigests,
  truncateMiddle,
  widthOf,
  wrap,
} from '../../src/cli/text.ts';

test.each([
  [0, '0 B'],
  [1023, '1023 B'],
  [1024, '1.0 KiB'],
  [12_897_485, '12.3 MiB'],
  [1024 ** 3 - 1, '1.0 GiB'],
  [5 * 1024 ** 4, '5.0 TiB'],
])('%d bytes are %s', (bytes, text) => expect(formatBytes(bytes)).toBe(text));

test.each([
  [0, '0.0 s'],
  [1234, '1.2 s'],
  [59_960, '1m 00s'],
  [185_000, '3m 05s'],
  [3_723_000, '1h 02m'],
])('%d ms are %s', (milliseconds, text) => expect(formatDuration(milliseconds)).toBe(text));

test.each([
  [-5, '0s'],
  [119_000, '119s'],
  [7_100_000, '118m'],
  [7_200_000, '2h'],
  [172_800_000, '2d'],
])('an age of %d ms is %s', (milliseconds, text) => expect(formatAge(milliseconds)).toBe(text));

describe('printable', () => {
  test('escapes what would steer a terminal', () => {
    expect(printable('a\u001b[31mb\u0007\u009bc\u007f')).toBe('a\\x1b[31mb\\x07\\x9bc\\x7f');
    expect(printable('x\u202egnp.exe\u2028')).toBe('x\\u202egnp.exe\\u2028');
  });

  test('leaves other text alone', () => expect(printable('naïve 漢字 🎉')).toBe('naïve 漢字 🎉'));

  test('lets no control character through', () => {
    const isControl = (character: string) =>
      character < ' ' || (character >= '\u007f' && character < '\u00a0');
    fc.assert(fc.property(fc.string({ unit: 'binary' }), (text) => ![...printable(text)].some(isControl)));
  });
});

test('digests are shortened to twelve digits, other words are not', () => {
  const hex = 'ab12cd34ef56'.padEnd(64, '0');
  expect(shortenDigests(`layer sha256:${hex} of sha256:ab`)).toBe('layer sha256:ab12cd34ef56 of sha256:ab');
});

test('truncateMiddle keeps both ends and the width asked for', () => {
  expect(truncateMiddle('/var/lib/cimlet/mounts/app', 15)).toBe('/var/li…nts/app');
  expect(truncateMiddle('short', 15)).toBe('short');
  fc.assert(
    fc.property(
      fc.string({ unit: fc.constantFrom('a', '漢', '🎉', '-') }),
      fc.integer({ min: 1, max: 40 }),
      (text, columns) => widthOf(truncateMiddle(text, columns)) <= columns,
    ),
  );
});

test('wide characters count two columns when padding', () => {
  expect(padEnd('漢字', 6)).toBe('漢字  ');
});

test('wrap breaks at spaces and keeps long words whole', () => {
  expect(wrap('one two three', 7)).toEqual(['one two', 'three']);
  expect(wrap('a /very/long/path/indeed b', 8)).toEqual(['a', '/very/long/path/indeed', 'b']);
});
