/**
 * The upcase table: how names of a CIM compare without case. One simple mapping per UTF-16 unit of the BMP, as NTFS
 * has it; pairs of surrogates map to themselves.
 *
 * The ranges are Unicode 17's simple upper-case mappings, generated once, so that images stay byte-identical whatever
 * Unicode version a runtime brings. As in NTFS, no letter outside ASCII becomes an ASCII one (dotless i and long s
 * stay themselves). Each word is `first[*count][/step]±delta`, first in hexadecimal: `count` units, `step` apart, each
 * moved by `delta`.
 */

import { UPCASE_LENGTH } from './format.ts';

const RANGES = `
61*26-32
b5+743 e0*23-32 f8*7-32 ff+121 101*24/2-1 133*3/2-1 13a*8/2-1 14b*23/2-1 17a*3/2-1 180+195 183*2/2-1
188-1 18c-1 192-1 195+97 199-1 19a+163 19b+42561 19e+130 1a1*3/2-1 1a8-1 1ad-1 1b0-1 1b4*2/2-1 1b9-1
1bd-1 1bf+56 1c5-1 1c6-2 1c8-1 1c9-2 1cb-1 1cc-2 1ce*8/2-1 1dd-79 1df*9/2-1 1f2-1 1f3-2 1f5-1 1f9*20/2-1
223*9/2-1 23c-1 23f*2+10815 242-1 247*5/2-1 250+10783 251+10780 252+10782 253-210 254-206 256*2-205
259-202 25b-203 25c+42319 260-205 261+42315 263-207 264+42343 265+42280 266+42308 268-209 269-211
26a+42308 26b+10743 26c+42305 26f-211 271+10749 272-213 275-214 27d+10727 280-218 282+42307 283-218
287+42282 288-218 289-69 28a*2-217 28c-71 292-219 29d+42261 29e+42258 345+84 371*2/2-1 377-1 37b*3+130
3ac-38 3ad*3-37 3b1*17-32 3c2-31 3c3*9-32 3cc-64 3cd*2-63 3d0-62 3d1-57 3d5-47 3d6-54 3d7-8 3d9*12/2-1
3f0-86 3f1-80 3f2+7 3f3-116 3f5-96 3f8-1 3fb-1 430*32-32 450*16-80 461*17/2-1 48b*27/2-1 4c2*7/2-1
4cf-15 4d1*48/2-1 561*38-48 10d0*43+3008 10fd*3+3008 13f8*6-8 1c80-6254 1c81-6253 1c82-6244 1c83*2-6242
1c85-6243 1c86-6236 1c87-6181 1c88+35266 1c8a-1 1d79+35332 1d7d+3814 1d8e+35384 1e01*75/2-1 1e9b-59
1ea1*48/2-1 1f00*8+8 1f10*6+8 1f20*8+8 1f30*8+8 1f40*6+8 1f51*4/2+8 1f60*8+8 1f70*2+74 1f72*4+86
1f76*2+100 1f78*2+128 1f7a*2+112 1f7c*2+126 1fb0*2+8 1fbe-7205 1fd0*2+8 1fe0*2+8 1fe5+7 214e-28
2170*16-16 2184-1 24d0*26-26 2c30*48-48 2c61-1 2c65-10795 2c66-10792 2c68*3/2-1 2c73-1 2c76-1
2c81*50/2-1 2cec*2/2-1 2cf3-1 2d00*38-7264 2d27-7264 2d2d-7264 a641*23/2-1 a681*14/2-1 a723*7/2-1
a733*31/2-1 a77a*2/2-1 a77f*5/2-1 a78c-1 a791*2/2-1 a794+48 a797*10/2-1 a7b5*8/2-1 a7c8*2/2-1 a7cd*8/2-1
a7f6-1 ab53-928 ab70*80-38864 ff41*26-32
`;

function buildTable(): Uint16Array {
  const table = new Uint16Array(UPCASE_LENGTH).map((_, unit) => unit);
  for (const word of RANGES.trim().split(/\s+/)) {
    const parts = /^([0-9a-f]+)(?:\*(\d+))?(?:\/(\d+))?([+-]\d+)$/.exec(word);
    if (parts === null) throw new Error(`upcase range ${word}`);
    const first = Number.parseInt(parts[1] ?? '', 16);
    const step = Number(parts[3] ?? 1);
    for (let i = 0; i < Number(parts[2] ?? 1); i++) {
      const unit = first + i * step;
      table[unit] = unit + Number(parts[4]);
    }
  }
  return table;
}

let standard: Uint16Array | undefined;

/** The table that new images get: 65,536 units. Shared; do not change it. */
export function standardUpcase(): Uint16Array {
  standard ??= buildTable();
  return standard;
}

/** The name as names are compared: every unit through the table. */
export function upcaseName(table: Uint16Array, name: string): string {
  return String.fromCharCode(...upcaseUnits(table, name));
}

/** The same as UTF-16 units, for comparing with names on disk. */
export function upcaseUnits(table: Uint16Array, name: string): Uint16Array {
  const units = new Uint16Array(name.length);
  for (let i = 0; i < units.length; i++) units[i] = table[name.charCodeAt(i)] ?? 0;
  return units;
}

export function encodeUpcase(table: Uint16Array): Buffer {
  const bytes = Buffer.alloc(UPCASE_LENGTH * 2);
  table.forEach((unit, i) => {
    bytes.writeUInt16LE(unit, i * 2);
  });
  return bytes;
}

export function decodeUpcase(bytes: Buffer): Uint16Array {
  const table = new Uint16Array(UPCASE_LENGTH);
  for (let unit = 0; unit < UPCASE_LENGTH; unit++) table[unit] = bytes.readUInt16LE(unit * 2);
  return table;
}
