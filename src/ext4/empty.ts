/**
 * Empty file systems that the kernel writes to: the image of a scratch. Sparse, so that making one takes milliseconds whatever its size; with a
 * journal, so that a power cut needs no check. Sources: the kernel's Documentation/filesystems/ext4 (super, group_descr, bitmaps, journal).
 */

import { closeSync, fsyncSync, ftruncateSync, openSync, writeSync } from 'node:fs';
import { basename, dirname } from 'node:path';
import { CimletError } from '../errors.ts';
import { encodeDirectory } from './directory.ts';
import { writeExtents } from './extents.ts';
import { attempt } from './faults.ts';
import {
  BLOCK_SIZE,
  BLOCKS_PER_GROUP,
  DESCRIPTOR_SIZE,
  EntryType,
  FIRST_INODE,
  INODE_DATA,
  INODE_SIZE,
  INODES_PER_BLOCK,
  InodeFlag,
  LOST_AND_FOUND,
  ModeType,
  ROOT_INODE,
} from './format.ts';
import { descriptorBlocks } from './geometry.ts';
import { encodeInode, type Inode } from './inode.ts';
import { encodeSuperblock, SUPERBLOCK_AT } from './superblock.ts';

/** Less leaves no room beside the journal; more, 32-bit block numbers don't reach. */
export const SMALLEST_EMPTY = 8 * 2 ** 20;
export const LARGEST_EMPTY = 16 * 2 ** 40 - BLOCK_SIZE;

const BLOCKS_PER_INODE = 4;
const JOURNAL_INODE = 8;
const JOURNAL_MAGIC = 0xc03b3998;
const JOURNAL_SUPERBLOCK_V2 = 4;
const ZEROS = Buffer.alloc(BLOCK_SIZE);

/** A directory that is there from the beginning. */
export interface FirstDirectory {
  /** `a/b`; what is above it comes before it. */
  path: string;
  mode: number;
  /** Of its last change, in nanoseconds since 1970. */
  mtime: bigint;
}

/** The same with what it takes to write it. */
interface PlacedDirectory {
  inode: number;
  parent: number;
  name: string;
  mode: number;
  mtime: bigint;
}

interface EmptyGeometry {
  blocks: number;
  groups: number;
  inodesPerGroup: number;
  /** All that is in use lies together at the beginning, in this order. */
  bitmapsAt: number;
  tablesAt: number;
  tableBlocks: number;
  /** One block for each directory, the root's first. */
  directoriesAt: number;
  journalAt: number;
  journalBlocks: number;
  usedBlocks: number;
}

/**
 * Writes a writable ext4 file system of `bytes`, empty but for a few directories, to `file`, which must not exist; durable when it returns. The
 * same arguments give the same bytes. Throws `invalid-manifest` for a size out of range, `already-exists`, `no-space`.
 */
export function writeEmptyExt4(
  file: string,
  bytes: number,
  uuid: Uint8Array,
  first: readonly FirstDirectory[] = [],
): void {
  const operation = `make an ext4 file system in ${file}`;
  const { size, pieces } = emptyExt4(bytes, uuid, operation, first);
  attempt(operation, () => {
    const descriptor = openSync(file, 'wx', 0o600);
    try {
      ftruncateSync(descriptor, size);
      for (const { at, content } of pieces)
        for (let done = 0; done < content.length; )
          done += writeSync(descriptor, content, done, content.length - done, at + done);
      fsyncSync(descriptor);
    } finally {
      closeSync(descriptor);
    }
  });
}

/** The same file system as the pieces of it that aren't zeros. Throws `invalid-manifest` for a size out of range. */
export function emptyExt4(
  bytes: number,
  uuid: Uint8Array,
  operation: string,
  first: readonly FirstDirectory[] = [],
): { size: number; pieces: Iterable<{ at: number; content: Buffer }> } {
  if (!(bytes >= SMALLEST_EMPTY && bytes <= LARGEST_EMPTY))
    throw new CimletError('invalid-manifest', `${operation}: ${bytes} bytes`, {
      hint: `choose a size from ${SMALLEST_EMPTY / 2 ** 20} MiB to ${Math.ceil(LARGEST_EMPTY / 2 ** 40)} TiB`,
    });
  const directories = place(first);
  const geometry = layOut(Math.floor(bytes / BLOCK_SIZE), directories.length);
  return { size: geometry.blocks * BLOCK_SIZE, pieces: piecesOfEmpty(geometry, directories, uuid) };
}

