/** The end of an image: directories, inode tables, bitmaps, group descriptors, superblock. */

import { createHash } from 'node:crypto';
import { crc32 } from 'node:zlib';
import type { BlockOutput } from './block-output.ts';
import { diskLimit } from './block-output.ts';
import { encodeDirectory, isHashed } from './directory.ts';
import { writeExtents } from './extents.ts';
import {
  BLOCK_SIZE,
  BLOCKS_PER_GROUP,
  DESCRIPTOR_SIZE,
  EntryType,
  FIRST_INODE,
  INODE_SIZE,
  InodeFlag,
  MAX_LINKS,
} from './format.ts';
import { descriptorBlocks, divide, type Geometry } from './geometry.ts';
import { decodeInode, inodeData, setLinks, setSize } from './inode.ts';
import type { InodeBuilder } from './inode-builder.ts';
import { encodeSuperblock, SUPERBLOCK_AT, type Superblock } from './superblock.ts';
import type { Tree } from './tree.ts';

export interface FinishedImage {
  /** Bytes of the file system. */
  size: number;
  /** Inodes in use, without the reserved ones, but with the root and lost+found. */
  inodes: number;
  /** Derived from all that the image says about its files. */
  uuid: Buffer;
}

export interface UnfinishedImage {
  inodes: InodeBuilder;
  output: BlockOutput;
  maxBlocks: number;
  inlineData: boolean;
}

export function finishImage(image: UnfinishedImage): FinishedImage {
  const { inodes, output, maxBlocks } = image;
  const { tree } = inodes;
  let checksum = writeDirectories(tree, output);
  const geometry = divide(output.next, tree.end - 1);
  if (geometry.totalBlocks > maxBlocks) throw diskLimit(output.path, maxBlocks);
  checksum = writeTables(inodes, output, geometry, checksum);
  const reservedDescriptors = descriptorBlocks(maxBlocks);
  const usedDescriptors = Math.ceil((geometry.groups * DESCRIPTOR_SIZE) / BLOCK_SIZE);
  inodes.freed.add(1 + usedDescriptors, reservedDescriptors - usedDescriptors);
  const groups = [...writeBitmaps(image, geometry)];
  const descriptors = Buffer.alloc(usedDescriptors * BLOCK_SIZE);
  for (const [group, counts] of groups.entries()) encodeDescriptor(descriptors, group, counts, geometry);
  const superblock: Superblock = {
    inodes: geometry.groups * geometry.inodesPerGroup,
    blocks: geometry.totalBlocks,
    freeBlocks: groups.reduce((sum, { freeBlocks }) => sum + freeBlocks, 0),
    freeInodes: groups.reduce((sum, { freeInodes }) => sum + freeInodes, 0),
    inodesPerGroup: geometry.inodesPerGroup,
    uuid: Buffer.alloc(16),
    inlineData: image.inlineData,
  };
  superblock.uuid = deriveUuid(encodeSuperblock(superblock), descriptors, checksum);
  const first = Buffer.alloc(BLOCK_SIZE);
  encodeSuperblock(superblock).copy(first, SUPERBLOCK_AT);
  output.rewrite(1, descriptors);
  output.rewrite(0, first);
  output.finish();
  const reserved = FIRST_INODE - 2;
  return {
    size: geometry.totalBlocks * BLOCK_SIZE,
    inodes: superblock.inodes - superblock.freeInodes - reserved,
    uuid: superblock.uuid,
  };
}

/** Writes what each directory holds; returns a checksum of it. */
function writeDirectories(tree: Tree, output: BlockOutput): number {
  let checksum = 0;
  const scratch = Buffer.alloc(BLOCK_SIZE);
  for (let inode = 0; inode < tree.end; inode++) {
    if (!tree.isDirectory(inode)) continue;
    const entries = tree.entriesOf(inode);
    const { bytes, starts } = tree.names.gather(entries);
    const startOf = (index: number) => starts[index] as number;
    const first = output.next;
    const content = {
      inode,
      parent: tree.parentOf(inode),
      count: entries.length,
      nameLength: (index: number) => startOf(index + 1) - startOf(index),
      copyName: (index: number, target: Buffer, at: number) =>
        void bytes.copy(target, at, startOf(index), startOf(index + 1)),
      target: (index: number) => tree.names.inodeOf(entries[index] as number),
      type: (index: number) => tree.entryTypeOf(tree.names.inodeOf(entries[index] as number)),
    };
    for (const block of encodeDirectory(content, scratch)) {
      output.append(block);
      checksum = crc32(block, checksum);
    }
    tree.setBlocks(inode, first, output.next - first);
  }
  return checksum;
}

/** Completes the inode records and writes them. Extents of directories too large for an inode go before the tables. */
function writeTables(
  { tree, spool }: InodeBuilder,
  output: BlockOutput,
  { groups, tableBlocks, tablesAt }: Geometry,
  seed: number,
): number {
  let checksum = seed;
  const block = Buffer.alloc(BLOCK_SIZE);
  let filled = 0;
  for (const { first, records } of spool.readAll(tree.end - 1 + 1)) {
    for (let at = 0; at < records.length; at += INODE_SIZE) {
      const inode = first + at / INODE_SIZE;
      if (inode === 0) continue;
      const record = block.subarray(filled, filled + INODE_SIZE);
      if (tree.kindOf(inode) === EntryType.free) record.fill(0);
      else {
        records.copy(record, 0, at, at + INODE_SIZE);
        completeRecord(record, inode, tree);
      }
      filled += INODE_SIZE;
      if (filled < BLOCK_SIZE) continue;
      output.append(block);
      checksum = crc32(block, checksum);
      filled = 0;
    }
  }
  if (filled > 0) {
    output.append(block.fill(0, filled));
    checksum = crc32(block, checksum);
  }
  output.skip(tablesAt + groups * tableBlocks - output.next);
  return checksum;
}

