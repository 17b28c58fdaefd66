/**
 * Text in tars is UTF-8. Windows names may hold lone surrogates, which Go's tar writer (and ours) encodes as WTF-8:
 * each lone surrogate as if it were a code point (https://simonsapin.github.io/wtf-8/).
 */

import { isUtf8 } from 'node:buffer';

/** Decodes UTF-8 or WTF-8; undefined when the bytes are neither. */
export function decodeText(bytes: Buffer, start: number, end: number): string | undefined {
  const text = bytes.toString('utf8', start, end);
  if (!text.includes('\ufffd')) return text;
  const part = bytes.subarray(start, end);
  return isUtf8(part) ? text : decodeWtf8(part);
}

function decodeWtf8(bytes: Buffer): string | undefined {
  let text = '';
  let from = 0;
  for (let at = 0; at < bytes.length; at++) {
    if (!isSurrogateAt(bytes, at)) continue;
    const before = bytes.subarray(from, at);
    if (!isUtf8(before)) return undefined;
    const unit = 0xd000 | (((bytes[at + 1] ?? 0) & 0x3f) << 6) | ((bytes[at + 2] ?? 0) & 0x3f);
    text += before.toString('utf8') + String.fromCharCode(unit);
    at += 2;
    from = at + 1;
  }
  const rest = bytes.subarray(from);
  if (!isUtf8(rest)) return undefined;
  text += rest.toString('utf8');
  // A pair written as two surrogates has a proper UTF-8 form; accepting both would give one name two spellings.
  return encodeText(text).equals(bytes) ? text : undefined;
}

function isSurrogateAt(bytes: Buffer, at: number): boolean {
  const [first, second, third] = [bytes[at], bytes[at + 1] ?? 0, bytes[at + 2] ?? 0];
  return first === 0xed && second >= 0xa0 && second <= 0xbf && (third & 0xc0) === 0x80;
}

/** Encodes as UTF-8, lone surrogates as WTF-8. */
export function encodeText(text: string): Buffer {
  if (text.isWellFormed()) return Buffer.from(text, 'utf8');
  const parts: Buffer[] = [];
  for (const character of text) {
    const unit = character.charCodeAt(0);
    const lone = character.length === 1 && unit >= 0xd800 && unit <= 0xdfff;
    parts.push(
      lone
        ? Buffer.from([0xed, 0x80 | ((unit >> 6) & 0x3f), 0x80 | (unit & 0x3f)])
        : Buffer.from(character, 'utf8'),
    );
  }
  return Buffer.concat(parts);
}
