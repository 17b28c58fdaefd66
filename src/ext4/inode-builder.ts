/** The inodes and names of an image that is being written: what a path leads to, and what takes the place of what. */

import { dirname } from 'node:path';
import type { BlockOutput } from './block-output.ts';
import { type Extent, readExtents } from './extents.ts';
import { quote, refuse } from './faults.ts';
import { EntryType, InodeFlag, LOST_AND_FOUND, MAX_LINKS, ModeType } from './format.ts';
import { FreedBlocks } from './freed-blocks.ts';
import { decodeInode, encodeInode, type Inode } from './inode.ts';
import { InodeSpool } from './inode-spool.ts';
import { NO_ENTRY } from './name-table.ts';
import { type LowerLayers, PathResolver } from './paths.ts';
import { Tree, WHITEOUT } from './tree.ts';
import { decodeXattrs, encodeXattrs, type Xattr, xattrFault } from './xattrs.ts';

/** Times are nanoseconds since 1970; exact from 1901 to 2446. */
export interface Ext4Attributes {
  /** Permissions, without the type. */
  mode: number;
  uid: number;
  gid: number;
  mtime: bigint;
  atime: bigint;
  ctime: bigint;
  /** Those in a namespace that Linux shows to nobody are left out. */
  xattrs: readonly Xattr[];
}

export const NOBODY: Ext4Attributes = {
  mode: 0,
  uid: 0,
  gid: 0,
  mtime: 0n,
  atime: 0n,
  ctime: 0n,
  xattrs: [],
};

const OPAQUE: Xattr = { name: 'trusted.overlay.opaque', value: Buffer.from('y') };
/** The highest number means no owner to the kernel. */
const MAX_OWNER = 2 ** 32 - 2;
const SECTORS_PER_BLOCK = 8;

/** What an inode is beside its attributes. */
export interface InodeContent {
  /** Type only. */
  mode: number;
  size: number;
  data: Uint8Array;
  flags?: number;
  /** Of its data, and of the tree of its extents. */
  blocks?: number;
}

/** A directory, whose size is known in the end. */
export function directoryInode(): InodeContent {
  return { mode: ModeType.directory, size: 0, data: Buffer.alloc(0), flags: InodeFlag.extents };
}

export class InodeBuilder {
  readonly tree: Tree;
  readonly spool: InodeSpool;
  readonly freed = new FreedBlocks();
  readonly #output: BlockOutput;
  readonly #paths: PathResolver;

  constructor(output: BlockOutput, lower: LowerLayers) {
    this.#output = output;
    const folder = dirname(output.path);
    this.tree = new Tree(folder);
    this.spool = new InodeSpool(folder);
    this.#paths = new PathResolver(this, lower);
  }

  close(): void {
    this.spool.close();
    this.tree.names.close();
  }

  /** The directory that a path's last name is in, which is made if need be, and that name. */
  locate(path: string): [directory: number, name: string] {
    return this.#paths.locate(path);
  }

  /** The inode of a path, without following it if it is a symlink itself. */
  find(path: string): number | undefined {
    return this.#paths.find(path);
  }

  /** The directory at a path, made if need be. */
  findDirectory(path: string): number {
    return this.#paths.directory(path);
  }

