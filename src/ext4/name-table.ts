/** All names of an image: which inode a directory has under a name. About 24 bytes of memory a name. */

import { randomInt } from 'node:crypto';
import { Column } from './columns.ts';
import { type GatheredNames, NameStore } from './name-store.ts';

/** No entry; the numbers of entries begin with 1. */
export const NO_ENTRY = 0;

/** Names are byte strings: each character is one byte. Entries are never taken away, only given another inode. */
export class NameTable {
  readonly #inode = new Column(4);
  /** The one before of the same directory. */
  readonly #previous = new Column(4);
  /** Of directory and name: what is equal otherwise is mostly equal, and read from the store only then. */
  readonly #hash = new Column(4);
  readonly #collision = new Column(4);
  /** Where the name is in the store. */
  readonly #place = new Column(4);
  readonly #store: NameStore;
  #buckets = new Uint32Array(1024);
  /** Who makes a layer cannot choose names that all fall into one bucket. */
  readonly #seed = randomInt(2 ** 32);

  /** `folder` is where names go that are too many for memory. */
  constructor(folder: string) {
    this.#store = new NameStore(folder);
    for (const column of [this.#inode, this.#previous, this.#hash, this.#collision, this.#place])
      column.push(0);
  }

  /** Adds a name that isn't there; `previous` is the entry added before to this directory. */
  add(directory: number, name: string, inode: number, previous: number): number {
    if (this.#inode.length > this.#buckets.length) this.#grow();
    const entry = this.#inode.length;
    const hash = this.#hashOf(directory, name);
    this.#inode.push(inode);
    this.#previous.push(previous);
    this.#hash.push(hash);
    this.#collision.push(0);
    this.#place.push(this.#store.add(directory, name));
    this.#chain(entry, hash);
    return entry;
  }

  find(directory: number, name: string): number {
    const hash = this.#hashOf(directory, name);
    let entry = this.#buckets[this.#bucketOf(hash)] ?? NO_ENTRY;
    while (entry !== NO_ENTRY && !this.#is(entry, hash, directory, name)) entry = this.#collision.get(entry);
    return entry;
  }

  inodeOf(entry: number): number {
    return this.#inode.get(entry);
  }

  setInode(entry: number, inode: number): void {
    this.#inode.set(entry, inode);
  }

  /** The entries of a directory in the order they were added, from the last one on. */
  list(last: number): number[] {
    const entries: number[] = [];
    for (let entry = last; entry !== NO_ENTRY; entry = this.#previous.get(entry)) entries.push(entry);
    return entries.reverse();
  }

  gather(entries: readonly number[]): GatheredNames {
    return this.#store.gather(entries.map((entry) => this.#place.get(entry)));
  }

  close(): void {
    this.#store.close();
  }

  #is(entry: number, hash: number, directory: number, name: string): boolean {
    return this.#hash.get(entry) === hash && this.#store.is(this.#place.get(entry), directory, name);
  }

  #hashOf(directory: number, name: string): number {
    const mixed = Math.imul(directory ^ this.#seed, 0x9e3779b1);
    let hash = mixed ^ (mixed >>> 16);
    for (let at = 0; at < name.length; at++) hash = Math.imul(hash ^ name.charCodeAt(at), 0x01000193);
    return (hash ^ (hash >>> 15)) >>> 0;
  }

  #bucketOf(hash: number): number {
    return hash & (this.#buckets.length - 1);
  }

  #chain(entry: number, hash: number): void {
    const bucket = this.#bucketOf(hash);
    this.#collision.set(entry, this.#buckets[bucket] ?? 0);
    this.#buckets[bucket] = entry;
  }

  #grow(): void {
    this.#buckets = new Uint32Array(this.#buckets.length * 2);
    for (let entry = 1; entry < this.#inode.length; entry++) this.#chain(entry, this.#hash.get(entry));
  }
}
