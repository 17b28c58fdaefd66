/**
 * Writes compact ext4 images: data first, in the order they come; directories, inode tables and bitmaps behind them. One pass over the data,
 * bounded memory whatever their size, and about 30 bytes for each file. The same calls give the same bytes.
 *
 * There is no journal, no reserved space and one copy of the metadata: such an image is only ever mounted read-only, which it says itself.
 * Names, link targets and names of extended attributes are byte strings: each character is one byte.
 */

import { closeSync, ftruncateSync, openSync } from 'node:fs';
import { CimletError } from '../errors.ts';
import { BlockOutput, type OnWritten } from './block-output.ts';
import { writeExtents } from './extents.ts';
import { attempt, refuse } from './faults.ts';
import { FileData } from './file-data.ts';
import { type FinishedImage, finishImage } from './finish.ts';
import {
  BLOCK_SIZE,
  EntryType,
  INODE_DATA,
  InodeFlag,
  MAX_FAST_SYMLINK,
  MAX_SYMLINK,
  ModeType,
  ROOT_INODE,
} from './format.ts';
import { descriptorBlocks } from './geometry.ts';
import { encodeDevice } from './inode.ts';
import { directoryInode, type Ext4Attributes, InodeBuilder, NOBODY } from './inode-builder.ts';
import { type LowerLayers, NO_LAYERS } from './paths.ts';
import { WHITEOUT } from './tree.ts';
import { MAX_INLINE_REST } from './xattrs.ts';

const DEFAULT_MAX_SIZE = 16 * 2 ** 30;
/** What block numbers of 32 bits reach. */
export const LARGEST_MAX_SIZE = 16 * 2 ** 40;
const MAX_FILE_SIZE = 128 * 2 ** 30;
const MAX_INLINE = INODE_DATA + MAX_INLINE_REST;

export interface Ext4Options {
  /** Small files lie in their inodes: smaller, but not every reader knows it. */
  inlineData?: boolean | undefined;
  /** Bytes that the image may have at most; room for the descriptors of so much is kept. Default: 16 GiB. */
  maxSize?: number | undefined;
  /** Asked for directories that are made only because of what is in them, for the root, and for symlinks on the way. Default: there are none below. */
  lower?: LowerLayers | undefined;
  /** Told which blocks are as they will be; those before the first it is told of are written last. */
  onWritten?: OnWritten | undefined;
}

interface OpenFile {
  inode: number;
  attributes: Ext4Attributes;
  /** Its data, when they go into the inode. */
  inline: Buffer | undefined;
  size: number;
}

export interface Device {
  major: number;
  minor: number;
}

/** Paths are `a/b/c`, '' is the root; missing directories on the way are made, with what their parent has. */
export class Ext4Writer {
  readonly #descriptor: number;
  readonly #output: BlockOutput;
  readonly #inlineData: boolean;
  readonly #maxSize: number;
  readonly #data: FileData;
  readonly #inodes: InodeBuilder;
  readonly #lower: LowerLayers;
  /** The root of a file's extents on its way into the inode. */
  readonly #root = Buffer.alloc(INODE_DATA);
  /** The file whose data are being written, and how many are to come. */
  #open: OpenFile | undefined;
  #missing = 0;