  /** An inode for a file that is no directory, in place of whatever has its path. */
  place(path: string, kind: number): number {
    const [directory, name] = this.locate(path);
    const entry = this.tree.names.find(directory, name);
    const inode = this.tree.addFile(kind, this.#release(directory, entry));
    this.#name(directory, name, entry, inode);
    return inode;
  }

  /** Gives the file at `target` one more path, in place of whatever has it. */
  link(path: string, target: string): void {
    const shown = `its link target ${quote(target)}`;
    // First, since a directory on the way may take the place of the target.
    const [directory, name] = this.locate(path);
    const inode = this.find(target);
    if (inode === undefined) throw refuse(`${shown} isn't there`);
    if (this.tree.isDirectory(inode)) throw refuse(`${shown} is a directory`);
    const entry = this.tree.names.find(directory, name);
    if (entry !== NO_ENTRY && this.tree.names.inodeOf(entry) === inode) return;
    if (this.tree.linksOf(inode) >= MAX_LINKS)
      throw refuse(`${shown} has ${MAX_LINKS} names, no more are possible`);
    this.#release(directory, entry);
    if (this.tree.kindOf(inode) === EntryType.free)
      throw refuse(`${shown} is in the directory that it replaces`);
    this.#name(directory, name, entry, inode);
  }

  /** The directory of that name, or a new one in place of another file. */
  placeDirectory(directory: number, name: string): number {
    const entry = this.tree.names.find(directory, name);
    const existing = entry === NO_ENTRY ? undefined : this.tree.names.inodeOf(entry);
    if (existing !== undefined && this.tree.isDirectory(existing)) return existing;
    const hides = existing !== undefined && this.tree.kindOf(existing) === WHITEOUT;
    const inode = this.tree.addDirectory(directory, this.#release(directory, entry));
    if (hides) this.tree.setOpaque(inode);
    this.#name(directory, name, entry, inode);
    return inode;
  }

  /** For a path that names no directory before: one as it is below, else with the attributes of its parent. */
  implyDirectory(parent: number, name: string, below: Ext4Attributes | undefined): number {
    if (below !== undefined) {
      const directory = this.placeDirectory(parent, name);
      this.put(directory, below, directoryInode());
      return directory;
    }
    const { mode, uid, gid, mtime, atime, ctime } = decodeInode(this.spool.read(parent));
    const inode = this.placeDirectory(parent, name);
    this.put(inode, { mode, uid, gid, mtime, atime, ctime, xattrs: [] }, directoryInode());
    return inode;
  }

  /** Where a symlink leads. */
  targetOf(inode: number): string {
    const { data, size, flags } = decodeInode(this.spool.read(inode));
    if ((flags & InodeFlag.extents) === 0) return Buffer.from(data).toString('latin1', 0, size);
    const [extent] = this.#extentsOf(data);
    return extent === undefined ? '' : this.#output.read(extent.physical).toString('latin1', 0, size);
  }

  /** Writes an inode's record, for the first time or again. */
  put(inode: number, attributes: Ext4Attributes, content: InodeContent, inlineRest?: Buffer): void {
    const { uid, gid } = attributes;
    for (const owner of [uid, gid])
      if (!(owner >= 0 && owner <= MAX_OWNER)) throw refuse(`owner ${owner}; 0 to ${MAX_OWNER} are possible`);
    const isDirectory = content.mode === ModeType.directory;
    const xattrs = this.#xattrsFor(inode, attributes.xattrs, isDirectory);
    const encoded = encodeXattrs(xattrs, inlineRest);
    if (encoded === undefined)
      throw refuse('its extended attributes together are too large for an inode and a block');
    if (isDirectory) this.#freeXattrBlock(inode);
    const xattrBlock = encoded.block === undefined ? 0 : this.#output.append(encoded.block);
    const record: Inode = {
      mode: content.mode | (attributes.mode & 0o7777),
      uid,
      gid,
      mtime: attributes.mtime,
      atime: attributes.atime,
      ctime: attributes.ctime,
      crtime: attributes.mtime,
      size: content.size,
      links: 0, // Known in the end.
      sectors: ((content.blocks ?? 0) + (xattrBlock === 0 ? 0 : 1)) * SECTORS_PER_BLOCK,
      flags: content.flags ?? 0,
      data: content.data,
      xattrBlock,
      xattrs: encoded.inode,
    };
    this.spool.change(inode, (bytes) => encodeInode(bytes, record));
  }

  /** Hides what layers below have in a directory. */
  makeOpaque(directory: number): void {
    if (this.tree.isOpaque(directory)) return;
    this.tree.setOpaque(directory);
    const record = decodeInode(this.spool.read(directory));
    const block = record.xattrBlock === 0 ? undefined : this.#output.read(record.xattrBlock);
    const { xattrs } = decodeXattrs(record.xattrs, block, (_place, message) => {
      throw new Error(message);
    });
    this.put(directory, { ...record, xattrs }, directoryInode());
  }

  #xattrsFor(inode: number, xattrs: readonly Xattr[], isDirectory: boolean): Xattr[] {
    const kept = xattrs.filter((xattr) => {
      const fault = xattrFault(xattr);
      if (fault !== undefined && fault !== 'namespace')
        throw refuse(
          `its extended attribute ${quote(xattr.name)} of ${xattr.value.length} bytes is ${fault}`,
        );
      return fault === undefined;
    });
    if (!isDirectory || !this.tree.isOpaque(inode)) return kept;
    return [...kept.filter(({ name }) => name !== OPAQUE.name), OPAQUE];
  }

  #name(directory: number, name: string, entry: number, inode: number): void {
    if (entry === NO_ENTRY) this.tree.enter(directory, name, inode);
    else this.tree.replace(directory, entry, inode);
  }

  /** Takes an entry's file away; returns its inode if nothing else needs it and it can be used again. */
  #release(directory: number, entry: number): number | undefined {
    if (entry === NO_ENTRY) return undefined;
    const inode = this.tree.names.inodeOf(entry);
    if (inode === LOST_AND_FOUND) throw refuse('lost+found must stay a directory');
    this.#paths.forget();
    if (this.tree.isDirectory(inode)) {
      this.#removeDirectory(directory, inode);
      return undefined;
    }
    if (!this.tree.release(directory, inode)) return undefined;
    this.#freeBlocks(inode);
    return inode;
  }

  /** With all that is in it. Its number is not used again: names of it stay in the table. */
  #removeDirectory(parent: number, top: number): void {
    this.tree.release(parent, top);
    const pending = [top];
    for (let directory = pending.pop(); directory !== undefined; directory = pending.pop()) {
      this.#freeXattrBlock(directory);
      for (const entry of this.tree.entriesOf(directory)) {
        const inode = this.tree.names.inodeOf(entry);
        if (this.tree.isDirectory(inode)) {
          this.tree.free(inode);
          pending.push(inode);
        } else if (this.tree.release(directory, inode)) this.#freeBlocks(inode);
      }
    }
  }

  #freeBlocks(inode: number): void {
    const { data, flags } = decodeInode(this.spool.read(inode));
    if ((flags & InodeFlag.extents) !== 0)
      for (const { physical, count } of this.#extentsOf(data, (block) => this.freed.add(block, 1)))
        this.freed.add(physical, count);
    this.#freeXattrBlock(inode);
    this.spool.change(inode, (record) => record.fill(0));
  }

  #freeXattrBlock(inode: number): void {
    const { xattrBlock } = decodeInode(this.spool.read(inode));
    if (xattrBlock !== 0) this.freed.add(xattrBlock, 1);
  }

  #extentsOf(data: Uint8Array, onNode?: (block: number) => void): Iterable<Extent> {
    return readExtents(Buffer.from(data), {
      read: (block) => this.#output.read(block),
      fail: (message) => {
        throw new Error(message);
      },
      ...(onNode && { onNode }),
    });
  }
}
