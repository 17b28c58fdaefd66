import { CimletError } from '../errors.ts';
import { parsePaxTime, readPaxRecords } from './pax.ts';
import { checksum, isZeroBlock, readNumber } from './tar-block.ts';
import {
  BLOCK,
  ENTRY_TYPES,
  entryError,
  Field,
  MAX_EXTENDED_HEADER,
  type PaxRecords,
  quoteName,
  type TarEntryType,
  type TarHeader,
  UNREADABLE,
} from './tar-format.ts';
import { decodeText } from './tar-text.ts';

/** Receives what a TarReader finds, in order: `entry`, then for files `data` (any number of times) and `end`. */
export interface TarHandler {
  entry(header: TarHeader): void;
  /** A view into the bytes given to `write`: copy it to keep it. Never empty. */
  data(chunk: Uint8Array): void;
  /** After the last byte of a file (also of an empty one). Not called for other types. */
  end(): void;
}

export interface TarReaderOptions {
  /**
   * What names, link targets and PAX values are read as. `bytes`: each character is one byte, whatever the encoding, as Linux has it; keywords
   * too. Default: `utf-8`, where anything else (but WTF-8) is an error.
   */
  text?: 'utf-8' | 'bytes';
  /**
   * Hands on entries in PAX sparse format 0.1 and 1.0 as the tar stores them: `size` and data are the stored ones, the map is in the records
   * `GNU.sparse.*` or before the data (see tar-sparse.ts). Default: they are errors.
   */
  sparse?: boolean;
}

type Decode = (bytes: Buffer, start: number, end: number) => string | undefined;

const decodeBytes: Decode = (bytes, start, end) => bytes.toString('latin1', start, end);

type State = 'header' | 'extension' | 'data' | 'padding' | 'zero-block' | 'done';

const NO_RECORDS: PaxRecords = new Map();

/** All global PAX headers of a tar together: they are kept, and copied for each local one. What is real is one comment. */
const MAX_GLOBAL_HEADERS = 64 * 1024;

/**
 * Push parser for tar streams: v7, ustar, PAX (local and global headers), GNU long names and base-256 numbers.
 * Give it buffers of any size with `write`, then call `finish`. Data are handed on without copying.
 *
 * Throws CimletError `corrupt`, naming entry and byte offset, for a wrong checksum, malformed numbers and records,
 * unknown types, sparse entries and an end inside an entry. As other readers do, it accepts a stream that ends at an
 * entry's boundary with no or one zero block, and ignores everything after two zero blocks; a header after a single
 * zero block is refused, since what follows would be lost without a word.
 */
export class TarReader {
  readonly #handler: TarHandler;
  readonly #decode: Decode;
  readonly #acceptsSparse: boolean;
  #state: State = 'header';
  /** Bytes consumed so far. */
  #position = 0;
  readonly #block = Buffer.alloc(BLOCK);
  #blockFill = 0;
  /** Data bytes, then padding bytes, still to come. */
  #remaining = 0;
  #padding = 0;

  #extensionType = '';
  #extension = Buffer.alloc(0);
  #extensionFill = 0;

  /** Where the entry being put together starts. */
  #entryOffset = 0;
  #entryName = '';
  #global: Map<string, string> | undefined;
  #globalBytes = 0;
  #records: Map<string, string> | undefined;
  #longName: string | undefined;
  #longLink: string | undefined;

  constructor(handler: TarHandler, { text = 'utf-8', sparse = false }: TarReaderOptions = {}) {
    this.#handler = handler;
    this.#decode = text === 'bytes' ? decodeBytes : decodeText;
    this.#acceptsSparse = sparse;
  }

  /** Parses the next bytes of the stream. */
  write(chunk: Uint8Array): void {
    const bytes = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
    let at = 0;
    while (at < bytes.length) {
      const taken = this.#take(bytes, at);
      at += taken;
      this.#position += taken;
      this.#advance();
    }
  }

  /** Call at the end of the stream. */
  finish(): void {
    // Missing padding or half a second zero block loses nothing.
    const inHeader = this.#state === 'header' && this.#blockFill > 0;
    if (inHeader || this.#state === 'data' || this.#state === 'extension') {
      throw new CimletError(
        'corrupt',
        `tar ends at offset ${this.#position} inside ${this.#describePlace()}: the stream is truncated`,
      );
    }
    if (this.#hasPendingExtension()) {
      throw new CimletError(
        'corrupt',
        `tar ends at offset ${this.#position} after an extended header (offset ${this.#entryOffset}) that no entry follows`,
      );
    }
    this.#state = 'done';
  }

