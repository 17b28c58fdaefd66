/**
 * Sparse files in PAX archives: versions 0.1, whose map is a record, and 1.0, whose map comes before the data.
 * Source: GNU tar manual, "Storing Sparse Files" (https://www.gnu.org/software/tar/manual/html_node/Sparse-Formats.html).
 */

import { BLOCK, type TarHeader } from './tar-format.ts';

/** Pairs of offset and length; a file needs one for each piece of data between holes. */
const MAX_PIECES = 1 << 20;

/** What a sparse entry really is. */
export interface SparseFile {
  name: string;
  size: number;
  /** Offsets and lengths in turn; undefined while it is still to be read from the data. */
  map: number[] | undefined;
}

/** Where the file's content goes, in order. */
export interface SparseSink {
  data(chunk: Uint8Array): void;
  zeros(length: number): void;
}

/** The sparse file that an entry stands for: undefined for other entries; a text says what is wrong. */
export function sparseFileOf(header: TarHeader): SparseFile | string | undefined {
  const { records } = header;
  if (header.type !== 'file') return undefined;
  const major = records.get('GNU.sparse.major');
  const map = records.get('GNU.sparse.map');
  const size = readDecimal(records.get('GNU.sparse.realsize') ?? records.get('GNU.sparse.size'));
  const name = records.get('GNU.sparse.name') ?? header.name;
  if (major === undefined && map === undefined) {
    const isSparse = [...records.keys()].some((keyword) => keyword.startsWith('GNU.sparse.'));
    return isSparse ? 'sparse files in PAX format 0.0 are not supported' : undefined;
  }
  if (size === undefined) return 'the sparse file has no valid size';
  if (major === undefined) {
    const numbers = map?.split(',').map(readDecimal) ?? [];
    if (!numbers.every((number) => number !== undefined) || numbers.length % 2 !== 0)
      return "the sparse file's map is malformed";
    return { name, size, map: numbers };
  }
  if (major !== '1' || records.get('GNU.sparse.minor') !== '0')
    return `sparse files in PAX format ${major}.${records.get('GNU.sparse.minor')} are not supported`;
  return { name, size, map: undefined };
}

function readDecimal(text: string | undefined): number | undefined {
  return text !== undefined && /^\d{1,15}$/.test(text) ? Number(text) : undefined;
}

/** Turns what a tar stores of a sparse file into the file's content. `fail` must throw. */
export class SparseExpander {
  readonly #file: SparseFile;
  readonly #sink: SparseSink;
  readonly #fail: (reason: string) => never;
  #map: number[] | undefined;
  /** Of a map in the data: bytes of it so far, the number being read, and how many numbers there will be. */
  #mapBytes = 0;
  #number = 0;
  #digits = 0;
  #expected: number | undefined;
  readonly #numbers: number[] = [];
  #padding = 0;
  /** Piece being written, and how much of it and of the file is. */
  #piece = 0;
  #pieceDone = 0;
  #position = 0;

  constructor(file: SparseFile, sink: SparseSink, fail: (reason: string) => never) {
    this.#file = file;
    this.#sink = sink;
    this.#fail = fail;
    this.#map = file.map;
  }

  write(chunk: Uint8Array): void {
    let at = this.#map === undefined ? this.#readMap(chunk) : 0;
    const skipped = Math.min(this.#padding, chunk.length - at);
    this.#padding -= skipped;
    at += skipped;
    while (at < chunk.length) {
      const count = Math.min(this.#beginPiece(), chunk.length - at);
      if (count === 0) this.#fail('the sparse file has more data than its map');
      this.#sink.data(chunk.subarray(at, at + count));
      at += count;
      this.#pieceDone += count;
      this.#position += count;
    }
  }

  end(): void {
    if (this.#map === undefined) this.#fail("the sparse file's map is cut off");
    if (this.#beginPiece() > 0) this.#fail('the sparse file has less data than its map');
    this.#sink.zeros(this.#file.size - this.#position);
  }

  /** Goes on to the piece that the next byte belongs to; returns how much of it is to come, 0 after the last one. */
  #beginPiece(): number {
    const map = this.#map ?? [];
    for (; this.#piece < map.length; this.#piece += 2, this.#pieceDone = 0) {
      const [offset = 0, length = 0] = [map[this.#piece], map[this.#piece + 1]];
      if (this.#pieceDone === 0) {
        if (offset < this.#position || offset + length > this.#file.size)
          this.#fail(
            `the sparse file's map has ${length} bytes at ${offset}, out of order or beyond its end`,
          );
        this.#sink.zeros(offset - this.#position);
        this.#position = offset;
      }
      if (this.#pieceDone < length) return length - this.#pieceDone;
    }
    return 0;
  }

  /** Reads decimal numbers with a newline behind each: how many pieces, then offset and length of each. Returns the bytes taken. */
  #readMap(chunk: Uint8Array): number {
    let at = 0;
    while (at < chunk.length && (this.#expected === undefined || this.#numbers.length < this.#expected)) {
      const byte = chunk[at++] as number;
      if (byte >= 0x30 && byte <= 0x39 && this.#digits < 15) {
        this.#number = this.#number * 10 + byte - 0x30;
        this.#digits++;
      } else if (byte === 0x0a && this.#digits > 0) this.#addNumber();
      else this.#fail("the sparse file's map is malformed");
    }
    this.#mapBytes += at;
    if (this.#numbers.length === this.#expected) {
      this.#map = this.#numbers;
      this.#padding = (BLOCK - (this.#mapBytes % BLOCK)) % BLOCK;
    }
    return at;
  }

  #addNumber(): void {
    if (this.#expected !== undefined) this.#numbers.push(this.#number);
    else if (this.#number <= MAX_PIECES) this.#expected = this.#number * 2;
    else this.#fail(`the sparse file has ${this.#number} pieces; at most ${MAX_PIECES} are accepted`);
    this.#number = 0;
    this.#digits = 0;
  }
}
