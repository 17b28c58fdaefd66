/**
 * First pass over a source: finds every inode, counts links, and decides where everything lies in the image. What is
 * kept for each inode is small and independent of its contents, which the second pass (writer.ts) asks for again.
 *
 * Image: head (superblock, device table) | shared xattrs | inodes with inline xattrs and tails | whole data blocks.
 */

import { setImmediate as nextTurn } from 'node:timers/promises';
import { CimletError } from '../errors.ts';
import { directorySize, sortEntries } from './directory.ts';
import {
  alignUp,
  BLOCK_SIZE,
  CHUNK_INDEX_SIZE,
  chunkCount,
  headSize,
  INODE_SIZE,
  Layout,
  MAX_DEVICES,
  MAX_SYMLINK_BYTES,
  SLOT_SIZE,
} from './format.ts';
import type { ErofsInode, ErofsSource } from './source.ts';
import { type XattrEntry, XattrPool, xattrAreaSize } from './xattrs.ts';

const INODES_PER_TURN = 2048;
const NO_XATTRS: readonly XattrEntry[] = [];

export interface SurveyedInode {
  readonly key: number;
  /** Key of the parent directory (`..`); of one of them for a file. */
  readonly parent: number;
  type: ErofsInode['type'];
  layout: Layout;
  size: number;
  nlink: number;
  xattrs: readonly XattrEntry[];
  xattrBytes: number;
  /** Slot from the start of the metadata area. */
  nid: number;
  /** First whole data block in the image, when it has any. */
  block: number;
}

export interface Survey {
  /** The root first, then breadth first in byte order of names. */
  inodes: Map<number, SurveyedInode>;
  xattrBlock: number;
  metaBlock: number;
  dataBlock: number;
  /** Of the whole image. */
  blocks: number;
}

/** Where an inode's last, partial block lies: right behind it, if inode, xattrs and tail fit into one block together. */
export function inlineTail({ layout, size }: SurveyedInode): number {
  return layout === Layout.inline ? size % BLOCK_SIZE : 0;
}

/** Throws `corrupt` for a tree that EROFS can't show, `cancelled` through the signal. */
export async function survey(source: ErofsSource, signal: AbortSignal | undefined): Promise<Survey> {
  checkVolume(source);
  const pool = new XattrPool();
  const inodes = await discover(source, pool, signal);
  const xattrBlock = headSize(source.devices.length) / BLOCK_SIZE;
  const metaBlock = xattrBlock + Math.ceil(pool.placeShared() / BLOCK_SIZE);
  const metaBytes = placeInodes(inodes.values());
  const dataBlock = metaBlock + Math.ceil(metaBytes / BLOCK_SIZE);
  const blocks = placeData(inodes.values(), dataBlock);
  if (blocks >= 2 ** 32)
    throw new CimletError('corrupt', `write EROFS image: it needs ${blocks} blocks, 2^32 or more`);
  return { inodes, xattrBlock, metaBlock, dataBlock, blocks };
}

async function discover(source: ErofsSource, pool: XattrPool, signal: AbortSignal | undefined) {
  const inodes = new Map<number, SurveyedInode>();
  const add = (key: number, parent: number): SurveyedInode => {
    const inode = source.inode(key);
    const record: SurveyedInode = {
      key,
      parent,
      type: inode.type,
      layout: Layout.plain,
      size: sizeOf(inode, key),
      nlink: inode.type === 'directory' ? 2 : 1,
      xattrs: inode.xattrs.length === 0 ? NO_XATTRS : inode.xattrs.map((xattr) => pool.use(xattr)),
      xattrBytes: 0,
      nid: 0,
      block: 0,
    };
    if (inode.type === 'file') {
      checkData(source, inode, key);
      if (inode.size > 0 && inode.data.kind !== 'bytes') record.layout = Layout.chunks;
    }
    inodes.set(key, record);
    return record;
  };

  if (add(source.root, source.root).type !== 'directory')
    throw new CimletError('corrupt', 'write EROFS image: its root is not a directory');
  let visited = 0;
  // A Map's iterator also visits what is added meanwhile: the queue of a breadth-first walk.
  for (const directory of inodes.values()) {
    if (visited++ % INODES_PER_TURN === 0) await turn(signal);
    if (directory.type !== 'directory') continue;
    const children = sortEntries(source.entries(directory.key), {
      self: directory.key,
      parent: directory.parent,
    });
    directory.size = directorySize(children);
    for (const { name, key } of children) {
      if (name === '.' || name === '..') continue;
      const known = inodes.get(key);
      if (known === undefined) {
        if (add(key, directory.key).type === 'directory') directory.nlink++;
      } else if (known.type === 'directory') {
        throw new CimletError('corrupt', `write EROFS image: directory ${key} is in the tree twice`);
      } else {
        known.nlink++;
      }
    }
  }
  return inodes;
}

