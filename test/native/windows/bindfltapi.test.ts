import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CimletError } from '../../../src/errors.ts';
import { type BindMapping, decodeMappings } from '../../../src/native/windows/bindfltapi.ts';

/** An answer as go-winio reads it: a header, the mappings, their targets, then the names. */
function encode(mappings: readonly BindMapping[]): Buffer {
  const targets = mappings.flatMap((mapping) => mapping.targets);
  const names = [...mappings.map(({ root }) => root), ...targets].map((name) => Buffer.from(name, 'utf16le'));
  const entriesAt = 12 + mappings.length * 20;
  let at = entriesAt + targets.length * 8;
  const places = names.map(({ length }) => {
    at += length;
    return { length, offset: at - length };
  });
  const numbers = [at, 0, mappings.length];
  let entry = entriesAt;
  mappings.forEach((mapping, index) => {
    const { length, offset } = places[index] ?? { length: 0, offset: 0 };
    numbers.push(length, offset, mapping.flags, mapping.targets.length, entry);
    entry += mapping.targets.length * 8;
  });
  for (const { length, offset } of places.slice(mappings.length)) numbers.push(length, offset);
  return Buffer.concat([Buffer.from(Uint32Array.from(numbers).buffer), ...names]);
}

const path = fc.string({ unit: 'binary' }).filter((text) => !text.includes('\0') && text.isWellFormed());
const mapping = fc.record({
  root: path,
  flags: fc.nat(),
  targets: fc.array(path, { maxLength: 3 }),
});

describe('the answer of BfGetMappings', () => {
  it('gives roots, flags and targets', () => {
    const property = fc.property(fc.array(mapping, { maxLength: 5 }), (mappings) => {
      expect(decodeMappings(encode(mappings), 'list')).toEqual(mappings);
    });
    fc.assert(property);
  });

  it('is refused when it points outside of itself', () => {
    const whole = encode([{ root: '\\Device\\x', flags: 1, targets: ['\\Device\\y'] }]);
    for (let length = 0; length < whole.length; length++)
      expect(() => decodeMappings(whole.subarray(0, length), 'list bindings')).toThrow(
        expect.objectContaining({ code: 'corrupt' }),
      );
  });

  it('of any bytes is mappings or an error', () => {
    const property = fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      try {
        expect(decodeMappings(Buffer.from(bytes), 'list').length).toBeLessThanOrEqual(200);
      } catch (error) {
        expect(error).toBeInstanceOf(CimletError);
      }
    });
    fc.assert(property);
  });
});
