/** All names of an image: which inode a directory has under a name. About 40 bytes a name, the name included. */

import { randomInt } from 'node:crypto';
import { CimletError } from '../errors.ts';
import { Column } from './columns.ts';

/** No entry; the numbers of entries begin with 1. */
export const NO_ENTRY = 0;

const ARENA = 1 << 20;
const MAX_ARENAS = 4096;

/** Names are byte strings: each character is one byte. Entries are never taken away, only given another inode. */
export class NameTable {
  readonly #inode = new Column(4);
  readonly #directory = new Column(4);
  /** The one before of the same directory. */
  readonly #previous = new Column(4);
  readonly #collision = new Column(4);
  /** Where the name is: arena and offset. Its first byte is its length. */
  readonly #name = new Column(4);
  readonly #arenas: Buffer[] = [];
  #arenaUsed = ARENA;
  #buckets = new Uint32Array(1024);
  /** Who makes a layer cannot choose names that all fall into one bucket. */
  readonly #seed = randomInt(2 ** 32);

  constructor() {
    for (const column of [this.#inode, this.#directory, this.#previous, this.#collision, this.#name])
      column.push(0);
  }

  /** Adds a name that isn't there; `previous` is the entry added before to this directory. */
  add(directory: number, name: string, inode: number, previous: number): number {
    if (this.#inode.length > this.#buckets.length) this.#grow();
    const entry = this.#inode.length;
    const bucket = this.#bucketOf(directory, name);
    this.#inode.push(inode);
    this.#directory.push(directory);
    this.#previous.push(previous);
    this.#collision.push(this.#buckets[bucket] ?? 0);
    this.#name.push(this.#store(name));
    this.#buckets[bucket] = entry;
    return entry;
  }

  find(directory: number, name: string): number {
    let entry = this.#buckets[this.#bucketOf(directory, name)] ?? NO_ENTRY;
    while (entry !== NO_ENTRY && !this.#is(entry, directory, name)) entry = this.#collision.get(entry);
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

  copyName(entry: number, target: Buffer, at: number): void {
    const arena = this.#arenaOf(entry);
    const offset = this.#offsetOf(entry);
    arena.copy(target, at, offset + 1, offset + 1 + (arena[offset] as number));
  }

  lengthOf(entry: number): number {
    return this.#arenaOf(entry)[this.#offsetOf(entry)] as number;
  }

  #arenaOf(entry: number): Buffer {
    return this.#arenas[Math.floor(this.#name.get(entry) / ARENA)] as Buffer;
  }

  #offsetOf(entry: number): number {
    return this.#name.get(entry) % ARENA;
  }

  #is(entry: number, directory: number, name: string): boolean {
    if (this.#directory.get(entry) !== directory) return false;
    const arena = this.#arenaOf(entry);
    const offset = this.#offsetOf(entry);
    if (arena[offset] !== name.length) return false;
    for (let at = 0; at < name.length; at++) if (arena[offset + 1 + at] !== name.charCodeAt(at)) return false;
    return true;
  }

  #store(name: string): number {
    if (this.#arenaUsed + 1 + name.length > ARENA) {
      if (this.#arenas.length === MAX_ARENAS)
        throw new CimletError('corrupt', `write ext4: the names take more than ${MAX_ARENAS} MiB`);
      this.#arenas.push(Buffer.allocUnsafeSlow(ARENA));
      this.#arenaUsed = 0;
    }
    const arena = this.#arenas.at(-1) as Buffer;
    const place = (this.#arenas.length - 1) * ARENA + this.#arenaUsed;
    arena[this.#arenaUsed] = name.length;
    arena.write(name, this.#arenaUsed + 1, 'latin1');
    this.#arenaUsed += 1 + name.length;
    return place;
  }

  #bucketOf(directory: number, name: string): number {
    let hash = this.#mix(directory);
    for (let at = 0; at < name.length; at++) hash = Math.imul(hash ^ name.charCodeAt(at), 0x01000193);
    return ((hash ^ (hash >>> 15)) >>> 0) & (this.#buckets.length - 1);
  }

  #mix(directory: number): number {
    const mixed = Math.imul(directory ^ this.#seed, 0x9e3779b1);
    return mixed ^ (mixed >>> 16);
  }

  #grow(): void {
    this.#buckets = new Uint32Array(this.#buckets.length * 2);
    for (let entry = 1; entry < this.#inode.length; entry++) {
      const arena = this.#arenaOf(entry);
      const offset = this.#offsetOf(entry);
      let hash = this.#mix(this.#directory.get(entry));
      const end = offset + 1 + (arena[offset] as number);
      for (let at = offset + 1; at < end; at++) hash = Math.imul(hash ^ (arena[at] as number), 0x01000193);
      const bucket = ((hash ^ (hash >>> 15)) >>> 0) & (this.#buckets.length - 1);
      this.#collision.set(entry, this.#buckets[bucket] ?? 0);
      this.#buckets[bucket] = entry;
    }
  }
}
