/**
 * Where the members of a tar are, from one pass over its headers; nothing is extracted.
 * Sources: POSIX.1-2024 pax ("ustar Interchange Format", "pax Interchange Format"), GNU tar manual ("Basic Tar Format").
 */

import type { FileHandle } from 'node:fs/promises';
import { CimletError } from '../errors.ts';

const BLOCK = 512;
/** An image archive has a few members a layer; far more than this is no image. */
const MOST_MEMBERS = 100_000;
/** PAX records and long names. */
const LONGEST_EXTENSION = 1 << 20;

export type TarMember =
  | { kind: 'file'; offset: number; size: number }
  /** `target` as written: relative to the link's folder for a symlink, to the root of the tar for a hard link. */
  | { kind: 'symlink' | 'hardlink'; target: string }
  | { kind: 'other' };

interface Extension {
  path?: string | undefined;
  linkpath?: string | undefined;
  size?: number | undefined;
}

/**
 * Reads the headers of the tar in `handle` (`fileSize` bytes) and returns its members by name as written; of several
 * with one name the last counts. Throws `corrupt` with the offset of what is wrong.
 */
export async function indexTar(
  handle: FileHandle,
  fileSize: number,
  name: string,
  signal: AbortSignal,
): Promise<Map<string, TarMember>> {
  const members = new Map<string, TarMember>();
  let extension: Extension = {};
  let offset = 0;
  const corrupt = (what: string) => new CimletError('corrupt', `${name}: ${what} at offset ${offset}`);

  while (offset + BLOCK <= fileSize) {
    if (signal.aborted)
      throw new CimletError('cancelled', `read ${name}: cancelled`, { cause: signal.reason });
    const header = await readAt(handle, offset, BLOCK);
    if (header.every((byte) => byte === 0)) return members;
    if (!hasValidChecksum(header)) {
      throw corrupt(offset === 0 ? 'not a tar: no valid header' : 'no valid tar header');
    }
    const type = String.fromCharCode(header[156] ?? 0);
    const isMeta = 'xgLK'.includes(type);
    const size = (isMeta ? undefined : extension.size) ?? numberField(header, 124, 12);
    if (size === undefined) throw corrupt('a size that is no number');
    const content = offset + BLOCK;
    const hasContent = !'123456'.includes(type);
    if (hasContent && content + size > fileSize) {
      throw corrupt(`a member of ${size} bytes that goes beyond the end of the file, begun`);
    }
    if (isMeta) {
      if (size > LONGEST_EXTENSION) throw corrupt(`an extended header of ${size} bytes`);
      const records = await readAt(handle, content, size);
      if (!readExtension(type, records, extension)) throw corrupt('a malformed extended header');
    } else {
      const path = extension.path ?? nameField(header);
      const target = extension.linkpath ?? textField(header, 157, 100);
      members.set(path, memberOf(type, content, size, target));
      if (members.size > MOST_MEMBERS) throw corrupt(`more than ${MOST_MEMBERS} members`);
      extension = {};
    }
    offset = content + (hasContent ? Math.ceil(size / BLOCK) * BLOCK : 0);
  }
  if (members.size === 0) throw corrupt('not a tar: no header');
  return members;
}

function memberOf(type: string, offset: number, size: number, target: string): TarMember {
  if (type === '0' || type === '\0' || type === '7') return { kind: 'file', offset, size };
  if (type === '1') return { kind: 'hardlink', target };
  if (type === '2') return { kind: 'symlink', target };
  return { kind: 'other' };
}

async function readAt(handle: FileHandle, offset: number, length: number): Promise<Buffer> {
  const buffer = Buffer.alloc(length);
  const { bytesRead } = await handle.read(buffer, 0, length, offset);
  return buffer.subarray(0, bytesRead);
}

/** The sum of all bytes, the checksum field itself counted as spaces. */
function hasValidChecksum(header: Buffer): boolean {
  if (header.length < BLOCK) return false;
  const sum = header.reduce((total, byte, at) => total + (at >= 148 && at < 156 ? 0x20 : byte), 0);
  return numberField(header, 148, 8) === sum;
}

/** Octal text, or GNU's base 256 (highest bit of the first byte set). */
function numberField(header: Buffer, at: number, length: number): number | undefined {
  if (((header[at] ?? 0) & 0x80) !== 0) {
    const digits = header.subarray(at + 1, at + length);
    const value = digits.reduce((total, byte) => total * 256 + byte, (header[at] ?? 0) & 0x7f);
    return Number.isSafeInteger(value) ? value : undefined;
  }
  const text = textField(header, at, length).trim();
  return /^[0-7]*$/.test(text) ? Number.parseInt(text || '0', 8) : undefined;
}

function textField(header: Buffer, at: number, length: number): string {
  const field = header.subarray(at, at + length);
  const end = field.indexOf(0);
  return field.toString('utf8', 0, end === -1 ? length : end);
}

function nameField(header: Buffer): string {
  const name = textField(header, 0, 100);
  const isPosix = header.toString('latin1', 257, 263) === 'ustar\0';
  const prefix = isPosix ? textField(header, 345, 155) : '';
  return prefix === '' ? name : `${prefix}/${name}`;
}

/** Adds what an `x`, `L` or `K` member says about the next one; false when it can't be read. */
function readExtension(type: string, records: Buffer, extension: Extension): boolean {
  if (type === 'L') extension.path = textField(records, 0, records.length);
  if (type === 'K') extension.linkpath = textField(records, 0, records.length);
  if (type !== 'x') return true;
  let at = 0;
  while (at < records.length) {
    const space = records.indexOf(0x20, at);
    const length = space === -1 ? 0 : Number(records.toString('latin1', at, space));
    const end = at + length;
    const equals = records.indexOf(0x3d, at);
    const isSound =
      Number.isSafeInteger(length) &&
      space < equals &&
      equals < end &&
      end <= records.length &&
      records[end - 1] === 0x0a;
    if (!isSound) return false;
    const key = records.toString('utf8', space + 1, equals);
    const value = records.toString('utf8', equals + 1, end - 1);
    if (key === 'path') extension.path = value;
    if (key === 'linkpath') extension.linkpath = value;
    if (key === 'size') {
      if (!/^\d{1,15}$/.test(value)) return false;
      extension.size = Number(value);
    }
    at = end;
  }
  return true;
}
