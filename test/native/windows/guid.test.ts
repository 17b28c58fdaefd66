import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { guidText, guidValue, volumePath } from '../../../src/native/windows/guid.ts';

describe('GUIDs', () => {
  it('are read as the fields of the struct', () => {
    expect(guidValue('{EC984AEC-A0F9-47e9-901F-71415A66345B}')).toEqual({
      Data1: 0xec984aec,
      Data2: 0xa0f9,
      Data3: 0x47e9,
      Data4: Uint8Array.of(0x90, 0x1f, 0x71, 0x41, 0x5a, 0x66, 0x34, 0x5b),
    });
  });

  it('come back as they were', () => {
    fc.assert(fc.property(fc.uuid(), (text) => guidText(guidValue(text)) === text));
  });

  it('name volumes, with a backslash in the end', () => {
    expect(volumePath('EC984AEC-A0F9-47e9-901F-71415A66345B')).toBe(
      '\\\\?\\Volume{ec984aec-a0f9-47e9-901f-71415a66345b}\\',
    );
  });

  it.each(['', 'ec984aec', '..\\..\\x', 'ec984aec-a0f9-47e9-901f-71415a66345b\\..'])('%j is none', (text) => {
    expect(() => volumePath(text)).toThrow(expect.objectContaining({ code: 'failed-precondition' }));
  });
});
