/** The names and inodes of an image that is being written, as far as they are needed before its end: about 30 bytes of memory a file. */

import { Column } from './columns.ts';
import { EntryType, FIRST_INODE, ROOT_INODE } from './format.ts';
import { NameTable, NO_ENTRY } from './name-table.ts';

/** Entry types, and what a whiteout is here: a character device that a directory of its name replaces otherwise than other files. */
export const WHITEOUT = 8;

export class Tree {
  readonly names: NameTable;
  readonly #kind = new Column(1);
  readonly #links = new Column(2);
  /** Of a directory: its row below. */
  readonly #row = new Column(4);
  readonly #parent = new Column(4);
  readonly #lastEntry = new Column(4);
  readonly #opaque = new Column(1);
  readonly #firstBlock = new Column(4);
  readonly #blockCount = new Column(4);

  /** `folder` is where names go that are too many for memory. */
  constructor(folder: string) {
    this.names = new NameTable(folder);
    for (let inode = 0; inode < FIRST_INODE; inode++) this.#addInode(EntryType.free);
    this.makeDirectory(ROOT_INODE, ROOT_INODE);
    // It is linked to itself as a child is to its parent.
    this.addLinks(ROOT_INODE, 1);
  }

  /** One more than the highest inode number. */
  get end(): number {
    return this.#kind.length;
  }

  get directories(): number {
    return this.#parent.length;
  }

  /** A new inode that has no names yet. */
  #addInode(kind: number): number {
    this.#kind.push(kind);
    this.#links.push(0);
    this.#row.push(0);
    return this.#kind.length - 1;
  }

  /** A new inode, or `reuse`, a free one that never was a directory. */
  addFile(kind: number, reuse?: number): number {
    if (reuse === undefined) return this.#addInode(kind);
    this.#kind.set(reuse, kind);
    return reuse;
  }

  addDirectory(parent: number, reuse?: number): number {
    const inode = reuse ?? this.#addInode(EntryType.free);
    this.makeDirectory(inode, parent);
    return inode;
  }

  makeDirectory(inode: number, parent: number): void {
    this.#kind.set(inode, EntryType.directory);
    this.#row.set(inode, this.#parent.length);
    this.#links.set(inode, 1);
    this.#parent.push(parent);
    this.#lastEntry.push(NO_ENTRY);
    this.#opaque.push(0);
    this.#firstBlock.push(0);
    this.#blockCount.push(0);
  }

  /** Gives an inode a name in a directory where that name isn't taken. */
  enter(directory: number, name: string, inode: number): void {
    const row = this.#row.get(directory);
    this.#lastEntry.set(row, this.names.add(directory, name, inode, this.#lastEntry.get(row)));
    this.#countIn(directory, inode);
  }

  /** Gives an entry another inode; who let go of the one before is the caller. */
  replace(directory: number, entry: number, inode: number): void {
    this.names.setInode(entry, inode);
    this.#countIn(directory, inode);
  }

  #countIn(directory: number, inode: number): void {
    this.addLinks(inode, 1);
    if (this.isDirectory(inode)) this.addLinks(directory, 1);
  }

  /** One name less; returns whether it was the last. The entry keeps the number until it is given another. */
  release(directory: number, inode: number): boolean {
    if (this.isDirectory(inode)) {
      this.addLinks(directory, -1);
      this.free(inode);
      return true;
    }
    this.addLinks(inode, -1);
    if (this.linksOf(inode) > 0) return false;
    this.free(inode);
    return true;
  }

  free(inode: number): void {
    this.#kind.set(inode, EntryType.free);
    this.#links.set(inode, 0);
  }

  kindOf(inode: number): number {
    return this.#kind.get(inode);
  }

  entryTypeOf(inode: number): number {
    const kind = this.kindOf(inode);
    return kind === WHITEOUT ? EntryType.characterDevice : kind;
  }

  isDirectory(inode: number): boolean {
    return this.kindOf(inode) === EntryType.directory;
  }

  linksOf(inode: number): number {
    return this.#links.get(inode);
  }

  /** More than fit, which only directories may have, stay at the most. */
  addLinks(inode: number, count: number): void {
    const links = this.#links.get(inode);
    if (links < 0xffff) this.#links.set(inode, links + count);
  }

  parentOf(directory: number): number {
    return this.#parent.get(this.#row.get(directory));
  }

  entriesOf(directory: number): number[] {
    return this.names.list(this.#lastEntry.get(this.#row.get(directory)));
  }

  isOpaque(directory: number): boolean {
    return this.#opaque.get(this.#row.get(directory)) === 1;
  }

  setOpaque(directory: number): void {
    this.#opaque.set(this.#row.get(directory), 1);
  }

  blocksOf(directory: number): { first: number; count: number } {
    const row = this.#row.get(directory);
    return { first: this.#firstBlock.get(row), count: this.#blockCount.get(row) };
  }

  setBlocks(directory: number, first: number, count: number): void {
    const row = this.#row.get(directory);
    this.#firstBlock.set(row, first);
    this.#blockCount.set(row, count);
  }
}
