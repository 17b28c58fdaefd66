import { describe, expect, it } from 'vitest';
import { parseDuration, parseSize } from '../../src/manifests/quantities.ts';
import { suggest } from '../../src/manifests/suggest.ts';

describe('durations', () => {
  it.each([
    ['0s', 0],
    ['500ms', 500],
    ['45s', 45_000],
    ['1m', 60_000],
    ['1h30m', 5_400_000],
    ['1.5h', 5_400_000],
    ['2d', 172_800_000],
    ['1d2h3m4s5ms', 93_784_005],
  ])('%s', (text, milliseconds) => {
    expect(parseDuration(text)).toBe(milliseconds);
  });

  it.each(['', '5', 's', '-1s', '1 h', '1H', '1h 30m', '1y', '1.h'])('not %j', (text) => {
    expect(() => parseDuration(text)).toThrow(`${JSON.stringify(text)} is no duration such as 1h30m`);
  });
});

describe('sizes', () => {
  it.each<[string | number, number]>([
    ['1', 1],
    ['512Mi', 536_870_912],
    ['20Gi', 21_474_836_480],
    ['3k', 3000],
    ['7T', 7e12],
    [4096, 4096],
  ])('%s', (size, bytes) => {
    expect(parseSize(size)).toBe(bytes);
  });

  it.each<[string | number]>([
    [''],
    ['0'],
    ['Gi'],
    ['1.5Gi'],
    ['1 Gi'],
    ['1gi'],
    ['9999999Ti'],
    [0],
    [-1],
    [1.5],
  ])('not %j', (size) => {
    expect(() => parseSize(size)).toThrow(`${JSON.stringify(size)} is no size such as 512Mi or 20Gi`);
  });
});

describe('suggestions', () => {
  const fields = ['chain', 'image', 'access', 'path', 'view', 'scratch', 'isolation'];
  it.each([
    ['chian', 'chain'],
    ['imge', 'image'],
    ['Access', 'access'],
    ['pth', 'path'],
    ['scratches', 'scratch'],
    ['viev', 'view'],
  ])('%s means %s', (word, meant) => {
    expect(suggest(word, fields)).toBe(meant);
  });

  it.each(['', 'x', 'volume', 'something-else-entirely'])('%j means nothing known', (word) => {
    expect(suggest(word, fields)).toBeUndefined();
  });
});
