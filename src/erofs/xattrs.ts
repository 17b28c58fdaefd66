/**
 * Extended attributes. Each is encoded once as an entry (name index, name suffix, value, padded to 4 bytes) that lies
 * either after its inode or in the image's shared area, where inodes refer to it by number. Security descriptors
 * repeat by the ten thousand, so what occurs twice is shared; so is what is long, to keep inodes close together.
 */

import { createHash } from 'node:crypto';
import { CimletError } from '../errors.ts';
import {
  alignUp,
  MAX_NAME_BYTES,
  MAX_SHARED_XATTRS,
  MAX_XATTR_AREA,
  MAX_XATTR_BYTES,
  XATTR_HEADER_SIZE,
  zeroed,
} from './format.ts';
import type { ErofsXattr } from './source.ts';

const ENTRY_HEADER_SIZE = 4;
const ENTRY_ALIGNMENT = 4;
const SHARED_ID_SIZE = 4;
const LONG_ENTRY_BYTES = 1024;
const LONGEST_LITERAL_KEY = 256;
const MAX_SHARED_AREA = ENTRY_ALIGNMENT * 2 ** 32;

const NAMESPACES: readonly (readonly [prefix: string, index: number])[] = [
  ['user.', 1],
  ['trusted.', 4],
  ['security.', 6],
];

/** One distinct attribute (name and value) of the image. */
export interface XattrEntry {
  /** Encoded size. */
  readonly bytes: number;
  uses: number;
  /** Offset in the shared area, once `placeShared` found that it belongs there. */
  sharedAt: number | undefined;
}

/** Collects the distinct attributes of all inodes, in the order in which they are first seen. */
export class XattrPool {
  readonly #entries = new Map<string, XattrEntry>();

  /** The pool's entry for an attribute; counts one more use. */
  use(xattr: ErofsXattr): XattrEntry {
    const encoded = encodeXattr(xattr);
    const key =
      encoded.length <= LONGEST_LITERAL_KEY
        ? encoded.toString('latin1')
        : createHash('sha256').update(encoded).digest('base64');
    let entry = this.#entries.get(key);
    if (entry === undefined) {
      entry = { bytes: encoded.length, uses: 0, sharedAt: undefined };
      this.#entries.set(key, entry);
    }
    entry.uses++;
    return entry;
  }

  /** Gives every entry to be shared its place, in order of first use, and forgets the keys. Returns the area's bytes. */
  placeShared(): number {
    let size = 0;
    for (const entry of this.#entries.values()) {
      if (entry.uses < 2 && entry.bytes < LONG_ENTRY_BYTES) continue;
      entry.sharedAt = size;
      size += entry.bytes;
    }
    this.#entries.clear();
    if (size > MAX_SHARED_AREA)
      throw new CimletError('corrupt', `write EROFS image: shared xattrs take ${size} bytes, over 16 GiB`);
    return size;
  }
}

/** Bytes of the attribute area behind an inode; 0 without attributes. */
export function xattrAreaSize(entries: readonly XattrEntry[]): number {
  if (entries.length === 0) return 0;
  const { shared, inline } = split(entries);
  const size = inline.reduce(
    (sum, index) => sum + (entries[index]?.bytes ?? 0),
    XATTR_HEADER_SIZE + SHARED_ID_SIZE * shared.length,
  );
  if (size > MAX_XATTR_AREA)
    throw new CimletError(
      'corrupt',
      `write EROFS inode: its ${entries.length} xattrs take ${size} bytes, over ${MAX_XATTR_AREA}`,
    );
  return size;
}

/** The attribute area: header, numbers of the shared attributes, the others whole. `xattrs[i]` is `entries[i]`'s. */
export function encodeXattrArea(entries: readonly XattrEntry[], xattrs: readonly ErofsXattr[]): Buffer {
  const { shared, inline } = split(entries);
  const header = zeroed(XATTR_HEADER_SIZE + SHARED_ID_SIZE * shared.length);
  header.writeUInt8(shared.length, 4);
  shared.forEach((offset, index) => {
    header.writeUInt32LE(offset / ENTRY_ALIGNMENT, XATTR_HEADER_SIZE + SHARED_ID_SIZE * index);
  });
  const bodies = inline.flatMap((index) => xattrs[index] ?? []).map(encodeXattr);
  return Buffer.concat([header, ...bodies]);
}

/** Which of an inode's attributes it refers to in the shared area (their offsets) and which it holds (their indexes). */
function split(entries: readonly XattrEntry[]): { shared: number[]; inline: number[] } {
  const shared: number[] = [];
  const inline: number[] = [];
  for (const [index, { sharedAt }] of entries.entries()) {
    if (sharedAt !== undefined && shared.length < MAX_SHARED_XATTRS) shared.push(sharedAt);
    else inline.push(index);
  }
  return { shared, inline };
}

/** An attribute as the shared area and the inodes hold it. Throws `corrupt` for what EROFS can't hold. */
export function encodeXattr({ name, value }: ErofsXattr): Buffer {
  const namespace = NAMESPACES.find(([prefix]) => name.startsWith(prefix));
  if (namespace === undefined)
    throw badXattr(name, 'its name begins with none of user., trusted., security.');
  const [prefix, index] = namespace;
  const suffix = Buffer.from(name.slice(prefix.length));
  if (suffix.length === 0 || prefix.length + suffix.length > MAX_NAME_BYTES || suffix.includes(0))
    throw badXattr(name, `its name is empty, over ${MAX_NAME_BYTES} bytes or contains NUL`);
  if (value.length > MAX_XATTR_BYTES)
    throw badXattr(name, `its value has ${value.length} bytes, over ${MAX_XATTR_BYTES}`);
  const used = ENTRY_HEADER_SIZE + suffix.length + value.length;
  const entry = zeroed(alignUp(used, ENTRY_ALIGNMENT));
  entry.writeUInt8(suffix.length, 0);
  entry.writeUInt8(index, 1);
  entry.writeUInt16LE(value.length, 2);
  entry.set(suffix, ENTRY_HEADER_SIZE);
  entry.set(value, ENTRY_HEADER_SIZE + suffix.length);
  return entry;
}

function badXattr(name: string, why: string): CimletError {
  return new CimletError('corrupt', `write EROFS xattr ${JSON.stringify(name)}: ${why}`);
}