/** Decides layouts and slots; an inode and what is inline with it never cross a block if they fit into one. */
function placeInodes(inodes: Iterable<SurveyedInode>): number {
  // Slot 0 stays empty: inode number 0 means "none" to some readers.
  let position = INODE_SIZE;
  for (const inode of inodes) {
    inode.xattrBytes = xattrAreaSize(inode.xattrs);
    let bytes = INODE_SIZE + inode.xattrBytes;
    const tail = inode.size % BLOCK_SIZE;
    if (inode.layout === Layout.chunks) {
      bytes = alignUp(bytes, CHUNK_INDEX_SIZE) + chunkCount(inode.size) * CHUNK_INDEX_SIZE;
    } else if (tail > 0 && bytes + tail <= BLOCK_SIZE) {
      inode.layout = Layout.inline;
      bytes += tail;
    }
    const room = BLOCK_SIZE - (position % BLOCK_SIZE);
    if ((bytes <= BLOCK_SIZE ? bytes : INODE_SIZE) > room) position += room;
    inode.nid = position / SLOT_SIZE;
    position = alignUp(position + bytes, SLOT_SIZE);
  }
  return position;
}

function placeData(inodes: Iterable<SurveyedInode>, firstBlock: number): number {
  let block = firstBlock;
  for (const inode of inodes) {
    if (inode.layout === Layout.chunks) continue;
    const blocks = Math.ceil((inode.size - inlineTail(inode)) / BLOCK_SIZE);
    if (blocks === 0) continue;
    inode.block = block;
    block += blocks;
  }
  return block;
}

function sizeOf(inode: ErofsInode, key: number): number {
  if (inode.type === 'file') return inode.size;
  if (inode.type === 'directory') return 0;
  const { length } = inode.target;
  if (length === 0 || length > MAX_SYMLINK_BYTES || inode.target.includes(0))
    throw new CimletError(
      'corrupt',
      `write EROFS symlink ${key}: its target has ${length} bytes, not 1 to ${MAX_SYMLINK_BYTES}, or contains NUL`,
    );
  return length;
}

function checkData(source: ErofsSource, inode: ErofsInode & { type: 'file' }, key: number): void {
  const { size, data } = inode;
  const fail = (why: string) => new CimletError('corrupt', `write EROFS file ${key}: ${why}`);
  if (!Number.isSafeInteger(size) || size < 0) throw fail(`its size is ${size}`);
  if (data.kind !== 'device') return;
  const device = source.devices[data.device];
  if (device === undefined) throw fail(`there is no device ${data.device}`);
  if (!Number.isSafeInteger(data.offset) || data.offset < 0 || data.offset % BLOCK_SIZE !== 0)
    throw fail(`offset ${data.offset} on device ${data.device} is not a multiple of ${BLOCK_SIZE}`);
  if (data.offset + alignUp(size, BLOCK_SIZE) > device.size)
    throw fail(`${size} bytes at ${data.offset} on device ${data.device} end past its ${device.size}`);
}

function checkVolume({ devices, uuid, volumeName }: ErofsSource): void {
  const fail = (why: string) => new CimletError('corrupt', `write EROFS image: ${why}`);
  if (devices.length > MAX_DEVICES) throw fail(`${devices.length} devices, over ${MAX_DEVICES}`);
  for (const [index, { size }] of devices.entries()) {
    if (!Number.isSafeInteger(size) || size < 0 || size % BLOCK_SIZE !== 0 || size / BLOCK_SIZE >= 2 ** 32)
      throw fail(`device ${index} has ${size} bytes, not a multiple of ${BLOCK_SIZE} under 16 TiB`);
  }
  if (uuid.length !== 16) throw fail(`its UUID has ${uuid.length} bytes`);
  if (Buffer.byteLength(volumeName ?? '') > 15) throw fail(`volume name ${volumeName} has over 15 bytes`);
}

/** Lets other work of this thread run, and obeys the signal. */
export async function turn(signal: AbortSignal | undefined): Promise<void> {
  await nextTurn();
  signal?.throwIfAborted();
}
