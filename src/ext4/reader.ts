/**
 * Reads ext4 images, those of others too: extents, linear and hashed directories, extended attributes, inline data; blocks of any size. What
 * comes from the image is checked before it is used; a malformed structure is CimletError `corrupt` with its offset, a feature that isn't known
 * is `failed-precondition`. Checksums of metadata are not.
 *
 * Names are byte strings: each character is one byte.
 */

import { CimletError } from '../errors.ts';
import { decodeEntries, type StoredEntry } from './directory.ts';
import { type Extent, readExtents } from './extents.ts';
import { corruptAt } from './faults.ts';
import { INODE_DATA, InodeFlag, MAX_SYMLINK, ModeType, ROOT_INODE } from './format.ts';
import { findLeaves, hashName } from './hash-tree.ts';
import type { DiskImage } from './image-file.ts';
import { decodeDevice, decodeInode, type Inode, typeOf } from './inode.ts';
import { decodeSuperblock, type FoundSuperblock, SUPERBLOCK_AT, SUPERBLOCK_SIZE } from './superblock.ts';
import { type DecodedXattrs, decodeXattrs, type Xattr } from './xattrs.ts';

const CHUNK = 1 << 20;
const MAX_SYMLINKS = 40;
/** What numbers of 32 bits reach. */
const MAX_FILE_BLOCKS = 2 ** 32;
/** What the writer allows. A small image may claim any number of names, which are listed in memory. */
const MAX_NAMES = 2 ** 22;

/** An inode as it was read. */
export interface Ext4File extends Inode {
  number: number;
}

export class Ext4Reader {
  readonly superblock: FoundSuperblock;
  readonly #file: DiskImage;
  /** One block of group descriptors, mostly asked for again. */
  #tables: { group: number; block: number } | undefined;

  /** The file system at the beginning of `file`, which stays the caller's to close. */
  constructor(file: DiskImage) {
    this.#file = file;
    if (file.size < SUPERBLOCK_AT + SUPERBLOCK_SIZE) this.#fail(0, 'too small for a file system of ext4');
    this.superblock = decodeSuperblock(
      file.read(SUPERBLOCK_AT, SUPERBLOCK_SIZE),
      (offset, message) => this.#fail(SUPERBLOCK_AT + offset, message),
      (what) => {
        throw new CimletError('failed-precondition', `read ${file.path}: it has ${what}`, {
          hint: 'mount it with a Linux kernel instead',
        });
      },
    );
    if (this.size > file.size)
      this.#fail(SUPERBLOCK_AT + 4, `a file system of ${this.size} bytes in ${file.size}`);
  }

  /** Bytes of the file system. */
  get size(): number {
    return this.superblock.blocks * this.superblock.blockSize;
  }