/** The root and lost+found, and what is wanted besides. */
function place(first: readonly FirstDirectory[]): PlacedDirectory[] {
  const own = { parent: ROOT_INODE, mtime: 0n };
  const placed: PlacedDirectory[] = [
    { ...own, inode: ROOT_INODE, name: '', mode: 0o755 },
    { ...own, inode: LOST_AND_FOUND, name: 'lost+found', mode: 0o700 },
  ];
  const inodes = new Map([['.', ROOT_INODE]]);
  for (const { path, mode, mtime } of first) {
    const inode = FIRST_INODE + inodes.size;
    const parent = inodes.get(dirname(path));
    if (parent === undefined) throw new RangeError(`${path} comes before what is above it`);
    inodes.set(path, inode);
    placed.push({ inode, parent, name: basename(path), mode, mtime });
  }
  return placed;
}

function layOut(blocks: number, directories: number): EmptyGeometry {
  const groups = Math.ceil(blocks / BLOCKS_PER_GROUP);
  const wanted = Math.min(blocks, BLOCKS_PER_GROUP) / BLOCKS_PER_INODE;
  const inodesPerGroup = Math.ceil(wanted / INODES_PER_BLOCK) * INODES_PER_BLOCK;
  const tableBlocks = inodesPerGroup / INODES_PER_BLOCK;
  const bitmapsAt = 1 + descriptorBlocks(blocks);
  const tablesAt = bitmapsAt + groups * 2;
  const directoriesAt = tablesAt + groups * tableBlocks;
  const journalAt = directoriesAt + directories;
  const journalBlocks = Math.min(Math.max(1024, Math.floor(blocks / 64)), 16_384);
  const usedBlocks = journalAt + journalBlocks;
  return {
    ...{ blocks, groups, inodesPerGroup, bitmapsAt, tablesAt, tableBlocks },
    ...{ directoriesAt, journalAt, journalBlocks, usedBlocks },
  };
}

function* piecesOfEmpty(
  geometry: EmptyGeometry,
  directories: readonly PlacedDirectory[],
  uuid: Uint8Array,
): Generator<{ at: number; content: Buffer }> {
  for (const { block, content } of blocksOfEmpty(geometry, directories, uuid))
    yield { at: block * BLOCK_SIZE, content };
}

function* blocksOfEmpty(
  geometry: EmptyGeometry,
  directories: readonly PlacedDirectory[],
  uuid: Uint8Array,
): Generator<{ block: number; content: Buffer }> {
  const {
    blocks,
    groups,
    inodesPerGroup,
    bitmapsAt,
    tablesAt,
    directoriesAt,
    journalAt,
    journalBlocks,
    usedBlocks,
  } = geometry;
  const usedInodes = usedInodesOf(directories);
  const journal = extentsOf(journalAt, journalBlocks);
  const first = Buffer.alloc(BLOCK_SIZE);
  const superblock = {
    inodes: groups * inodesPerGroup,
    blocks,
    freeBlocks: blocks - usedBlocks,
    freeInodes: groups * inodesPerGroup - usedInodes,
    inodesPerGroup,
    uuid: Buffer.from(uuid),
    inlineData: false,
    journal: { inode: JOURNAL_INODE, extents: journal, size: journalBlocks * BLOCK_SIZE },
  };
  encodeSuperblock(superblock).copy(first, SUPERBLOCK_AT);
  yield { block: 0, content: first };
  yield { block: 1, content: encodeDescriptors(geometry, directories) };
  for (let group = 0; group < groups; group++) {
    const start = group * BLOCKS_PER_GROUP;
    const inUse = bitmap(clamp(usedBlocks - start), clamp(blocks - start));
    if (!inUse.equals(ZEROS)) yield { block: bitmapsAt + group * 2, content: inUse };
    const content = bitmap(group === 0 ? usedInodes : 0, inodesPerGroup);
    yield { block: bitmapsAt + group * 2 + 1, content };
  }
  yield { block: tablesAt, content: encodeFirstInodes(geometry, directories, journal) };
  for (const [index, directory] of directories.entries())
    yield {
      block: directoriesAt + index,
      content: directoryBlock(directory, childrenOf(directory, directories)),
    };
  yield { block: journalAt, content: journalSuperblock(journalBlocks) };
}

function childrenOf({ inode }: PlacedDirectory, directories: readonly PlacedDirectory[]): PlacedDirectory[] {
  return directories.filter((each) => each.parent === inode && each.inode !== inode);
}

/** All inodes up to the last directory's: the reserved ones, lost+found, and what was wanted. */
function usedInodesOf(directories: readonly PlacedDirectory[]): number {
  return directories.at(-1)?.inode ?? FIRST_INODE;
}

/** A number of blocks, as one group counts them. */
function clamp(blocks: number): number {
  return Math.min(Math.max(blocks, 0), BLOCKS_PER_GROUP);
}

