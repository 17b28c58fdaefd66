import { CimletError } from '../errors.ts';
import { encodePaxRecord, formatPaxTime } from './pax.ts';
import { BLOCK, Field, quoteName, type TarEntryType, TYPE_FLAGS } from './tar-format.ts';
import { encodeText } from './tar-text.ts';

/** What TarWriter needs to know of an entry; absent numbers are 0. */
export interface TarEntry {
  name: string;
  type: TarEntryType;
  /** Bytes that will be written; files only. */
  size?: number;
  linkName?: string;
  mode?: number;
  uid?: number;
  gid?: number;
  /** Nanoseconds since 1970. */
  mtime?: bigint;
  atime?: bigint | undefined;
  ctime?: bigint | undefined;
  /** Of device files only. */
  device?: { major: number; minor: number } | undefined;
  /** Further PAX records. Those for name, link, size and times are made when the plain header can't hold the value. */
  records?: Readonly<Record<string, string>>;
}

const NANOSECONDS = 1_000_000_000n;
const MAX_OCTAL_7 = 0o7777777;
const MAX_OCTAL_11 = 0o77777777777;
const ZEROS = Buffer.alloc(BLOCK);

/**
 * Writes a POSIX (PAX) tar. The output depends on nothing but the calls: no clock, no user, records in a fixed order.
 * Bytes go to `sink` in order; buffers handed to `data` are passed on as they are.
 */
export class TarWriter {
  readonly #encode: typeof encodeText;
  readonly #sink: (bytes: Uint8Array) => void;
  #name = '';
  #remaining = 0;
  #padding = 0;

  /** `bytes`: every character of a text stands for one byte. */
  constructor(sink: (bytes: Uint8Array) => void, { text = 'utf-8' }: { text?: 'utf-8' | 'bytes' } = {}) {
    this.#encode = text === 'bytes' ? (value) => Buffer.from(value, 'latin1') : encodeText;
    this.#sink = sink;
  }

  /** Begins an entry. The one before must have got all its data (CimletError `failed-precondition`). */
  entry(entry: TarEntry): void {
    this.#expectComplete();
    const size = entry.type === 'file' ? (entry.size ?? 0) : 0;
    const records = extendedRecords(entry, size, this.#encode);
    if (records.length > 0) {
      const body = Buffer.concat(records);
      this.#sink(headerBlock({ name: 'PaxHeaders.0/entry', mode: 0 }, 'x', body.length));
      this.#sink(body);
      this.#pad(body.length);
    }
    this.#sink(headerBlock(entry, TYPE_FLAGS[entry.type], size));
    this.#name = entry.name;
    this.#remaining = size;
    this.#padding = size;
  }

  /** The next bytes of the present file. */
  data(bytes: Uint8Array): void {
    if (bytes.length > this.#remaining) {
      throw new CimletError(
        'failed-precondition',
        `write tar entry ${quoteName(this.#name)}: ${bytes.length - this.#remaining} bytes more than its declared size`,
      );
    }
    if (bytes.length > 0) this.#sink(bytes);
    this.#remaining -= bytes.length;
    if (this.#remaining === 0 && this.#padding > 0) {
      this.#pad(this.#padding);
      this.#padding = 0;
    }
  }

  /** An entry together with its data. */
  file(entry: Omit<TarEntry, 'type' | 'size'>, content: Uint8Array): void {
    this.entry({ ...entry, type: 'file', size: content.length });
    this.data(content);
  }

  /** Writes the end of the archive. */
  finish(): void {
    this.#expectComplete();
    this.#sink(ZEROS);
    this.#sink(ZEROS);
  }

  #expectComplete(): void {
    if (this.#remaining === 0) return;
    throw new CimletError(
      'failed-precondition',
      `write tar entry ${quoteName(this.#name)}: ${this.#remaining} bytes of its declared size are missing`,
    );
  }

  #pad(size: number): void {
    const rest = size % BLOCK;
    if (rest > 0) this.#sink(ZEROS.subarray(rest));
  }
}

function extendedRecords(entry: TarEntry, size: number, encode: typeof encodeText): Buffer[] {
  const records: Record<string, string> = { ...entry.records };
  if (!fits(entry.name, Field.name[1])) records.path = entry.name;
  if (entry.linkName !== undefined && !fits(entry.linkName, Field.linkName[1]))
    records.linkpath = entry.linkName;
  if (size > MAX_OCTAL_11) records.size = String(size);
  if ((entry.uid ?? 0) > MAX_OCTAL_7) records.uid = String(entry.uid);
  if ((entry.gid ?? 0) > MAX_OCTAL_7) records.gid = String(entry.gid);
  const mtime = entry.mtime ?? 0n;
  if (mtime % NANOSECONDS !== 0n || headerTime(mtime) === undefined) records.mtime = formatPaxTime(mtime);
  if (entry.atime !== undefined) records.atime = formatPaxTime(entry.atime);
  if (entry.ctime !== undefined) records.ctime = formatPaxTime(entry.ctime);
  return Object.keys(records)
    .sort()
    .map((keyword) => encodePaxRecord(keyword, records[keyword] ?? '', encode));
}

/** Plain headers hold ASCII only, so that no reader has to guess an encoding. */
function fits(text: string, length: number): boolean {
  return text.length <= length && /^[\x20-\x7e]*$/.test(text);
}

/** Seconds as the plain header holds them; undefined when it can't. */
function headerTime(time: bigint): number | undefined {
  const seconds = Number(time / NANOSECONDS);
  return time >= 0n && seconds <= MAX_OCTAL_11 ? seconds : undefined;
}

function headerBlock(entry: Omit<TarEntry, 'type'>, typeFlag: string, size: number): Buffer {
  const block = Buffer.alloc(BLOCK);
  const text = (value: string, [at, length]: readonly [number, number]) => {
    encodeText(value).copy(block, at, 0, length);
  };
  const octal = (value: number, [at, length]: readonly [number, number]) => {
    block.write(value.toString(8).padStart(length - 1, '0'), at, 'latin1');
  };
  text(entry.name, Field.name);
  text(entry.linkName ?? '', Field.linkName);
  octal(entry.mode ?? 0, Field.mode);
  octal(withinOctal(entry.uid ?? 0), Field.uid);
  octal(withinOctal(entry.gid ?? 0), Field.gid);
  octal(size > MAX_OCTAL_11 ? 0 : size, Field.size);
  octal(headerTime(entry.mtime ?? 0n) ?? 0, Field.mtime);
  block.write(typeFlag, Field.typeFlag[0], 'latin1');
  block.write('ustar\x0000', Field.magic[0], 'latin1');
  octal(entry.device?.major ?? 0, Field.devMajor);
  octal(entry.device?.minor ?? 0, Field.devMinor);
  block.fill(0x20, Field.checksum[0], Field.checksum[0] + Field.checksum[1]);
  let sum = 0;
  for (const byte of block) sum += byte;
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, Field.checksum[0], 'latin1');
  return block;
}

/** What doesn't fit is in a PAX record; the plain field says 0. */
function withinOctal(value: number): number {
  return value > MAX_OCTAL_7 ? 0 : value;
}
