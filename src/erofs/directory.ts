/**
 * Directory blocks: in each, its entries (sorted by name bytes over the whole directory), then their names. The first
 * entry's name offset tells how many entries there are; a name ends where the next begins.
 */

import { CimletError } from '../errors.ts';
import { BLOCK_SIZE, DIRENT_SIZE, FileType, MAX_NAME_BYTES, zeroed } from './format.ts';
import type { ErofsEntry } from './source.ts';

/** One entry; its name holds one byte per UTF-16 unit (latin1), so that string order is byte order. */
export interface Child {
  name: string;
  key: number;
}

/** What an entry points to. */
export interface DirentTarget {
  nid: number;
  type: keyof typeof FileType;
}

export interface DirectoryKeys {
  self: number;
  parent: number;
}

/**
 * A directory's entries in byte order, `.` and `..` among them. Throws `corrupt` for a name that can't be in a
 * directory or is there twice.
 */
export function sortEntries(entries: Iterable<ErofsEntry>, keys: DirectoryKeys): Child[] {
  const children: Child[] = [
    { name: '.', key: keys.self },
    { name: '..', key: keys.parent },
  ];
  for (const { name, key } of entries) children.push({ name: checkedName(name), key });
  children.sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
  for (const [index, { name }] of children.entries()) {
    if (children[index + 1]?.name === name) throw badName(name, 'it is there twice');
  }
  return children;
}

/** Bytes of a directory with these entries. Every block but the last counts as full. */
export function directorySize(children: readonly Child[]): number {
  let size = 0;
  for (const block of blocksOf(children)) size = block.index * BLOCK_SIZE + block.bytes;
  return size;
}

/** The directory's blocks in order; all but the last are 4,096 bytes long. */
export function* encodeDirectory(
  children: readonly Child[],
  target: (key: number) => DirentTarget,
): Generator<Buffer> {
  for (const { start, end, bytes } of blocksOf(children)) {
    const block = zeroed(end === children.length ? bytes : BLOCK_SIZE);
    let nameAt = (end - start) * DIRENT_SIZE;
    children.slice(start, end).forEach(({ name, key }, index) => {
      const { nid, type } = target(key);
      const at = index * DIRENT_SIZE;
      block.writeBigUInt64LE(BigInt(nid), at);
      block.writeUInt16LE(nameAt, at + 8);
      block.writeUInt8(FileType[type], at + 10);
      nameAt += block.write(name, nameAt, 'latin1');
    });
    yield block;
  }
}

/** Fills blocks greedily: which entries (from start, before end) each holds, and the bytes they take. */
function* blocksOf(children: readonly Child[]) {
  let index = 0;
  let start = 0;
  let bytes = 0;
  for (const [end, { name }] of children.entries()) {
    const needed = DIRENT_SIZE + name.length;
    if (bytes + needed > BLOCK_SIZE) {
      yield { index, start, end, bytes };
      index++;
      start = end;
      bytes = 0;
    }
    bytes += needed;
  }
  yield { index, start, end: children.length, bytes };
}

function checkedName(bytes: Uint8Array): string {
  const name = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1');
  if (name.length === 0 || name.length > MAX_NAME_BYTES)
    throw badName(name, `it has ${name.length} bytes, not 1 to ${MAX_NAME_BYTES}`);
  if (name === '.' || name === '..') throw badName(name, 'it is reserved');
  if (name.includes('/') || name.includes('\0')) throw badName(name, 'it contains / or NUL');
  return name;
}

function badName(latin1: string, why: string): CimletError {
  const name = JSON.stringify(Buffer.from(latin1, 'latin1').toString());
  return new CimletError('corrupt', `write EROFS directory entry ${name}: ${why}`);
}
