import fc from 'fast-check';
import { expect, test } from 'vitest';
import { parse } from 'yaml';
import { formatData } from '../../src/cli/output.ts';

const isControl = (character: string) =>
  (character < ' ' && character !== '\n') || (character >= '\u007f' && character < '\u00a0');

const read = { json: JSON.parse, yaml: (text: string) => parse(text) as unknown };

test.each(['json', 'yaml'] as const)('%s comes back as it went, and steers no terminal', (format) => {
  const text = fc.string({
    unit: fc.constantFrom('a', ' ', ':', '#', '\n', '\u001b', '\u009b', '\u202e', '"', '漢'),
  });
  fc.assert(
    fc.property(fc.dictionary(text, fc.oneof(text, fc.integer(), fc.array(text))), (data) => {
      const printed = formatData(data, format);
      expect(read[format](`${printed}\n`)).toEqual(data);
      expect([...printed].filter(isControl)).toEqual([]);
      expect(printed).not.toContain('\u202e');
    }),
  );
});

test('big numbers become decimal strings', () => {
  expect(formatData({ time: 133_000_000_000_000_000n }, 'yaml')).toBe('time: "133000000000000000"');
});