  /** Consumes bytes in the present state and returns how many. */
  #take(bytes: Buffer, at: number): number {
    const available = bytes.length - at;
    switch (this.#state) {
      case 'header':
      case 'zero-block':
        return this.#takeBlock(bytes, at, available);
      case 'extension': {
        const count = Math.min(this.#remaining, available);
        bytes.copy(this.#extension, this.#extensionFill, at, at + count);
        this.#extensionFill += count;
        this.#remaining -= count;
        return count;
      }
      case 'data': {
        const count = Math.min(this.#remaining, available);
        this.#handler.data(bytes.subarray(at, at + count));
        this.#remaining -= count;
        return count;
      }
      case 'padding': {
        const count = Math.min(this.#padding, available);
        this.#padding -= count;
        return count;
      }
      case 'done':
        return available;
    }
  }

  /** Moves on from states whose bytes have all come. */
  #advance(): void {
    if (this.#state === 'data' && this.#remaining === 0) {
      this.#state = this.#padding > 0 ? 'padding' : 'header';
      this.#handler.end();
    } else if (this.#state === 'extension' && this.#remaining === 0) {
      this.#state = this.#padding > 0 ? 'padding' : 'header';
      this.#readExtension();
    } else if (this.#state === 'padding' && this.#padding === 0) {
      this.#state = 'header';
    }
  }

  #takeBlock(bytes: Buffer, at: number, available: number): number {
    if (this.#blockFill === 0 && available >= BLOCK) {
      this.#readBlock(bytes, at, this.#position);
      return BLOCK;
    }
    const count = Math.min(BLOCK - this.#blockFill, available);
    bytes.copy(this.#block, this.#blockFill, at, at + count);
    this.#blockFill += count;
    if (this.#blockFill === BLOCK) {
      this.#blockFill = 0;
      this.#readBlock(this.#block, 0, this.#position + count - BLOCK);
    }
    return count;
  }

  #readBlock(block: Buffer, base: number, offset: number): void {
    const sum = checksum(block, base);
    if (isZeroBlock(block, base, sum)) {
      this.#state = this.#state === 'zero-block' ? 'done' : 'zero-block';
      return;
    }
    if (this.#state === 'zero-block') {
      throw new CimletError(
        'corrupt',
        `tar has a lone zero block at offset ${offset - BLOCK}, before more entries`,
      );
    }
    if (!this.#hasPendingExtension()) this.#entryOffset = offset;
    this.#entryName = '';
    const stored = readNumber(block, base, Field.checksum);
    if (stored !== sum.unsigned && stored !== sum.signed) {
      throw new CimletError('corrupt', `tar header at offset ${offset}: wrong checksum`, {
        hint: 'the tar is damaged, or what comes here is not a tar',
      });
    }
    this.#readHeader(block, base);
  }

  #readHeader(block: Buffer, base: number): void {
    const typeFlag = String.fromCharCode(block[base + Field.typeFlag[0]] ?? 0);
    // Read first, so that whatever else is wrong can be told with the name.
    this.#entryName = this.#longName ?? this.#records?.get('path') ?? this.#headerName(block, base);
    const size = this.#number(block, base, 'size');

    if (typeFlag === 'x' || typeFlag === 'g' || typeFlag === 'L' || typeFlag === 'K') {
      if (size < 0 || size > MAX_EXTENDED_HEADER) {
        this.#fail(`extended header of ${size} bytes; at most ${MAX_EXTENDED_HEADER} are accepted`);
      }
      this.#extensionType = typeFlag;
      this.#extension = Buffer.allocUnsafe(size);
      this.#extensionFill = 0;
      this.#expect('extension', size);
      if (size === 0) this.#readExtension();
      return;
    }
    if (typeFlag === 'V') {
      // GNU volume label: a name for the archive, no entry.
      this.#clearExtensions();
      return;
    }
    const reason = UNREADABLE[typeFlag];
    if (reason !== undefined) this.#fail(reason, 'make the layer again without that option of tar');
    const type = ENTRY_TYPES[typeFlag];
    if (type === undefined) this.#fail(`unknown entry type ${quoteName(typeFlag)}`);
    this.#readEntry(block, base, type, typeFlag, size);
  }

  #readEntry(block: Buffer, base: number, type: TarEntryType, typeFlag: string, headerSize: number): void {
    const records = this.#entryRecords();
    const name = this.#entryName;
    // Before ustar there was no type for directories: a trailing slash said it.
    const actual = typeFlag === '\0' && name.endsWith('/') ? 'directory' : type;
    const header: TarHeader = {
      name,
      type: actual,
      size: actual === 'file' ? this.#paxNumber(records, 'size', headerSize) : 0,
      linkName:
        actual === 'hard-link' || actual === 'symlink'
          ? (this.#longLink ?? records.get('linkpath') ?? this.#text(block, base, Field.linkName))
          : '',
      mode: this.#number(block, base, 'mode'),
      uid: this.#paxNumber(records, 'uid', this.#number(block, base, 'uid')),
      gid: this.#paxNumber(records, 'gid', this.#number(block, base, 'gid')),
      mtime: this.#paxTime(records, 'mtime') ?? BigInt(this.#number(block, base, 'mtime')) * 1_000_000_000n,
      atime: this.#paxTime(records, 'atime'),
      ctime: this.#paxTime(records, 'ctime'),
      device: actual.endsWith('-device') ? this.#device(block, base) : undefined,
      records,
      offset: this.#entryOffset,
    };
    this.#clearExtensions();
    if (header.type === 'file') this.#expect('data', header.size);
    this.#handler.entry(header);
    if (header.type === 'file' && header.size === 0) this.#handler.end();
  }

  #entryRecords(): PaxRecords {
    const local = this.#records;
    const records = local ?? this.#global ?? NO_RECORDS;
    if (records.size > 0 && !this.#acceptsSparse) {
      for (const keyword of records.keys()) {
        if (keyword.startsWith('GNU.sparse.')) {
          this.#entryName = records.get('GNU.sparse.name') ?? this.#entryName;
          this.#fail('sparse files in PAX format are not supported', 'make the layer again without --sparse');
        }
      }
    }
    return records;
  }

  #readExtension(): void {
    const body = this.#extension;
    switch (this.#extensionType) {
      case 'x':
      case 'g': {
        if (this.#extensionType === 'g') this.#globalBytes += body.length;
        if (this.#globalBytes > MAX_GLOBAL_HEADERS)
          this.#fail(`global headers of more than ${MAX_GLOBAL_HEADERS} bytes`);
        const records: Map<string, string> =
          this.#extensionType === 'g' ? (this.#global ?? new Map()) : new Map(this.#global);
        const fault = readPaxRecords(body, records, this.#decode);
        if (fault !== undefined) this.#fail(fault);
        if (this.#extensionType === 'g') this.#global = records;
        else this.#records = records;
        break;
      }
      case 'L':
        this.#longName = this.#extensionText(body);
        break;
      default:
        this.#longLink = this.#extensionText(body);
    }
  }

  #extensionText(body: Buffer): string {
    const zero = body.indexOf(0);
    const text = this.#decode(body, 0, zero < 0 ? body.length : zero);
    if (text === undefined) this.#fail("long name isn't valid UTF-8");
    return text;
  }

  #headerName(block: Buffer, base: number): string {
    const name = this.#text(block, base, Field.name);
    // Only POSIX ustar ("ustar\0") has a prefix; GNU's magic is "ustar  " and uses those bytes otherwise.
    if (block[base + 345] === 0 || block.toString('latin1', base + 257, base + 263) !== 'ustar\0')
      return name;
    return `${this.#text(block, base, Field.prefix)}/${name}`;
  }

  #text(block: Buffer, base: number, [at, length]: readonly [number, number]): string {
    const start = base + at;
    let end = start;
    while (end < start + length && block[end] !== 0) end++;
    const text = this.#decode(block, start, end);
    if (text === undefined) {
      this.#entryName = block.toString('latin1', start, end);
      this.#fail("name isn't valid UTF-8", 'names must be UTF-8');
    }
    return text;
  }

  #device(block: Buffer, base: number): { major: number; minor: number } {
    return {
      major: this.#number(block, base, 'devMajor'),
      minor: this.#number(block, base, 'devMinor'),
    };
  }

