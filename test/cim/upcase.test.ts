import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { decodeUpcase, encodeUpcase, standardUpcase, upcaseName } from '../../src/cim/upcase.ts';

describe('the upcase table', () => {
  it('never changes: images would', () => {
    expect(createHash('sha256').update(encodeUpcase(standardUpcase())).digest('hex')).toBe(
      '0e50ee1bb825e693ff5100ec01dc1b141d8d280af249b064ed3fd3488bff3aac',
    );
  });

  it('moves no unit twice and none outside ASCII into it', () => {
    const table = standardUpcase();
    table.forEach((upper, unit) => {
      if (table[upper] !== upper) throw new Error(`unit ${unit} maps to ${upper}, which maps on`);
      if (unit > 127 && upper < 128) throw new Error(`unit ${unit} maps into ASCII`);
    });
  });

  it('agrees with the runtime wherever both know a letter', () => {
    standardUpcase().forEach((upper, unit) => {
      const runtime = String.fromCharCode(unit).toUpperCase();
      if (upper !== unit) expect([String.fromCharCode(upper), String.fromCharCode(unit)]).toContain(runtime);
    });
  });

  it('survives encoding, and maps names unit by unit', () => {
    expect(decodeUpcase(encodeUpcase(standardUpcase()))).toEqual(standardUpcase());
    expect(upcaseName(standardUpcase(), 'straße \u{10428} éÿ')).toBe('STRAßE \u{10428} ÉŸ');
  });
});