function completeRecord(record: Buffer, inode: number, tree: Tree): void {
  const links = tree.linksOf(inode);
  if (!tree.isDirectory(inode)) {
    setLinks(record, links);
    return;
  }
  // A directory of more subdirectories than can be counted says 1.
  setLinks(record, links > MAX_LINKS ? 1 : links);
  const { first, count } = tree.blocksOf(inode);
  writeExtents(piecesOf(first, count), inodeData(record), () => {
    throw new RangeError(`a directory of ${count} blocks`);
  });
  setSize(record, count * BLOCK_SIZE, decodeInode(record).sectors + count * (BLOCK_SIZE / 512));
  if (isHashed(count)) record.writeUInt32LE(InodeFlag.extents | InodeFlag.index, 0x20);
}

function piecesOf(first: number, count: number): { logical: number; physical: number; count: number }[] {
  const pieces = [];
  for (let done = 0; done < count; done += BLOCKS_PER_GROUP)
    pieces.push({ logical: done, physical: first + done, count: Math.min(BLOCKS_PER_GROUP, count - done) });
  return pieces;
}

interface GroupCounts {
  freeBlocks: number;
  freeInodes: number;
  directories: number;
}

function* writeBitmaps(
  { inodes: { tree, freed }, output }: UnfinishedImage,
  { groups, inodesPerGroup, usedBlocks, totalBlocks }: Geometry,
): Generator<GroupCounts> {
  const free = [...freed].filter(({ count }) => count > 0).sort((a, b) => a.first - b.first);
  free.push({ first: usedBlocks, count: totalBlocks - usedBlocks });
  let next = 0;
  for (let group = 0; group < groups; group++) {
    const start = group * BLOCKS_PER_GROUP;
    const end = start + BLOCKS_PER_GROUP;
    // Blocks and inodes that don't exist count as used.
    const blocks = Buffer.alloc(BLOCK_SIZE, 0xff);
    let freeBlocks = 0;
    for (; next < free.length; next++) {
      const { first, count } = free[next] as { first: number; count: number };
      const [from, to] = [Math.max(first, start), Math.min(first + count, end)];
      if (from < to) clearBits(blocks, from - start, to - start);
      freeBlocks += Math.max(0, to - from);
      if (first + count > end) break;
    }
    const inodes = Buffer.alloc(BLOCK_SIZE, 0xff);
    const counts = { freeBlocks, freeInodes: 0, directories: 0 };
    for (let bit = 0; bit < inodesPerGroup; bit++) {
      const inode = 1 + group * inodesPerGroup + bit;
      const kind = inode < tree.end ? tree.kindOf(inode) : EntryType.free;
      if (kind === EntryType.directory) counts.directories++;
      if (kind !== EntryType.free || inode < FIRST_INODE) continue;
      counts.freeInodes++;
      clearBits(inodes, bit, bit + 1);
    }
    output.append(blocks);
    output.append(inodes);
    yield counts;
  }
}

function clearBits(bitmap: Buffer, from: number, to: number): void {
  for (let bit = from; bit < to; ) {
    if (bit % 8 === 0 && bit + 8 <= to) {
      const bytes = Math.floor((to - bit) / 8);
      bitmap.fill(0, bit / 8, bit / 8 + bytes);
      bit += bytes * 8;
    } else {
      bitmap.writeUInt8(bitmap.readUInt8(bit >> 3) & ~(1 << (bit & 7)), bit >> 3);
      bit++;
    }
  }
}

function encodeDescriptor(bytes: Buffer, group: number, counts: GroupCounts, geometry: Geometry): void {
  const at = group * DESCRIPTOR_SIZE;
  bytes.writeUInt32LE(geometry.bitmapsAt + group * 2, at);
  bytes.writeUInt32LE(geometry.bitmapsAt + group * 2 + 1, at + 4);
  bytes.writeUInt32LE(geometry.tablesAt + group * geometry.tableBlocks, at + 8);
  bytes.writeUInt16LE(counts.freeBlocks, at + 12);
  bytes.writeUInt16LE(counts.freeInodes, at + 14);
  bytes.writeUInt16LE(counts.directories, at + 16);
}

/** A UUID of version 8, which leaves its bits to whoever makes it. */
function deriveUuid(superblock: Buffer, descriptors: Buffer, checksum: number): Buffer {
  const hash = createHash('sha256').update('cimlet ext4\0').update(superblock).update(descriptors);
  const uuid = hash.update(String(checksum)).digest().subarray(0, 16);
  uuid.writeUInt8((uuid.readUInt8(6) & 0x0f) | 0x80, 6);
  uuid.writeUInt8((uuid.readUInt8(8) & 0x3f) | 0x80, 8);
  return uuid;
}
