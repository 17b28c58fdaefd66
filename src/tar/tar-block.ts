/** Reading the fixed fields of a tar's 512-byte header blocks. */

import { BLOCK } from './tar-format.ts';

/** Sum of a block of zeros: the checksum field counts as eight spaces. */
const ZERO_BLOCK_SUM = 8 * 0x20;

export interface Checksum {
  unsigned: number;
  signed: number;
}

/** Sums a header block that starts at `base`. Old tars summed signed bytes; both sums are accepted. */
export function checksum(block: Buffer, base: number): Checksum {
  let sum = 0;
  let high = 0;
  for (let at = base; at < base + BLOCK; at++) {
    const byte = block[at] as number;
    sum += byte;
    high += byte >> 7;
  }
  for (let at = base + 148; at < base + 156; at++) {
    const byte = block[at] as number;
    sum += 0x20 - byte;
    high -= byte >> 7;
  }
  return { unsigned: sum, signed: sum - 256 * high };
}

/** True for a block of zeros, of which two end an archive. */
export function isZeroBlock(block: Buffer, base: number, sum: Checksum): boolean {
  if (sum.unsigned !== ZERO_BLOCK_SUM) return false;
  for (let at = base; at < base + BLOCK; at++) if (block[at] !== 0) return false;
  return true;
}

/** Reads a numeric field; undefined when malformed. Octal digits between spaces or NULs, or GNU's base-256 (first bit set, two's complement). */
export function readNumber(
  block: Buffer,
  base: number,
  [at, length]: readonly [number, number],
): number | undefined {
  const start = base + at;
  const end = start + length;
  const first = block[start] ?? 0;
  if ((first & 0x80) !== 0) {
    let value = (first & 0x40) !== 0 ? (first & 0x7f) - 0x80 : first & 0x7f;
    for (let cursor = start + 1; cursor < end; cursor++) value = value * 256 + (block[cursor] ?? 0);
    return Number.isSafeInteger(value) ? value : undefined;
  }
  let value = 0;
  let cursor = start;
  while (cursor < end && (block[cursor] === 0x20 || block[cursor] === 0)) cursor++;
  for (; cursor < end; cursor++) {
    const digit = (block[cursor] ?? 0) - 0x30;
    if (digit < 0 || digit > 7) break;
    value = value * 8 + digit;
  }
  for (; cursor < end; cursor++) if (block[cursor] !== 0x20 && block[cursor] !== 0) return undefined;
  return value;
}
