import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { descriptorFault } from '../../src/cim/security-descriptor.ts';
import { encodeSddl } from '../../src/layers/sddl.ts';

function encode(text: string): string {
  const bytes = encodeSddl(text);
  if ('fault' in bytes) throw new Error(`${bytes.position}: ${bytes.fault}`);
  expect(descriptorFault(bytes)).toBeUndefined();
  return bytes.toString('hex');
}

const hex = (text: string) => text.replace(/\s/g, '');
const utf16 = (text: string) => Buffer.from(text, 'utf16le').toString('hex');

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

  // What ConvertStringSecurityDescriptorToSecurityDescriptor of a Windows machine gave, as recorded in Samba's tests
  // (libcli/security/tests/windows/conditional_aces.txt.json).
  it.each([
    [
      'D:(XA;;FX;;;S-1-1-0;(@User.Title == ""))',
      `09003000a000120001010000000000010000000061727478f90a000000540069
       0074006c006500100000000080000000`,
    ],
    [
      'D:(XA;;0x1f;;;AA;(!(! (Member_of{SID(AA)}))))',
      `09003c001f000000010200000000000520000000430200006172747850150000
       0051100000000102000000000005200000004302000089a2a2000000`,
    ],
    [
      'D:(XA;;0x1f;;;AA;(@Device.colour == {"orange", "blue"}))',
      `090054001f0000000102000000000005200000004302000061727478fb0c0000
       0063006f006c006f0075007200501e000000100c0000006f00720061006e0067
       006500100800000062006c007500650080000000`,
    ],
    [
      'D:(XA;;0x1f;;;AA;(@Device.legs >= 1))',
      `090038001f0000000102000000000005200000004302000061727478fb080000
       006c00650067007300040100000000000000030285000000`,
    ],
    [
      'D:(XA;;0x1f;;;AA;(Device_Member_of{SID(AA)} || Member_of{SID(WD)}))',
      `090050001f000000010200000000000520000000430200006172747850150000
       005110000000010200000000000520000000430200008a5011000000510c0000
       0001010000000000010000000089a100`,
    ],
    [
      'D:(XA;;;;;WD;(@Device.bb == 0xfffffffff))',
      `090030000000000001010000000000010000000061727478fb04000000620062
       0004ffffffff0f000000030380000000`,
    ],
    [
      'D:(XA;;CC;;;AA;(a == @User.a))',
      `09002c00010000000102000000000005200000004302000061727478f8020000
       006100f90200000061008000`,
    ],
    [
      'D:(XA;;FR;;;S-1-1-0;(@USER.A && @Device.B || @USER.C))',
      `090030008900120001010000000000010000000061727478f9020000004100fb
       020000004200a0f9020000004300a100`,
    ],
    [
      'D:(XA;;FR;;;S-1-1-0;(@USER.A || @Device.B && @USER.C))',
      `090030008900120001010000000000010000000061727478f9020000004100fb
       020000004200f9020000004300a0a100`,
    ],
    [
      'D:(XA;;FX;;;S-1-1-0;(@User.Title=="PM" && (@User.Division=="Finance" || @User.Division =="Sales")))',
      `09008400a000120001010000000000010000000061727478f90a000000540069
       0074006c006500100400000050004d0080f91000000044006900760069007300
       69006f006e00100e000000460069006e0061006e006300650080f91000000044
       00690076006900730069006f006e00100a000000530061006c006500730080a1
       a0000000`,
    ],
    [
      'D:(XD;;FX;;;WD;(!(@USER.Project Not_Any_of 1)))',
      `0a003800a000120001010000000000010000000061727478f90e000000500072
       006f006a0065006300740004010000000000000003028fa2`,
    ],
    [
      'D:(XA;OICI;FA;;;WD;(OctetStringType==##1#2#3##))',
      `09034800ff011f0001010000000000010000000061727478f81e0000004f0063
       0074006500740053007400720069006e00670054007900700065001804000000
       0102030080000000`,
    ],
    [
      'D:(XA;;0x1ff;;;WD;(Member_of(SID(S-1-1-0))))',
      `09002c00ff01000001010000000000010000000061727478510c000000010100
       000000000100000000890000`,
    ],
    [
      'D:(XA;;0x1;;;WD;(mEMBER_of_Any{SID(AS),SID(WD)}))',
      `0900400001000000010100000000000100000000617274785022000000510c00
       0000010100000000001201000000510c0000000101000000000001000000008b`,
    ],
    [
      'D:(XA;OICI;CR;;;WD;(@USER.ad://ext/AuthenticationSilo == "siloname"))',
      `09036c000001000001010000000000010000000061727478f936000000610064
       003a002f002f006500780074002f00410075007400680065006e007400690063
       006100740069006f006e00530069006c006f001010000000730069006c006f00
       6e0061006d00650080000000`,
    ],
  ])('encodes the condition of %s as Windows does', (text, bytes) => expect(ace(text)).toBe(hex(bytes)));

  it.each([
    ['D:(XA;;FX;;;BU;(Exists WIN://SYSAPPID))', `6172 7478 f81c0000 00${utf16('WIN://SYSAPPID')} 87 0000`],
    [
      'D:(XA;;FX;;;BU;(a%0021b < -010))',
      `6172 7478 f8060000 00${utf16('a!b')} 04 f8ffffffffffffff 02 01 82 00`,
    ],
    [
      'D:(XA;;FX;;;BU;(@User.a=="(;)"))',
      `6172 7478 f9020000 00${utf16('a')} 10 06000000 ${utf16('(;)')} 80 00`,
    ],
    [
      'D:(XA;;FX;;;BU;(@User.a==0xffffffffffffffff))',
      `6172 7478 f9020000 00${utf16('a')} 04 ffffffffffffffff 03 03 80 00`,
    ],
    [
      'D:(XA;;FX;;;BU;(@User.a != {SID(WD), -9223372036854775808}))',
      `6172 7478 f9020000 00${utf16('a')} 50 1c000000 51 0c000000 ${EVERYONE} 04 0000000000000080 02 02 81 000000`,
    ],
  ])('encodes the condition of %s', (text, bytes) => expect(ace(text).slice(48)).toBe(hex(bytes)));

  it('encodes conditions on objects and of audits', () => {
    expect(ace('D:(ZA;;RP;bfbf967a-0de6-11d0-a285-00aa003049e2;;WD;(a))')).toBe(
      hex(`0b00 3400 10000000 01000000 ${GUID_BYTES} ${EVERYONE} 6172 7478 f802000000 6100 00`),
    );
    expect(encode('D:(ZA;;RP;;;WD;(a))').slice(40, 42)).toBe('04');
    expect(encode('D:(XA;;RP;;;WD;(a))').slice(40, 42)).toBe('02');
    expect(ace('S:(XU;SA;RP;;;WD; ( a ) )')).toBe(
      hex(`0d40 2000 10000000 ${EVERYONE} 6172 7478 f802000000 6100 00`),
    );
  });

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
    ['D:(A;;GA;;;WD;x)', 'expected the end of the entry, found ";x)"', 13],
    ['D:(Q;;GA;;;WD)', 'unknown entry type "Q"', 3],
    ['D:(AU;;GA;;;WD)', 'an entry of type AU belongs into S:', 3],
    ['S:(A;;GA;;;WD)', 'an entry of type A belongs into D:', 3],
    ['D:(A;CIQQ;GA;;;WD)', 'unknown entry flag "QQ"', 7],
    ['D:(A;;GAG;;;WD)', 'unknown right "G"', 8],
    ['D:(A;;0x1ffffffff;;;WD)', 'are no 32-bit number', 6],
    ['D:(A;;12x;;;WD)', 'are no 32-bit number', 6],
    ['D:(OA;;GA;nonsense;;WD)', '"nonsense" is no GUID', 10],
    ['D:(A;;GA;bf967aba-0de6-11d0-a285-00aa003049e2;;WD)', 'has no object types', 9],
    [
      'S:(RA;;;;;WD;("colour",TS,0,"blue"))',
      'entries of type RA (claims, filters) are not supported as text',
      3,
    ],
    ['D:(XA;;FX;;;WD)', 'an entry of type XA has a condition as its seventh field', 3],
    ['D:(XA;;FX;;;WD;@User.a)', 'lacks ( before "@User.a)"', 15],
    ['D:(XA;;FX;;;WD;())', 'lacks an attribute before "))"', 16],
    ['D:(XA;;FX;;;WD;(a == a))', 'lacks a value or an attribute with @ before "a))"', 21],
    ['D:(XA;;FX;;;WD;(! Member_of{SID(BA)}))', 'lacks ( before', 18],
    ['D:(XA;;FX;;;WD;(Member_of{1}))', 'lacks SID(...) before "1}))"', 26],
    ['D:(XA;;FX;;;WD;(Member_of{SID(ernie), SID(BO)}))', '"ernie" is no SID', 30],
    ['D:(XA;;FX;;;WD;(@Device.b == 0x10000000000000000))', "doesn't fit 64 bits", 29],
    ['D:(XA;;FX;;;WD;(@Device.b == 9223372036854775808))', "doesn't fit 64 bits", 29],
    ['D:(XA;;FX;;;WD;(@Device.b == "x))', 'lacks a value or an attribute', 29],
    ['D:(XA;;FX;;;WD;(@Device.b < {1}))', 'lacks a value', 28],
    ['D:(XA;;FX;;;WD;(a && ))', 'lacks an attribute before "))"', 21],
    ['D:(XA;;FX;;;WD;(a);x)', 'expected the end of the entry, found ";x)"', 18],
    ['D:(XA;;FX;;;WD;(a)', 'expected the end of the entry, found ""', 18],
    ['S:NO_ACCESS_CONTROL', 'NO_ACCESS_CONTROL is for D: only', 2],
    ['D:(A;;GA;;;WD)junk', 'found "ju"', 14],
    [`D:${'(A;;GA;;;WD)'.repeat(3300)}`, 'at most 65535 fit', 2],
  ])('refuses %j', (text, fault, position) => {
    expect(encodeSddl(text)).toEqual({ fault: expect.stringContaining(fault), position });
  });

  it('refuses conditions that no entry holds, and such as are nested without end', () => {
    expect(encodeSddl(`D:(XA;;FX;;;WD;(a == "${'x'.repeat(40_000)}"))`)).toMatchObject({
      fault: expect.stringMatching(/^the entry takes 800\d\d bytes; at most 65535 fit$/),
    });
    expect(encodeSddl(`D:(XA;;FX;;;WD;${'('.repeat(10_000)}`)).toMatchObject({
      fault: expect.stringContaining('nested too deeply'),
    });
  });

  it('says of a number without end how it begins', () => {
    expect(encodeSddl(`D:(XA;;FX;;;WD;(a == ${'9'.repeat(100_000)}))`)).toEqual({
      fault: expect.stringMatching(/^"9{60}…" doesn't fit 64 bits$/),
      position: 21,
    });
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
      'XA',
      '(XA;;GA;;;WD;(',
      '@User.a',
      ' == ',
      'Member_of',
      'SID(WD)',
      '&&',
      '!',
      '{',
      '}',
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
