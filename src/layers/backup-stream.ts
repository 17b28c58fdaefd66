/**
 * A Windows file as BackupRead gives it and BackupWrite takes it: streams one after the other, each a WIN32_STREAM_ID and
 * its bytes. Source: https://learn.microsoft.com/windows/win32/api/winbase/ns-winbase-win32_stream_id; which stream holds
 * what, and in which order, is go-winio's backuptar.
 */

import type { FileMetadata } from '../cim/types.ts';
import { CimletError } from '../errors.ts';

export const BackupStreamId = {
  data: 1,
  extendedAttributes: 2,
  security: 3,
  alternateData: 4,
  link: 5,
  reparseData: 8,
  /** 64 bits of offset, then the bytes that are there in a sparse file. */
  sparseBlock: 9,
} as const;

/** Of a data stream whose bytes follow as sparse blocks. */
export const SPARSE_STREAM = 8;

export interface BackupStreamHeader {
  id: number;
  attributes: number;
  /** Bytes that follow. */
  size: number;
  /** `:name:$DATA` of an alternate stream; empty otherwise. */
  name: string;
}

const HEADER = 20;
/** NTFS names have 255 characters; the colons and the type come to it. */
const MAX_NAME_BYTES = 1024;
const CHUNK = 1 << 20;

export function encodeStreamHeader(id: number, size: number, name = ''): Buffer {
  const nameBytes = Buffer.from(name, 'utf16le');
  const header = Buffer.alloc(HEADER + nameBytes.length);
  header.writeUInt32LE(id, 0);
  header.writeBigInt64LE(BigInt(size), 8);
  header.writeUInt32LE(nameBytes.length, 16);
  nameBytes.copy(header, HEADER);
  return header;
}

/** What comes before a file's data: descriptor, extended attributes, reparse data. */
export function encodeMetadataStreams({
  securityDescriptor,
  extendedAttributes,
  reparseData,
}: FileMetadata): Buffer {
  const { security, extendedAttributes: attributes, reparseData: reparse } = BackupStreamId;
  return Buffer.concat([
    ...wholeStream(security, securityDescriptor),
    ...wholeStream(attributes, extendedAttributes),
    ...wholeStream(reparse, reparseData),
  ]);
}

/** None for nothing. */
function wholeStream(id: number, bytes: Uint8Array | undefined): Uint8Array[] {
  return bytes === undefined || bytes.length === 0 ? [] : [encodeStreamHeader(id, bytes.length), bytes];
}

/** Reads streams one after the other. Throws `corrupt`, with `name` and offset, for what isn't a row of them. */
export class BackupStreamReader {
  readonly #fill: (buffer: Buffer) => number;
  readonly #name: string;
  #offset = 0;
  #left = 0;

  /** `fill` puts the next bytes into a buffer and says how many; 0 at the end. */
  constructor(fill: (buffer: Buffer) => number, name: string) {
    this.#fill = fill;
    this.#name = name;
  }

  /** The next stream; what is left of the one before is skipped. Undefined at the end. */
  next(): BackupStreamHeader | undefined {
    for (const _ of this.chunks());
    const header = this.#read(HEADER);
    if (header.length === 0) return undefined;
    const size = header.length < HEADER ? -1n : header.readBigInt64LE(8);
    const nameBytes = header.length < HEADER ? 0 : header.readUInt32LE(16);
    if (
      size < 0n ||
      size > BigInt(Number.MAX_SAFE_INTEGER) ||
      nameBytes > MAX_NAME_BYTES ||
      nameBytes % 2 === 1
    )
      throw this.#corrupt('a backup stream begins with no valid header');
    const name = this.#read(nameBytes);
    if (name.length < nameBytes) throw this.#corrupt('the name of a backup stream is cut short');
    this.#left = Number(size);
    return {
      id: header.readUInt32LE(0),
      attributes: header.readUInt32LE(4),
      size: this.#left,
      name: name.toString('utf16le'),
    };
  }

  /** What is left of the present stream. */
  *chunks(): Generator<Buffer> {
    while (this.#left > 0) yield this.take(Math.min(CHUNK, this.#left));
  }

  /** The next bytes of the present stream, which has as many. */
  take(length: number): Buffer {
    if (length > this.#left) throw this.#corrupt(`a backup stream has less than ${length} bytes left`);
    const bytes = this.#read(length);
    if (bytes.length < length) throw this.#corrupt('a backup stream is cut short');
    this.#left -= length;
    return bytes;
  }

  /** Bytes left of the present stream. */
  get left(): number {
    return this.#left;
  }

  /** Fewer at the end only. */
  #read(length: number): Buffer {
    const bytes = Buffer.allocUnsafeSlow(length);
    let done = 0;
    while (done < length) {
      const count = this.#fill(bytes.subarray(done));
      if (count === 0) break;
      done += count;
    }
    this.#offset += done;
    return bytes.subarray(0, done);
  }

  #corrupt(what: string): CimletError {
    return new CimletError('corrupt', `read ${this.#name}: ${what}, before byte ${this.#offset}`);
  }
}
