import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { encodeSddl } from '../../src/layers/sddl.ts';
import { descriptorFault } from '../../src/layers/security-descriptor.ts';

function encode(text: string): string {
  const bytes = encodeSddl(text);
  if ('fault' in bytes) throw new Error(`${bytes.position}: ${bytes.fault}`);
  expect(descriptorFault(bytes)).toBeUndefined();
  return bytes.toString('hex');
}

const hex = (text: string) => text.replace(/\s/g, '');

describe('encodeSddl', () => {
  // MS-DTYP 2.5.1.4.
  it('gives the bytes of the specification', () => {
    const text =
      'O:BAG:BAD:P(A;CIOI;GRGX;;;BU)(A;CIOI;GA;;;BA)(A;CIOI;GA;;;SY)(A;CIOI;GA;;;CO)S:P(AU;FA;GR;;;WD)';
    expect(encode(text)).toBe(
      hex(`
        01 00 14 b0 90 00 00 00 a0 00 00 00 14 00 00 00
        30 00 00 00 02 00 1c 00 01 00 00 00 02 80 14 00
        00 00 00 80 01 01 00 00 00 00 00 01 00 00 00 00
        02 00 60 00 04 00 00 00 00 03 18 00 00 00 00 a0
        01 02 00 00 00 00 00 05 20 00 00 00 21 02 00 00
        00 03 18 00 00 00 00 10 01 02 00 00 00 00 00 05
        20 00 00 00 20 02 00 00 00 03 14 00 00 00 00 10
        01 01 00 00 00 00 00 05 12 00 00 00 00 03 14 00
        00 00 00 10 01 01 00 00 00 00 00 03 00 00 00 00
        01 02 00 00 00 00 00 05 20 00 00 00 20 02 00 00
        01 02 00 00 00 00 00 05 20 00 00 00 20 02 00 00`),
    );
  });

  it.each([
    ['', '0100 0080 00000000 00000000 00000000 00000000'],
    ['D:NO_ACCESS_CONTROL', '0100 0480 00000000 00000000 00000000 00000000'],
    ['D:PNO_ACCESS_CONTROL', '0100 0490 00000000 00000000 00000000 00000000'],
    ['D:', '0100 0480 00000000 00000000 00000000 14000000 0200080000000000'],
    ['S:ARAI', '0100 108a 00000000 00000000 14000000 00000000 0200080000000000'],
    ['O:SY', '0100 0080 14000000 00000000 00000000 00000000 010100000000000512000000'],
    ['G:S-1-1-0', '0100 0080 00000000 14000000 00000000 00000000 010100000000000100000000'],
    [' O:s-1-0x10000000000-0xff ', '0100 0080 14000000 00000000 00000000 00000000 0101010000000000ff000000'],
    ['D:PAI', '0100 0494 00000000 00000000 00000000 14000000 0200080000000000'],
  ])('encodes %j', (text, bytes) => expect(encode(text)).toBe(hex(bytes)));

  const ace = (text: string) => encode(text).slice(2 * 28);
  const EVERYONE = '010100000000000100000000';
  const GUID_BYTES = '7a96bfbfe60dd011a28500aa003049e2';
  it.each([
    ['D:(D;;GW;;;WD)', `0100 1400 00000040 ${EVERYONE}`],
    ['D:(A;OICINPIOID;0x1f01ff;;;WD)', `001f 1400 ff011f00 ${EVERYONE}`],
    ['D:(A;;FA;;;WD)', `0000 1400 ff011f00 ${EVERYONE}`],
    ['D:(A;;FRFX;;;WD)', `0000 1400 a9001200 ${EVERYONE}`],
    ['D:(A;;CCDCLCSWRPWPDTLOCRSDRCWDWO;;;WD)', `0000 1400 ff010f00 ${EVERYONE}`],
    ['D:(A;;1179785;;;WD)', `0000 1400 89001200 ${EVERYONE}`],
    ['D:(A;;010;;;WD)', `0000 1400 08000000 ${EVERYONE}`],
    ['D: ( A ; ci ; fr ; ; ; wd ) ', `0002 1400 89001200 ${EVERYONE}`],
    ['S:(ML;;NW;;;HI)', '1100 1400 01000000 010100000000001000300000'],
    ['S:(AU;SAFA;KR;;;WD)', `02c0 1400 19000200 ${EVERYONE}`],
    ['D:(OA;;RP;;;WD)', `0500 1800 10000000 00000000 ${EVERYONE}`],
    [
      'D:(OA;;RP;bfbf967a-0de6-11d0-a285-00aa003049e2;;WD)',
      `0500 2800 10000000 01000000 ${GUID_BYTES} ${EVERYONE}`,
    ],
    [
      'D:(OD;;RP;;bfbf967a-0de6-11d0-a285-00aa003049e2;WD)',
      `0600 2800 10000000 02000000 ${GUID_BYTES} ${EVERYONE}`,
    ],
    ['S:(TL;;RC;;;S-1-19-512-4096)', '1400 1800 00000200 010200000000001300020000 00100000'],
  ])('encodes the entry of %j', (text, bytes) => expect(ace(text)).toBe(hex(bytes)));

  it('marks lists with object entries', () => {
    expect(encode('D:(A;;GA;;;WD)').slice(40, 42)).toBe('02');
    expect(encode('D:(A;;GA;;;WD)(OA;;GA;;;WD)').slice(40, 42)).toBe('04');
  });

  it('encodes what Windows gives to files', () => {
    const text =
      'O:S-1-5-80-956008885-3418522649-1831038044-1853292631-2271478464G:SYD:PAI(A;;FA;;;SY)(A;OICIIO;GA;;;CO)(A;;0x1200a9;;;AC)S:AI(ML;;NW;;;LW)';
    expect(encode(text)).toMatch(/^0100149c/);
  });

  it.each([
    ['X:BA', 'expected O:, G:, D: or S:, found "X:"', 0],
    ['O:BAO:BA', 'O: stands twice', 4],
    ['D:(A;;GA;;;WD)D:', 'D: stands twice', 14],
    ['O:ZZ', '"ZZ" is no SID', 2],
    ['O:', '"" is no SID', 2],
    ['O:DA', 'DA stands for an account of a domain', 2],
    ['O:S-1-5-4294967296', 'is no SID', 2],
    [`O:S-1-5${'-1'.repeat(16)}`, 'is no SID', 2],
    ['O:S-2-5', 'is no SID', 2],
    ['O:__proto__', 'is no SID', 2],
    ['D:(A;;GA;;;WD', 'no closing parenthesis', 2],
    ['D:(A;;GA;;WD)', 'an entry has 6 fields, this one 5', 2],
    ['D:(A;;GA;;;WD;x)', 'an entry has 6 fields, this one 7', 2],
    ['D:(Q;;GA;;;WD)', 'unknown entry type "Q"', 3],
    ['D:(AU;;GA;;;WD)', 'an entry of type AU belongs into S:', 3],
    ['S:(A;;GA;;;WD)', 'an entry of type A belongs into D:', 3],
    ['D:(A;CIQQ;GA;;;WD)', 'unknown entry flag "QQ"', 7],
    ['D:(A;;GAG;;;WD)', 'unknown right "G"', 8],
    ['D:(A;;0x1ffffffff;;;WD)', 'are no 32-bit number', 6],
    ['D:(A;;12x;;;WD)', 'are no 32-bit number', 6],
    ['D:(OA;;GA;nonsense;;WD)', '"nonsense" is no GUID', 10],
    ['D:(A;;GA;bf967aba-0de6-11d0-a285-00aa003049e2;;WD)', 'has no object types', 9],
    ['D:(XA;;FX;;;WD;(@User.Title=="PM"))', 'conditions, claims, filters) are not supported', 3],
    ['S:NO_ACCESS_CONTROL', 'NO_ACCESS_CONTROL is for D: only', 2],
    ['D:(A;;GA;;;WD)junk', 'found "ju"', 14],
    [`D:${'(A;;GA;;;WD)'.repeat(3300)}`, 'at most 65535 fit', 2],
  ])('refuses %j', (text, fault, position) => {
    expect(encodeSddl(text)).toEqual({ fault: expect.stringContaining(fault), position });
  });

  it('makes a well-formed descriptor or names a place within the text, whatever it is given', () => {
    const piece = fc.constantFrom(
      'O:',
      'G:',
      'D:',
      'S:',
      'P',
      'AI',
      '(',
      ')',
      ';',
      'A',
      'GA',
      'WD',
      'S-1-5-18',
      '0x1',
      ' ',
      'ü',
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 40 }), (pieces) => {
        const text = pieces.join('');
        const result = encodeSddl(text);
        if ('fault' in result) expect(result.position).toBeLessThanOrEqual(text.length);
        else expect(descriptorFault(result)).toBeUndefined();
      }),
      { numRuns: 3000 },
    );
  });
});