  inode(number: number): Ext4File {
    const at = this.#placeOf(number);
    return { number, ...decodeInode(this.#file.read(at, this.superblock.inodeSize)) };
  }

  /** The file at a path, whose symlinks are followed inside the image, the last name's only if told. Undefined when there is none. */
  find(path: string, { follow = false }: { follow?: boolean } = {}): Ext4File | undefined {
    const parents: Ext4File[] = [];
    let here = this.inode(ROOT_INODE);
    const names = namesOf(path);
    let symlinks = 0;
    for (let name = names.pop(); name !== undefined; name = names.pop()) {
      if (name === '..') {
        here = parents.pop() ?? here;
        continue;
      }
      if (typeOf(here.mode) !== ModeType.directory) return undefined;
      const next = this.child(here, name);
      if (next === undefined) return undefined;
      if (typeOf(next.mode) !== ModeType.symlink || (names.length === 0 && !follow)) {
        parents.push(here);
        here = next;
        continue;
      }
      if (++symlinks > MAX_SYMLINKS)
        throw new CimletError('failed-precondition', `find in ${this.#file.path}: symlinks lead in a circle`);
      const target = this.target(next);
      if (target.startsWith('/')) {
        parents.length = 0;
        here = this.inode(ROOT_INODE);
      }
      names.push(...namesOf(target));
    }
    return here;
  }

  /** The file of a name in a directory, by its index if there is one; undefined when there is none. */
  child(directory: Ext4File, name: string): Ext4File | undefined {
    for (const entry of this.#candidates(directory, name))
      if (entry.name === name) return this.inode(entry.inode);
    return undefined;
  }

  /** What is in a directory, without `.` and `..`, in the order it is stored in. */
  *entries(directory: Ext4File): Generator<StoredEntry> {
    let count = 0;
    for (const entry of this.#allEntries(directory)) {
      if (++count > MAX_NAMES) this.#failInode(directory, `more than ${MAX_NAMES} names in a directory`);
      if (entry.name !== '.' && entry.name !== '..') yield entry;
    }
  }

  /** The content of a file. Each chunk is a buffer of its own. */
  *chunks(file: Ext4File): Generator<Buffer> {
    if ((file.flags & InodeFlag.inlineData) !== 0) {
      const content = Buffer.concat([file.data, this.#attributes(file).inlineData ?? Buffer.alloc(0)]);
      if (file.size > content.length) this.#failInode(file, `${file.size} bytes of inline data`);
      if (file.size > 0) yield content.subarray(0, file.size);
      return;
    }
    const { blockSize } = this.superblock;
    let done = 0;
    for (const { logical, physical, count } of this.extents(file)) {
      const from = logical * blockSize;
      yield* zeros(Math.min(from, file.size) - done);
      done = Math.max(done, Math.min(from, file.size));
      const end = Math.min(from + count * blockSize, file.size);
      while (done < end) {
        const length = Math.min(CHUNK, end - done);
        yield this.#file.read(physical * blockSize + done - from, length);
        done += length;
      }
    }
    yield* zeros(file.size - done);
  }

  /** Where the content of a file is; holes are between. */
  *extents(file: Ext4File): Generator<Extent> {
    if ((file.flags & InodeFlag.inlineData) !== 0) return;
    if ((file.flags & InodeFlag.extents) === 0) {
      if (file.sectors > 0 && file.size > 0)
        this.#failInode(file, 'its blocks are listed in the way of ext2, which is not supported');
      return;
    }
    const { blocks, blockSize } = this.superblock;
    const fail = (message: string): never => this.#failInode(file, message);
    if (file.size > MAX_FILE_BLOCKS * blockSize) fail(`a file of ${file.size} bytes`);
    let taken = 0;
    const take = (count: number): void => {
      taken += count;
      if (taken > blocks) fail('it takes more blocks than the file system has');
    };
    const onNode = () => take(1);
    const visitor = { read: (block: number) => this.#block(block, file), fail, onNode };
    for (const extent of readExtents(Buffer.from(file.data), visitor)) {
      if (extent.physical + extent.count > blocks)
        fail(`its blocks from ${extent.physical} on are beyond the file system's end`);
      take(extent.count);
      yield extent;
    }
  }

  /** Where a symlink leads, as a byte string. */
  target(file: Ext4File): string {
    if (file.size > MAX_SYMLINK) this.#failInode(file, `a symlink's target of ${file.size} bytes`);
    const isInline = (file.flags & (InodeFlag.extents | InodeFlag.inlineData)) === 0;
    if (isInline && file.size <= INODE_DATA) return Buffer.from(file.data).toString('latin1', 0, file.size);
    return Buffer.concat([...this.chunks(file)]).toString('latin1');
  }

  device(file: Ext4File): { major: number; minor: number } {
    return decodeDevice(file.data);
  }

  xattrs(file: Ext4File): Xattr[] {
    return this.#attributes(file).xattrs;
  }

  /** Every file below a directory: parents before what is in them, names sorted by bytes. A directory in itself is `corrupt`. */
  *walk(top: Ext4File, path = ''): Generator<{ path: string; name: string; file: Ext4File }> {
    const seen = new Set([top.number]);
    const pending = [{ path, directory: top }];
    for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
      const { path: parent, directory } = next;
      const children = [...this.entries(directory)].sort((a, b) => (a.name < b.name ? -1 : 1));
      const below: typeof pending = [];
      for (const { name, inode } of children) {
        const file = this.inode(inode);
        const childPath = parent === '' ? name : `${parent}/${name}`;
        yield { path: childPath, name, file };
        if (typeOf(file.mode) !== ModeType.directory) continue;
        if (seen.has(inode)) this.#failInode(file, 'the directory is in the tree twice');
        seen.add(inode);
        below.push({ path: childPath, directory: file });
      }
      // Not spread: there may be more than a call's arguments can be.
      for (const each of below.reverse()) pending.push(each);
    }
  }

  *#allEntries(directory: Ext4File): Generator<StoredEntry> {
    if (typeOf(directory.mode) !== ModeType.directory) this.#failInode(directory, 'it is no directory');
    if ((directory.flags & InodeFlag.inlineData) !== 0) {
      yield* this.#inlineEntries(directory);
      return;
    }
    const { blockSize } = this.superblock;
    const blocks = Math.ceil(directory.size / blockSize);
    if (blocks > this.superblock.blocks) this.#failInode(directory, `a directory of ${directory.size} bytes`);
    for (const { logical, physical, count } of this.extents(directory))
      for (let index = 0; index < Math.min(count, blocks - logical); index++) {
        const block = physical + index;
        yield* this.#entriesIn(this.#block(block, directory), block * blockSize);
      }
  }

  /** The first four bytes are the parent's number. The rest beyond the inode's own 60 bytes are entries of their own, too. */
  *#inlineEntries(directory: Ext4File): Generator<StoredEntry> {
    const at = this.#placeOf(directory.number);
    yield* this.#entriesIn(Buffer.from(directory.data.subarray(4)), at);
    const rest = this.#attributes(directory).inlineData;
    if (rest !== undefined) yield* this.#entriesIn(rest, at);
  }

  *#entriesIn(bytes: Buffer, at: number): Generator<StoredEntry> {
    for (const entry of decodeEntries(bytes, (offset, message) => this.#fail(at + offset, message))) {
      if (entry.inode > this.superblock.inodes) this.#fail(at, `an entry for inode ${entry.inode}`);
      if (entry.name === '' || /[/\0]/.test(entry.name)) this.#fail(at, 'an entry whose name is no name');
      yield entry;
    }
  }

  /** Entries among which a name is, if it is in the directory. */
  #candidates(directory: Ext4File, name: string): Iterable<StoredEntry> {
    if ((directory.flags & InodeFlag.index) === 0 || !this.superblock.hashesAsHere)
      return this.entries(directory);
    const bytes = Buffer.from(name, 'latin1');
    const leaves = findLeaves(hashName(bytes, 0, bytes.length), {
      read: (block) => this.#directoryBlock(directory, block).bytes,
      fail: (message) => this.#failInode(directory, message),
    });
    return leaves === undefined ? this.entries(directory) : this.#entriesOfLeaves(directory, leaves);
  }

  *#entriesOfLeaves(directory: Ext4File, leaves: Iterable<number>): Generator<StoredEntry> {
    for (const leaf of leaves) {
      const { bytes, at } = this.#directoryBlock(directory, leaf);
      yield* this.#entriesIn(bytes, at);
    }
  }

  /** A block by its number in the directory. */
  #directoryBlock(directory: Ext4File, number: number): { bytes: Buffer; at: number } {
    for (const { logical, physical, count } of this.extents(directory)) {
      if (number < logical || number >= logical + count) continue;
      const block = physical + number - logical;
      return { bytes: this.#block(block, directory), at: block * this.superblock.blockSize };
    }
    return this.#failInode(directory, `its index leads to block ${number}, which it doesn't have`);
  }

  #attributes(file: Ext4File): DecodedXattrs {
    const block = file.xattrBlock === 0 ? undefined : this.#block(file.xattrBlock, file);
    return decodeXattrs(file.xattrs, block, (_place, message) => this.#failInode(file, message));
  }

  #block(block: number, owner: Ext4File): Buffer {
    if (block >= this.superblock.blocks)
      this.#failInode(owner, `block ${block} is beyond the file system's end`);
    return this.#file.read(block * this.superblock.blockSize, this.superblock.blockSize);
  }

