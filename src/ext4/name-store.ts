/** Names of an image that is being written, and which directory each is in: the latest in memory, the others in a nameless file beside it. */

import { closeSync, readSync, writeSync } from 'node:fs';
import { CimletError } from '../errors.ts';
import { attempt } from './faults.ts';
import { MAX_NAME } from './format.ts';
import { openNameless } from './nameless-file.ts';

/** In memory; small images have no file. */
const WINDOW = 1 << 20;
/** Read at a time where names are asked for in order; else as much as one may take. */
const AHEAD = 1 << 16;
/** Before a name: its directory in four bytes, its length in one. */
const HEADER = 5;
const LARGEST = HEADER + MAX_NAME;
/** A place is a number of 32 bits. */
const MAX_BYTES = 2 ** 32;

/** Names, one after another: number `index` is from `starts[index]` up to `starts[index + 1]`. */
export interface GatheredNames {
  bytes: Buffer;
  starts: Uint32Array;
}

/** Names are byte strings: each character is one byte. */
export class NameStore {
  readonly #folder: string;
  readonly #window = Buffer.allocUnsafeSlow(WINDOW);
  /** Place of the window's first byte, and bytes in it. */
  #start = 0;
  #used = 0;
  /** A piece of the file, and which. */
  readonly #piece = Buffer.allocUnsafeSlow(AHEAD);
  #pieceStart = 0;
  #pieceEnd = 0;
  #starts = new Uint32Array(0);
  #gathered = Buffer.alloc(0);
  #descriptor: number | undefined;

  /** `folder` is where the file goes. */
  constructor(folder: string) {
    this.#folder = folder;
  }

  /** Returns its place. */
  add(directory: number, name: string): number {
    const size = HEADER + name.length;
    if (this.#used + size > WINDOW) this.#flush();
    const place = this.#start + this.#used;
    if (place + size > MAX_BYTES)
      throw new CimletError('corrupt', `write ext4: the names take more than ${MAX_BYTES / 2 ** 30} GiB`);
    this.#window.writeUInt32LE(directory, this.#used);
    this.#window.writeUInt8(name.length, this.#used + 4);
    this.#window.write(name, this.#used + HEADER, 'latin1');
    this.#used += size;
    return place;
  }

  is(place: number, directory: number, name: string): boolean {
    const { bytes, at } = this.#find(place);
    if (bytes[at + 4] !== name.length || bytes.readUInt32LE(at) !== directory) return false;
    return bytes.toString('latin1', at + HEADER, at + HEADER + name.length) === name;
  }

  /** The names at places that mostly grow; good until the next call. */
  gather(places: readonly number[]): GatheredNames {
    if (places.length >= this.#starts.length) this.#starts = new Uint32Array(roomFor(places.length + 1));
    const starts = this.#starts;
    let size = 0;
    for (const [index, place] of places.entries()) {
      const { bytes, at } = this.#find(place);
      starts[index] = size;
      size += bytes.readUInt8(at + 4);
    }
    starts[places.length] = size;
    if (size > this.#gathered.length) this.#gathered = Buffer.allocUnsafeSlow(roomFor(size));
    for (const [index, place] of places.entries()) {
      const { bytes, at } = this.#find(place);
      bytes.copy(this.#gathered, starts[index], at + HEADER, at + HEADER + bytes.readUInt8(at + 4));
    }
    return { bytes: this.#gathered, starts };
  }

  close(): void {
    if (this.#descriptor !== undefined) closeSync(this.#descriptor);
    this.#descriptor = undefined;
  }

  /** Where a name's header is; good until the next call. */
  #find(place: number): { bytes: Buffer; at: number } {
    if (place >= this.#start) return { bytes: this.#window, at: place - this.#start };
    const end = Math.min(place + LARGEST, this.#start);
    if (place < this.#pieceStart || end > this.#pieceEnd) this.#load(place);
    return { bytes: this.#piece, at: place - this.#pieceStart };
  }

  #load(place: number): void {
    const follows = place >= this.#pieceStart && place <= this.#pieceEnd;
    const length = Math.min(follows ? AHEAD : LARGEST, this.#start - place);
    this.#attempt((descriptor) => {
      for (let done = 0; done < length; ) {
        const read = readSync(descriptor, this.#piece, done, length - done, place + done);
        if (read === 0) throw new Error('the spool file of names became shorter');
        done += read;
      }
    });
    this.#pieceStart = place;
    this.#pieceEnd = place + length;
  }

  #flush(): void {
    this.#attempt((descriptor) => {
      for (let done = 0; done < this.#used; )
        done += writeSync(descriptor, this.#window, done, this.#used - done, this.#start + done);
    });
    this.#start += this.#used;
    this.#used = 0;
  }

  #attempt(action: (descriptor: number) => void): void {
    attempt(`spool names in ${this.#folder}`, () => {
      this.#descriptor ??= openNameless(this.#folder, 'names');
      action(this.#descriptor);
    });
  }
}

/** A power of two: what grows again and again is seldom made anew. */
function roomFor(count: number): number {
  return 2 ** Math.ceil(Math.log2(Math.max(count, 1024)));
}
