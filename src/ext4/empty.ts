/**
 * Empty file systems that the kernel writes to: the image of a scratch. Sparse, so that making one takes milliseconds whatever its size; with a
 * journal, so that a power cut needs no check. Sources: the kernel's Documentation/filesystems/ext4 (super, group_descr, bitmaps, journal).
 */

import { closeSync, fsyncSync, ftruncateSync, openSync, writeSync } from 'node:fs';
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

interface EmptyGeometry {
  blocks: number;
  groups: number;
  inodesPerGroup: number;
  /** All that is in use lies together at the beginning, in this order. */
  bitmapsAt: number;
  tablesAt: number;
  tableBlocks: number;
  rootAt: number;
  journalAt: number;
  journalBlocks: number;
  usedBlocks: number;
}

/**
 * Writes an empty, writable ext4 file system of `bytes` to `file`, which must not exist; durable when it returns. The same arguments give
 * the same bytes. Throws `invalid-manifest` for a size out of range, `already-exists`, `no-space`.
 */
export function writeEmptyExt4(file: string, bytes: number, uuid: Uint8Array): void {
  const operation = `make an ext4 file system in ${file}`;
  if (!(bytes >= SMALLEST_EMPTY && bytes <= LARGEST_EMPTY))
    throw new CimletError('invalid-manifest', `${operation}: ${bytes} bytes`, {
      hint: `choose a size from ${SMALLEST_EMPTY / 2 ** 20} MiB to ${Math.ceil(LARGEST_EMPTY / 2 ** 40)} TiB`,
    });
  const geometry = layOut(Math.floor(bytes / BLOCK_SIZE));
  attempt(operation, () => {
    const descriptor = openSync(file, 'wx', 0o600);
    try {
      ftruncateSync(descriptor, geometry.blocks * BLOCK_SIZE);
      for (const { block, content } of blocksOfEmpty(geometry, uuid))
        for (let done = 0; done < content.length; )
          done += writeSync(descriptor, content, done, content.length - done, block * BLOCK_SIZE + done);
      fsyncSync(descriptor);
    } finally {
      closeSync(descriptor);
    }
  });
}

function layOut(blocks: number): EmptyGeometry {
  const groups = Math.ceil(blocks / BLOCKS_PER_GROUP);
  const wanted = Math.min(blocks, BLOCKS_PER_GROUP) / BLOCKS_PER_INODE;
  const inodesPerGroup = Math.ceil(wanted / INODES_PER_BLOCK) * INODES_PER_BLOCK;
  const tableBlocks = inodesPerGroup / INODES_PER_BLOCK;
  const bitmapsAt = 1 + descriptorBlocks(blocks);
  const tablesAt = bitmapsAt + groups * 2;
  const rootAt = tablesAt + groups * tableBlocks;
  const journalAt = rootAt + 2;
  const journalBlocks = Math.min(Math.max(1024, Math.floor(blocks / 64)), 16_384);
  const usedBlocks = journalAt + journalBlocks;
  return {
    ...{ blocks, groups, inodesPerGroup, bitmapsAt, tablesAt, tableBlocks },
    ...{ rootAt, journalAt, journalBlocks, usedBlocks },
  };
}

/** What isn't zeros anyway. */
function* blocksOfEmpty(
  geometry: EmptyGeometry,
  uuid: Uint8Array,
): Generator<{ block: number; content: Buffer }> {
  const {
    blocks,
    groups,
    inodesPerGroup,
    bitmapsAt,
    tablesAt,
    rootAt,
    journalAt,
    journalBlocks,
    usedBlocks,
  } = geometry;
  const journal = extentsOf(journalAt, journalBlocks);
  const first = Buffer.alloc(BLOCK_SIZE);
  const superblock = {
    inodes: groups * inodesPerGroup,
    blocks,
    freeBlocks: blocks - usedBlocks,
    freeInodes: groups * inodesPerGroup - FIRST_INODE,
    inodesPerGroup,
    uuid: Buffer.from(uuid),
    inlineData: false,
    journal: { inode: JOURNAL_INODE, extents: journal, size: journalBlocks * BLOCK_SIZE },
  };
  encodeSuperblock(superblock).copy(first, SUPERBLOCK_AT);
  yield { block: 0, content: first };
  yield { block: 1, content: encodeDescriptors(geometry) };
  for (let group = 0; group < groups; group++) {
    const start = group * BLOCKS_PER_GROUP;
    const inUse = bitmap(clamp(usedBlocks - start), clamp(blocks - start));
    yield { block: bitmapsAt + group * 2, content: inUse };
    const content = bitmap(group === 0 ? FIRST_INODE : 0, inodesPerGroup);
    yield { block: bitmapsAt + group * 2 + 1, content };
  }
  yield { block: tablesAt, content: encodeFirstInodes(geometry, journal) };
  yield {
    block: rootAt,
    content: directoryBlock(ROOT_INODE, [{ name: 'lost+found', inode: LOST_AND_FOUND }]),
  };
  yield { block: rootAt + 1, content: directoryBlock(LOST_AND_FOUND, []) };
  yield { block: journalAt, content: journalSuperblock(journalBlocks) };
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

function encodeDescriptors(geometry: EmptyGeometry): Buffer {
  const { blocks, groups, inodesPerGroup, bitmapsAt, tablesAt, tableBlocks, usedBlocks } = geometry;
  const bytes = Buffer.alloc(descriptorBlocks(blocks) * BLOCK_SIZE);
  for (let group = 0; group < groups; group++) {
    const at = group * DESCRIPTOR_SIZE;
    const start = group * BLOCKS_PER_GROUP;
    bytes.writeUInt32LE(bitmapsAt + group * 2, at);
    bytes.writeUInt32LE(bitmapsAt + group * 2 + 1, at + 4);
    bytes.writeUInt32LE(tablesAt + group * tableBlocks, at + 8);
    bytes.writeUInt16LE(clamp(blocks - start) - clamp(usedBlocks - start), at + 12);
    bytes.writeUInt16LE(inodesPerGroup - (group === 0 ? FIRST_INODE : 0), at + 14);
    bytes.writeUInt16LE(group === 0 ? 2 : 0, at + 16);
  }
  return bytes;
}

function encodeFirstInodes({ rootAt, journalBlocks }: EmptyGeometry, journal: Buffer): Buffer {
  const table = Buffer.alloc(Math.ceil((FIRST_INODE * INODE_SIZE) / BLOCK_SIZE) * BLOCK_SIZE);
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
  const directory = ModeType.directory;
  put(ROOT_INODE, { mode: directory | 0o755, links: 3, data: extentsOf(rootAt, 1), blocks: 1 });
  put(LOST_AND_FOUND, { mode: directory | 0o700, links: 2, data: extentsOf(rootAt + 1, 1), blocks: 1 });
  put(JOURNAL_INODE, { mode: ModeType.file | 0o600, blocks: journalBlocks });
  return table;
}

function extentsOf(physical: number, count: number): Buffer {
  const extents = [{ logical: 0, physical, count }];
  return writeExtents(extents, () => {
    throw new RangeError(`${count} blocks in more than one extent`);
  }).root;
}

function directoryBlock(inode: number, entries: readonly { name: string; inode: number }[]): Buffer {
  const entry = (index: number) => entries[index] ?? { name: '', inode: 0 };
  const content = {
    inode,
    parent: ROOT_INODE,
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
