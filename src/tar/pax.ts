/** PAX extended header records: `<length> <keyword>=<value>\n`, the length counting the whole record. */

import { decodeText, encodeText } from './tar-text.ts';

const NANOSECONDS = 1_000_000_000n;
const SPACE = 0x20;
const EQUALS = 0x3d;
const NEWLINE = 0x0a;

/** What precedes the name of an extended attribute of Linux, whose value may be empty. */
export const XATTR_RECORD = 'SCHILY.xattr.';

/** Keywords whose value names something, where a NUL would cut the name for other readers. */
const NAMES = new Set(['path', 'linkpath', 'uname', 'gname']);

/**
 * Reads the records of one extended header into `records`; an empty value deletes its keyword, but for extended attributes.
 * Returns why the header is malformed, undefined when it is well-formed.
 */
export function readPaxRecords(
  body: Buffer,
  records: Map<string, string>,
  decode: typeof decodeText = decodeText,
): string | undefined {
  let at = 0;
  while (at < body.length) {
    let length = 0;
    let cursor = at;
    for (; cursor < body.length && body[cursor] !== SPACE; cursor++) {
      const digit = (body[cursor] ?? 0) - 0x30;
      if (digit < 0 || digit > 9 || cursor - at > 8) return `PAX record at byte ${at} has no valid length`;
      length = length * 10 + digit;
    }
    const end = at + length;
    if (cursor === at || end > body.length || end <= cursor + 1) {
      return `PAX record at byte ${at} says it is ${length} bytes long, of ${body.length - at}`;
    }
    if (body[end - 1] !== NEWLINE) return `PAX record at byte ${at} doesn't end with a newline`;
    const equals = body.indexOf(EQUALS, cursor + 1);
    if (equals <= cursor + 1 || equals >= end) return `PAX record at byte ${at} has no keyword`;
    const keyword = decode(body, cursor + 1, equals);
    const value = decode(body, equals + 1, end - 1);
    if (keyword === undefined || value === undefined) return `PAX record at byte ${at} isn't valid UTF-8`;
    if (keyword.includes('\0')) return `PAX record at byte ${at} has a NUL in its keyword`;
    if (NAMES.has(keyword) && value.includes('\0')) return `PAX record ${keyword} has a NUL in it`;
    if (value === '' && !keyword.startsWith(XATTR_RECORD)) records.delete(keyword);
    else records.set(keyword, value);
    at = end;
  }
  return undefined;
}

/** One record, ready to write. */
export function encodePaxRecord(keyword: string, value: string, encode = encodeText): Buffer {
  const text = encode(` ${keyword}=${value}\n`);
  let length = text.length + 1;
  while (String(length).length + text.length !== length) length = String(length).length + text.length;
  return Buffer.concat([Buffer.from(String(length)), text]);
}

const TIME = /^(-?)(\d{1,15})(?:\.(\d*))?$/;

/** A PAX time (seconds, decimal fraction of any length) as nanoseconds; undefined when malformed. */
export function parsePaxTime(text: string): bigint | undefined {
  const match = TIME.exec(text);
  if (match === null) return undefined;
  const [, sign, seconds = '', fraction = ''] = match;
  const time = BigInt(seconds) * NANOSECONDS + BigInt(fraction.slice(0, 9).padEnd(9, '0'));
  return sign === '-' ? -time : time;
}

/** Nanoseconds as a PAX time, without trailing zeros. */
export function formatPaxTime(time: bigint): string {
  const magnitude = time < 0n ? -time : time;
  const fraction = String(magnitude % NANOSECONDS)
    .padStart(9, '0')
    .replace(/0+$/, '');
  const sign = time < 0n ? '-' : '';
  return `${sign}${magnitude / NANOSECONDS}${fraction === '' ? '' : `.${fraction}`}`;
}
