import { describe, expect, it } from 'vitest';
import { standardUpcase, upcaseName as upcaseInCim } from '../../src/cim/upcase.ts';
import { encodeName, hashName, upcaseName } from '../../src/hive/names.ts';

describe('names', () => {
  it.each([
    ['abcXYZ_09', 'ABCXYZ_09'],
    ['straße', 'STRAßE'],
    ['élan ÿ', 'ÉLAN Ÿ'],
    ['дом ωσς', 'ДОМ ΩΣΣ'],
    ['ıſ', 'ıſ'],
    ['\u{10428}\ud800', '\u{10428}\ud800'],
  ])('%s in upper case is %s', (name, upcased) => {
    expect(upcaseName(name)).toBe(upcased);
  });

  it('compare in the old scripts as file names do', () => {
    // Two Latin letters got an upper case only lately: there the runtime decides.
    const units = Array.from({ length: 0x590 }, (_, unit) => unit).filter(
      (unit) => unit !== 0x19b && unit !== 0x264,
    );
    const name = String.fromCharCode(...units);
    expect(upcaseName(name)).toBe(upcaseInCim(standardUpcase(), name));
  });

  it('hash alike whatever their case', () => {
    expect(hashName('Software')).toBe(hashName('SOFTWARE'));
    expect(hashName('é')).toBe(0xc9);
    expect(hashName('CurrentControlSet')).toBeLessThan(2 ** 32);
  });

  it.each([
    ['plain', true, '706c61696e'],
    ['é', true, 'e9'],
    ['日', false, 'e565'],
    ['aŸ', false, '61007801'],
    ['', false, ''],
  ])('%s is stored in one byte a unit: %s', (name, compressed, hex) => {
    expect(encodeName(name)).toEqual({ bytes: Buffer.from(hex, 'hex'), compressed });
  });
});
