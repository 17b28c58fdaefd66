/** Positioned reads of the disk in a VHDX file. Format: vhdx.ts. */

import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { CimletError, classify } from '../errors.ts';
import {
  BlockState,
  checksumOf,
  decodeEntry,
  encodeGuid,
  entryOf,
  Item,
  MIB,
  REQUIRED,
  Region,
  VHDX,
  VHDX_COOKIE,
} from './vhdx.ts';

const LARGEST_BLOCK = 256 * MIB;
const SECTOR_SIZES = [512, 4096];
/** Of the BAT, read at a time. */
const PAGE_BYTES = 64 * 1024;
const MOST_ENTRIES = 2047;
/** As they are in a file, in hexadecimal. */
const [REGIONS, ITEMS] = [[Region.bat, Region.metadata], Object.values(Item)].map((guids) =>
  guids.map((guid) => encodeGuid(guid).toString('hex')),
) as [string[], string[]];

interface Extent {
  at: number;
  length: number;
}

/** An open VHDX. Close it. */
export class VhdxFile {
  readonly path: string;
  /** Bytes of the disk. */
  readonly size: number;
  readonly #descriptor: number;
  readonly #fileSize: number;
  readonly #bat: Extent;
  readonly #blockSize: number;
  readonly #sectorSize: number;
  #page: { at: number; bytes: Buffer } | undefined;

