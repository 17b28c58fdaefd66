/** How an image is divided into groups. With flex_bg, a group's bitmaps and inode table may lie anywhere. */

import {
  BLOCK_SIZE,
  BLOCKS_PER_GROUP,
  DESCRIPTOR_SIZE,
  INODES_PER_BLOCK,
  MAX_INODES_PER_GROUP,
} from './format.ts';

export interface Geometry {
  groups: number;
  inodesPerGroup: number;
  /** Blocks of one group's inode table. */
  tableBlocks: number;
  /** Where the inode tables, and behind them the bitmaps begin. */
  tablesAt: number;
  bitmapsAt: number;
  /** End of what is used, and of the file system. */
  usedBlocks: number;
  totalBlocks: number;
}

/** The fewest groups that hold `dataBlocks` blocks and `inodes` inodes, with the smallest tables for them. */
export function divide(dataBlocks: number, inodes: number): Geometry {
  for (let groups = Math.max(1, Math.ceil(dataBlocks / BLOCKS_PER_GROUP)); ; groups++) {
    const inodesPerGroup = Math.ceil(Math.ceil(inodes / groups) / INODES_PER_BLOCK) * INODES_PER_BLOCK;
    if (inodesPerGroup > MAX_INODES_PER_GROUP) continue;
    const tableBlocks = inodesPerGroup / INODES_PER_BLOCK;
    const bitmapsAt = dataBlocks + groups * tableBlocks;
    const usedBlocks = bitmapsAt + groups * 2;
    if (usedBlocks > groups * BLOCKS_PER_GROUP) continue;
    // The last group has at least one block.
    const totalBlocks = Math.max(usedBlocks, (groups - 1) * BLOCKS_PER_GROUP + 1);
    return { groups, inodesPerGroup, tableBlocks, tablesAt: dataBlocks, bitmapsAt, usedBlocks, totalBlocks };
  }
}

/** Blocks of the group descriptors of a disk of so many blocks. */
export function descriptorBlocks(blocks: number): number {
  return Math.ceil((Math.ceil(blocks / BLOCKS_PER_GROUP) * DESCRIPTOR_SIZE) / BLOCK_SIZE);
}