  #placeOf(number: number): number {
    const { inodes, inodesPerGroup, inodeSize, blockSize } = this.superblock;
    if (number < 1 || number > inodes) this.#fail(SUPERBLOCK_AT, `there is no inode ${number}`);
    const group = Math.floor((number - 1) / inodesPerGroup);
    return this.#tableOf(group) * blockSize + ((number - 1) % inodesPerGroup) * inodeSize;
  }

  #tableOf(group: number): number {
    if (this.#tables?.group === group) return this.#tables.block;
    const { firstDataBlock, blockSize, descriptorSize, blocks } = this.superblock;
    const at = (firstDataBlock + 1) * blockSize + group * descriptorSize;
    const descriptor = this.#file.read(at, descriptorSize);
    const high = descriptorSize >= 64 ? descriptor.readUInt32LE(0x28) : 0;
    const block = descriptor.readUInt32LE(8) + high * 2 ** 32;
    if (block >= blocks)
      this.#fail(at + 8, `the inode table of group ${group} is beyond the file system's end`);
    this.#tables = { group, block };
    return block;
  }

  #failInode(file: Ext4File, message: string): never {
    this.#fail(this.#placeOf(file.number), `inode ${file.number}: ${message}`);
  }

  #fail(offset: number, message: string): never {
    throw corruptAt(this.#file.path, offset, message);
  }
}

function namesOf(path: string): string[] {
  return path
    .split('/')
    .filter((name) => name !== '' && name !== '.')
    .reverse();
}

function* zeros(length: number): Generator<Buffer> {
  for (let left = length; left > 0; left -= CHUNK) yield Buffer.alloc(Math.min(CHUNK, left));
}