  /**
   * Throws `corrupt` for a file that breaks the format, `failed-precondition` for one that wasn't closed cleanly, `unsupported-host` for one
   * over a parent, or with parts of a later format that it can't be read without ([MS-VHDX] 2.2.3.2).
   */
  constructor(path: string) {
    this.path = path;
    try {
      this.#descriptor = openSync(path, 'r');
    } catch (error) {
      throw classify(error, `open ${path}`);
    }
    try {
      this.#fileSize = fstatSync(this.#descriptor).size;
      this.#requireClean();
      const regions = this.#regions();
      this.#bat = regions.bat;
      const disk = this.#disk(regions.metadata);
      this.size = disk.size;
      this.#blockSize = disk.blockSize;
      this.#sectorSize = disk.sectorSize;
      const last = Math.ceil(disk.size / disk.blockSize) - 1;
      if (entryOf(last, disk.blockSize, disk.sectorSize) + 8 > this.#bat.length)
        throw this.#corrupt(this.#bat.at, `its table is too short for ${disk.size} bytes`);
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** Fills `target` from a place of the disk; what lies beyond its end is `corrupt`. */
  readInto(target: Uint8Array, position: number): void {
    if (position + target.length > this.size) throw this.#corrupt(position, 'the disk ends before this');
    for (let done = 0; done < target.length; ) {
      const at = position + done;
      const within = at % this.#blockSize;
      const part = target.subarray(done, done + this.#blockSize - within);
      const offset = this.#offsetOf(Math.floor(at / this.#blockSize));
      if (offset === undefined) part.fill(0);
      else this.#readFile(part, offset + within);
      done += part.length;
    }
  }

  read(position: number, length: number): Buffer {
    if (position + length > this.size) throw this.#corrupt(position, 'the disk ends before this');
    const bytes = Buffer.allocUnsafe(length);
    this.readInto(bytes, position);
    return bytes;
  }

  close(): void {
    closeSync(this.#descriptor);
  }

  /** Undefined for a block of zeros. */
  #offsetOf(block: number): number | undefined {
    const entry = entryOf(block, this.#blockSize, this.#sectorSize);
    const at = Math.floor(entry / PAGE_BYTES) * PAGE_BYTES;
    if (this.#page?.at !== at) {
      const length = Math.min(PAGE_BYTES, this.#bat.length - at);
      this.#page = { at, bytes: this.#bytes(this.#bat.at + at, length) };
    }
    const { state, offset } = decodeEntry(this.#page.bytes.readBigUInt64LE(entry - at));
    if (state === BlockState.present) {
      if (offset >= MIB && offset + this.#blockSize <= this.#fileSize) return offset;
      throw this.#corrupt(this.#bat.at + entry, `block ${block} is outside of the file`);
    }
    const { notPresent, undefined: unknown, zero, unmapped } = BlockState;
    if (([notPresent, unknown, zero, unmapped] as number[]).includes(state)) return undefined;
    throw this.#corrupt(this.#bat.at + entry, `block ${block} has state ${state}`);
  }

  /** Of two headers the later one counts that is whole. A log that is in use would have to be carried out first. */
  #requireClean(): void {
    if (this.#bytes(0, 8).toString('latin1') !== VHDX_COOKIE) throw this.#corrupt(0, 'it is no VHDX');
    const headers = VHDX.headers
      .map((at) => this.#bytes(at, VHDX.headerBytes))
      .filter((bytes) => isWhole(bytes, VHDX.headerSignature))
      .sort((a, b) => (a.readBigUInt64LE(8) < b.readBigUInt64LE(8) ? 1 : -1));
    const [header] = headers;
    if (header === undefined) throw this.#corrupt(VHDX.headers[0], 'neither header is whole');
    if (header.readUInt16LE(66) !== 1) throw this.#corrupt(VHDX.headers[0], 'its version is not 1');
    if (header.subarray(48, 64).every((byte) => byte === 0)) return;
    throw new CimletError(
      'failed-precondition',
      `${this.path}: the disk is in use, or was not detached cleanly`,
      {
        hint: 'detach it first; attaching it once more to what wrote it completes it',
      },
    );
  }

  #regions(): { bat: Extent; metadata: Extent } {
    const table = VHDX.regionTables
      .map((at) => this.#bytes(at, VHDX.regionTableBytes))
      .find((bytes) => isWhole(bytes, VHDX.regionSignature));
    const [at] = VHDX.regionTables;
    if (table === undefined) throw this.#corrupt(at, 'neither region table is whole');
    const found = new Map<string, Extent>();
    for (let index = 0; index < Math.min(table.readUInt32LE(8), MOST_ENTRIES); index++) {
      const entry = table.subarray(16 + index * 32, 48 + index * 32);
      const guid = entry.toString('hex', 0, 16);
      const extent = { at: Number(entry.readBigUInt64LE(16)), length: entry.readUInt32LE(24) };
      if (extent.at < MIB || extent.at % MIB !== 0 || extent.at + extent.length > this.#fileSize)
        throw this.#corrupt(at + 16 + index * 32, 'a region is outside of the file');
      if (!REGIONS.includes(guid) && entry.readUInt32LE(28) !== 0) throw this.#unknown('region', guid);
      found.set(guid, extent);
    }
    const [bat, metadata] = REGIONS.map((guid) => found.get(guid));
    if (bat === undefined || metadata === undefined) throw this.#corrupt(at, 'a region is missing');
    if (bat.at < metadata.at + metadata.length && metadata.at < bat.at + bat.length)
      throw this.#corrupt(at, 'its regions overlap');
    return { bat, metadata };
  }

  #disk(metadata: Extent): { size: number; blockSize: number; sectorSize: number } {
    this.#requireKnownItems(metadata);
    const item = (guid: string, length: number) => this.#item(metadata, guid, length);
    const parameters = item(Item.fileParameters, 8);
    const blockSize = parameters.readUInt32LE(0);
    const size = item(Item.diskSize, 8).readBigUInt64LE();
    const sectorSize = item(Item.logicalSector, 4).readUInt32LE();
    const isBlockSize =
      blockSize >= MIB && blockSize <= LARGEST_BLOCK && Number.isInteger(Math.log2(blockSize));
    if (!isBlockSize) throw this.#corrupt(metadata.at, `its blocks have ${blockSize} bytes`);
    if (!SECTOR_SIZES.includes(sectorSize))
      throw this.#corrupt(metadata.at, `its sectors have ${sectorSize} bytes`);
    if (size === 0n || size > BigInt(VHDX.largestDisk) || size % BigInt(sectorSize) !== 0n)
      throw this.#corrupt(metadata.at, `its disk has ${size} bytes`);
    if ((parameters.readUInt32LE(4) & 2) !== 0)
      throw new CimletError('unsupported-host', `${this.path}: the disk is over a parent, which is not read`);
    return { size: Number(size), blockSize, sectorSize };
  }

  #requireKnownItems(metadata: Extent): void {
    for (const entry of this.#itemEntries(metadata)) {
      const guid = entry.toString('hex', 0, 16);
      if (!ITEMS.includes(guid) && (entry.readUInt32LE(24) & REQUIRED) !== 0)
        throw this.#unknown('metadata', guid);
    }
  }

  /** The table of the metadata: what is there, and where. */
  #itemEntries(metadata: Extent): Buffer[] {
    const table = this.#bytes(metadata.at, PAGE_BYTES);
    if (table.toString('latin1', 0, 8) !== VHDX.metadataSignature)
      throw this.#corrupt(metadata.at, 'its metadata has no table');
    const count = Math.min(table.readUInt16LE(10), MOST_ENTRIES);
    return Array.from({ length: count }, (_, index) => table.subarray(32 + index * 32, 64 + index * 32));
  }

  #item(metadata: Extent, guid: string, length: number): Buffer {
    const wanted = encodeGuid(guid);
    for (const entry of this.#itemEntries(metadata)) {
      if (!entry.subarray(0, 16).equals(wanted)) continue;
      const at = entry.readUInt32LE(16);
      if (entry.readUInt32LE(20) < length || at < PAGE_BYTES || at + length > metadata.length) break;
      return this.#bytes(metadata.at + at, length);
    }
    throw this.#corrupt(metadata.at, `its metadata has no whole item ${guid}`);
  }

  #bytes(at: number, length: number): Buffer {
    const bytes = Buffer.allocUnsafe(length);
    this.#readFile(bytes, at);
    return bytes;
  }

  #readFile(target: Uint8Array, position: number): void {
    try {
      for (let done = 0; done < target.length; ) {
        const read = readSync(this.#descriptor, target, done, target.length - done, position + done);
        if (read === 0) throw this.#corrupt(position + done, 'the file ends here');
        done += read;
      }
    } catch (error) {
      throw classify(error, `read ${this.path}`);
    }
  }

  /** Its writer says that nobody can read the file who doesn't know it. */
  #unknown(what: string, guid: string): CimletError {
    return new CimletError(
      'unsupported-host',
      `${this.path}: it needs ${what} ${encodeGuid(guid).toString('hex')}, which is not known`,
      {
        hint: 'convert the disk to one of the formats of [MS-VHDX] version 1',
      },
    );
  }

  #corrupt(at: number, why: string): CimletError {
    return new CimletError('corrupt', `${this.path} at offset ${at}: ${why}`);
  }
}

function isWhole(bytes: Buffer, signature: string): boolean {
  return bytes.toString('latin1', 0, 4) === signature && bytes.readUInt32LE(4) === checksumOf(bytes);
}