/** Bits set up to `used`, and from `end` on, where nothing exists. */
function bitmap(used: number, end: number): Buffer {
  const bytes = Buffer.alloc(BLOCK_SIZE);
  const set = (from: number, to: number): void => {
    for (let bit = from; bit < to; )
      if (bit % 8 === 0 && bit + 8 <= to) {
        const whole = Math.floor((to - bit) / 8);
        bytes.fill(0xff, bit / 8, bit / 8 + whole);
        bit += whole * 8;
      } else {
        bytes.writeUInt8(bytes.readUInt8(bit >> 3) | (1 << (bit & 7)), bit >> 3);
        bit++;
      }
  };
  set(0, used);
  set(end, BLOCK_SIZE * 8);
  return bytes;
}

function encodeDescriptors(geometry: EmptyGeometry, directories: readonly PlacedDirectory[]): Buffer {
  const { blocks, groups, inodesPerGroup, bitmapsAt, tablesAt, tableBlocks, usedBlocks } = geometry;
  const bytes = Buffer.alloc(descriptorBlocks(blocks) * BLOCK_SIZE);
  for (let group = 0; group < groups; group++) {
    const at = group * DESCRIPTOR_SIZE;
    const start = group * BLOCKS_PER_GROUP;
    bytes.writeUInt32LE(bitmapsAt + group * 2, at);
    bytes.writeUInt32LE(bitmapsAt + group * 2 + 1, at + 4);
    bytes.writeUInt32LE(tablesAt + group * tableBlocks, at + 8);
    bytes.writeUInt16LE(clamp(blocks - start) - clamp(usedBlocks - start), at + 12);
    bytes.writeUInt16LE(inodesPerGroup - (group === 0 ? usedInodesOf(directories) : 0), at + 14);
    bytes.writeUInt16LE(group === 0 ? directories.length : 0, at + 16);
  }
  return bytes;
}

function encodeFirstInodes(
  { directoriesAt, journalBlocks }: EmptyGeometry,
  directories: readonly PlacedDirectory[],
  journal: Buffer,
): Buffer {
  const bytes = usedInodesOf(directories) * INODE_SIZE;
  const table = Buffer.alloc(Math.ceil(bytes / BLOCK_SIZE) * BLOCK_SIZE);
  const put = (number: number, inode: Partial<Inode> & { blocks: number }): void => {
    const record = table.subarray((number - 1) * INODE_SIZE, number * INODE_SIZE);
    encodeInode(record, {
      ...{ mode: 0, uid: 0, gid: 0, links: 1, data: journal, xattrBlock: 0, xattrs: undefined },
      ...{ mtime: 0n, atime: 0n, ctime: 0n, crtime: 0n },
      ...{ size: inode.blocks * BLOCK_SIZE, sectors: inode.blocks * (BLOCK_SIZE / 512) },
      flags: InodeFlag.extents,
      ...inode,
    });
  };
  for (const [index, directory] of directories.entries()) {
    const { inode, mode, mtime } = directory;
    put(inode, {
      mode: ModeType.directory | mode,
      links: 2 + childrenOf(directory, directories).length,
      data: extentsOf(directoriesAt + index, 1),
      blocks: 1,
      ...{ mtime, atime: mtime, ctime: mtime, crtime: mtime },
    });
  }
  put(JOURNAL_INODE, { mode: ModeType.file | 0o600, blocks: journalBlocks });
  return table;
}

function extentsOf(physical: number, count: number): Buffer {
  const extents = [{ logical: 0, physical, count }];
  const root = Buffer.alloc(INODE_DATA);
  writeExtents(extents, root, () => {
    throw new RangeError(`${count} blocks in more than one extent`);
  });
  return root;
}

function directoryBlock({ inode, parent }: PlacedDirectory, entries: readonly PlacedDirectory[]): Buffer {
  const entry = (index: number) => entries[index] ?? { name: '', inode: 0 };
  const content = {
    inode,
    parent,
    count: entries.length,
    nameLength: (index: number) => entry(index).name.length,
    copyName: (index: number, target: Buffer, at: number) => {
      target.write(entry(index).name, at, 'latin1');
    },
    target: (index: number) => entry(index).inode,
    type: () => EntryType.directory,
  };
  const [block] = encodeDirectory(content, Buffer.alloc(BLOCK_SIZE));
  return block ?? Buffer.alloc(BLOCK_SIZE);
}

/** An empty journal. Unlike the rest it is big-endian. */
function journalSuperblock(blocks: number): Buffer {
  const bytes = Buffer.alloc(BLOCK_SIZE);
  bytes.writeUInt32BE(JOURNAL_MAGIC, 0x00);
  bytes.writeUInt32BE(JOURNAL_SUPERBLOCK_V2, 0x04);
  bytes.writeUInt32BE(BLOCK_SIZE, 0x0c);
  bytes.writeUInt32BE(blocks, 0x10);
  bytes.writeUInt32BE(1, 0x14); // first block of its log
  bytes.writeUInt32BE(1, 0x18); // first sequence number expected
  bytes.writeUInt32BE(1, 0x40); // file systems that use it
  return bytes;
}