  /** Makes the file `path`, or empties the one that is there. `close` must be called, whatever happens. */
  constructor(
    path: string,
    {
      inlineData = false,
      maxSize = DEFAULT_MAX_SIZE,
      lower = NO_LAYERS,
      onWritten = () => undefined,
    }: Ext4Options = {},
  ) {
    if (!(maxSize >= BLOCK_SIZE && maxSize <= LARGEST_MAX_SIZE))
      throw new CimletError('failed-precondition', `write ${path}: a disk of at most ${maxSize} bytes`, {
        hint: `the limit may be from ${BLOCK_SIZE} to ${LARGEST_MAX_SIZE} bytes`,
      });
    this.#inlineData = inlineData;
    this.#maxSize = maxSize;
    this.#lower = lower;
    this.#descriptor = attempt(`create ${path}`, () => openSync(path, 'w+'));
    const maxBlocks = Math.floor(maxSize / BLOCK_SIZE);
    this.#output = new BlockOutput(path, this.#descriptor, maxBlocks, onWritten);
    this.#inodes = new InodeBuilder(this.#output, lower);
    this.#data = new FileData(this.#output);
    try {
      // The boot block with the superblock, and the group descriptors.
      this.#output.skip(1 + descriptorBlocks(maxBlocks));
      this.directory('', lower.directory('') ?? { ...NOBODY, mode: 0o755 });
      this.directory('lost+found', { ...NOBODY, mode: 0o700 });
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** A directory; one that is there keeps what is in it, and gets these attributes. */
  directory(path: string, attributes: Ext4Attributes): void {
    const inode = path === '' ? ROOT_INODE : this.#inodes.placeDirectory(...this.#inodes.locate(path));
    this.#inodes.put(inode, attributes, directoryInode());
  }

  /** Begins a file; exactly `size` bytes must follow with `data` and `zeros`, then `end`. */
  file(path: string, size: number, attributes: Ext4Attributes): void {
    if (size > MAX_FILE_SIZE) throw refuse(`a file of ${size} bytes; at most ${MAX_FILE_SIZE} are possible`);
    const inode = this.#inodes.place(path, EntryType.file);
    const inline = this.#inlineData && size <= MAX_INLINE ? Buffer.alloc(size) : undefined;
    this.#open = { inode, attributes, inline, size };
    this.#missing = size;
    this.#data.begin();
  }

  data(bytes: Uint8Array): void {
    const { inline, size } = this.#expect(bytes.length);
    if (inline !== undefined) inline.set(bytes, size - this.#missing);
    else this.#data.write(bytes);
    this.#missing -= bytes.length;
  }

  /** So many bytes of zeros, which take no space when they are many. */
  zeros(length: number): void {
    const { inline } = this.#expect(length);
    if (inline === undefined) this.#data.writeZeros(length);
    this.#missing -= length;
  }

  end(): void {
    const { inode, attributes, inline, size } = this.#expect(0);
    if (this.#missing > 0) throw refuse(`${this.#missing} bytes less than its declared size`);
    this.#open = undefined;
    const mode = ModeType.file;
    if (inline !== undefined) {
      const data = inline.subarray(0, INODE_DATA);
      const rest = inline.subarray(INODE_DATA);
      this.#inodes.put(inode, attributes, { mode, size, data, flags: InodeFlag.inlineData }, rest);
      return;
    }
    const { extents, stored } = this.#data.finish();
    const treeBlocks = writeExtents(extents, this.#root, (node) => this.#output.append(node));
    this.#inodes.put(inode, attributes, {
      mode,
      size,
      data: this.#root,
      flags: InodeFlag.extents,
      blocks: stored + treeBlocks,
    });
  }

  symlink(path: string, target: string, attributes: Ext4Attributes): void {
    if (target === '' || target.length > MAX_SYMLINK || target.includes('\0'))
      throw refuse(`a link target of ${target.length} bytes; 1 to ${MAX_SYMLINK} without NUL are possible`);
    const inode = this.#inodes.place(path, EntryType.symlink);
    const bytes = Buffer.from(target, 'latin1');
    const mode = ModeType.symlink;
    // All may do what they want with a symlink, on any Linux.
    const everybody = { ...attributes, mode: 0o777 };
    if (bytes.length <= MAX_FAST_SYMLINK) {
      this.#inodes.put(inode, everybody, { mode, size: bytes.length, data: bytes });
      return;
    }
    const block = Buffer.alloc(BLOCK_SIZE);
    bytes.copy(block);
    const extent = { logical: 0, physical: this.#output.append(block), count: 1 };
    writeExtents([extent], this.#root, () => 0);
    this.#inodes.put(inode, everybody, {
      mode,
      size: bytes.length,
      data: this.#root,
      flags: InodeFlag.extents,
      blocks: 1,
    });
  }

  device(path: string, kind: 'character' | 'block', device: Device, attributes: Ext4Attributes): void {
    const { major, minor } = device;
    if (!(major >= 0 && major < 2 ** 12 && minor >= 0 && minor < 2 ** 20))
      throw refuse(`device ${major}:${minor}; at most ${2 ** 12 - 1}:${2 ** 20 - 1} is possible`);
    const isWhiteout = kind === 'character' && major === 0 && minor === 0;
    const type = kind === 'block' ? EntryType.blockDevice : EntryType.characterDevice;
    const mode = kind === 'block' ? ModeType.blockDevice : ModeType.characterDevice;
    const inode = this.#inodes.place(path, isWhiteout ? WHITEOUT : type);
    this.#inodes.put(inode, attributes, { mode, size: 0, data: encodeDevice(device) });
  }

  fifo(path: string, attributes: Ext4Attributes): void {
    const inode = this.#inodes.place(path, EntryType.fifo);
    this.#inodes.put(inode, attributes, { mode: ModeType.fifo, size: 0, data: Buffer.alloc(0) });
  }

  /** Another name for the file `target`, which may be a symlink, but no directory. */
  link(path: string, target: string): void {
    this.#inodes.link(path, target);
  }

  /** Hides what layers below have under a path: overlayfs' character device 0:0, or an opaque directory where there is one. */
  whiteout(path: string): void {
    const existing = this.#inodes.find(path);
    if (existing === undefined) this.device(path, 'character', { major: 0, minor: 0 }, NOBODY);
    else if (this.#inodes.tree.isDirectory(existing)) this.#inodes.makeOpaque(existing);
  }

  /** Hides what layers below have in a directory. */
  opaque(path: string): void {
    this.#inodes.makeOpaque(this.#inodes.findDirectory(path));
  }

  /** Writes everything else. The image is whole when this returns, but not yet on disk. */
  finish(): FinishedImage {
    if (this.#open !== undefined) throw new Error('a file is being written');
    if (this.#inodes.tree.isOpaque(ROOT_INODE)) this.#hideBelow();
    const image = finishImage({
      inodes: this.#inodes,
      output: this.#output,
      maxBlocks: Math.floor(this.#maxSize / BLOCK_SIZE),
      inlineData: this.#inlineData,
    });
    attempt(`write ${this.#output.path}`, () => ftruncateSync(this.#descriptor, image.size));
    return image;
  }

  close(): void {
    this.#inodes.close();
    closeSync(this.#descriptor);
  }

  /** Overlayfs shows the names in the roots of all layers, whatever attributes these have: each is hidden by itself. */
  #hideBelow(): void {
    for (const name of this.#lower.rootNames()) if (name !== 'lost+found') this.whiteout(name);
  }

  #expect(length: number): OpenFile {
    if (this.#open === undefined) throw new Error('no file is being written');
    if (length > this.#missing) throw refuse(`${length - this.#missing} bytes more than its declared size`);
    return this.#open;
  }
}