  #number(
    block: Buffer,
    base: number,
    field: 'mode' | 'uid' | 'gid' | 'size' | 'mtime' | 'devMajor' | 'devMinor',
  ): number {
    const value = readNumber(block, base, Field[field]);
    if (value === undefined) this.#fail(`malformed number in the field ${field}`);
    return value;
  }

  /** A number that a PAX record may overrule. Some writers put negative owners into the plain header. */
  #paxNumber(records: PaxRecords, keyword: 'size' | 'uid' | 'gid', fromHeader: number): number {
    const text = records.get(keyword);
    const value = text === undefined ? fromHeader : /^\d{1,16}$/.test(text) ? Number(text) : Number.NaN;
    if (!Number.isSafeInteger(value) || (value < 0 && keyword === 'size')) {
      this.#fail(`impossible ${keyword} ${quoteName(text ?? String(value))}`);
    }
    return value;
  }

  #paxTime(records: PaxRecords, keyword: string): bigint | undefined {
    const text = records.get(keyword);
    if (text === undefined) return undefined;
    const time = parsePaxTime(text);
    if (time === undefined) this.#fail(`malformed PAX time ${keyword}=${quoteName(text)}`);
    return time;
  }

  #expect(state: 'data' | 'extension', size: number): void {
    this.#remaining = size;
    this.#padding = (BLOCK - (size % BLOCK)) % BLOCK;
    if (size > 0) this.#state = state;
  }

  #hasPendingExtension(): boolean {
    return this.#records !== undefined || this.#longName !== undefined || this.#longLink !== undefined;
  }

  #clearExtensions(): void {
    this.#records = undefined;
    this.#longName = undefined;
    this.#longLink = undefined;
  }

  #describePlace(): string {
    if (this.#state === 'header') return 'a header';
    const what = this.#state === 'data' ? 'the data' : 'the extended header';
    return `${what} of ${quoteName(this.#shownName())} (entry at offset ${this.#entryOffset}, ${this.#remaining} bytes missing)`;
  }

  #shownName(): string {
    return this.#decode === decodeBytes ? Buffer.from(this.#entryName, 'latin1').toString() : this.#entryName;
  }

  #fail(reason: string, hint?: string): never {
    throw entryError(
      { name: this.#shownName(), offset: this.#entryOffset },
      reason,
      hint === undefined ? {} : { hint },
    );
  }
}
