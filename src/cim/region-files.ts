/** The regions of an open image, its ancestors' first, in the order their numbers have. Every read is bounded. */

import { fstatSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { CimletError, isErrorCode } from '../errors.ts';
import { type ByteSource, FileSource, readWhole } from './byte-source.ts';
import { attempt, type CimFault, corrupt, corruptAt, faultOf } from './faults.ts';
import {
  decodeRegionHeader,
  objectIdFileName,
  REGION_HEADER_SIZE,
  type RegionOffset,
  type RegionSet,
  regionFileName,
} from './format.ts';
import { fileSize } from './image.ts';
import { Digester } from './object-ids.ts';

const MAX_OBJECT = 2 ** 30;
const DIGEST_CHUNK = 1024 * 1024;

export interface Region {
  /** File or block device that holds the region. */
  path: string;
  /** Where in it the region begins: 0 in a region file, a multiple of 4,096 in a container. */
  base: number;
  /** As the header says; see RegionType. */
  type: number;
  /** Bytes, its header included. */
  size: number;
  guid: string;
  /** Number within its own region set. */
  index: number;
}

/** An object ID file's bytes, and where they are. */
export interface StoredObjectIds {
  path: string;
  base: number;
  /** Absent when there is no such file. */
  bytes: Buffer | undefined;
}

/** A region with what it takes to read it. */
export interface OpenRegion {
  region: Region;
  /** Absent where it could not be opened and the caller tolerates it. Regions may share one. */
  source: ByteSource | undefined;
  readObjectIds(): StoredObjectIds;
}

export class RegionFiles {
  readonly regions: readonly Region[];
  readonly #image: string;
  readonly #opened: readonly OpenRegion[];

  /** `image` is the image's path, for errors. Takes over the sources. */
  constructor(image: string, opened: readonly OpenRegion[]) {
    this.#image = image;
    this.#opened = opened;
    this.regions = opened.map(({ region }) => region);
  }

  /**
   * Opens all files of an image's sets, which are beside it. With `tolerate`, a missing or malformed file is handed to it and reads from that
   * region fail; without, it is the error.
   */
  static open(image: string, sets: RegionSet[], tolerate?: (fault: CimFault) => void): RegionFiles {
    const opened: OpenRegion[] = [];
    try {
      for (const { guid, count } of sets)
        for (let index = 0; index < count; index++)
          opened.push(openRegionFile(dirname(image), guid, index, tolerate));
    } catch (error) {
      for (const { source } of opened) source?.close();
      throw error;
    }
    return new RegionFiles(image, opened);
  }

  close(): void {
    for (const { source } of this.#opened) source?.close();
  }

  /** A fault of the object at `at`, in the file where it is. */
  faultAt(at: RegionOffset, message: string): CimFault {
    const region = this.regions[at.region];
    if (region === undefined) return { file: this.#image, offset: 0, message };
    return { file: region.path, offset: region.base + at.offset, message };
  }

  corruptAt(at: RegionOffset, message: string): CimletError {
    return corrupt(this.faultAt(at, message));
  }

  /** Refuses a range that isn't inside its region. `what` names the object for the error. */
  locate(at: RegionOffset, length: number, what: string): Region {
    const region = this.regions[at.region];
    if (region === undefined)
      throw this.corruptAt(at, `${what} is said to be in region ${at.region} of ${this.regions.length}`);
    if (at.offset < REGION_HEADER_SIZE || at.offset + length > region.size)
      throw this.corruptAt(at, `${what} (${length} bytes) lies outside the ${region.size} bytes`);
    return region;
  }

  /** Fills `target` from `skip` bytes after the object's start. */
  readInto(at: RegionOffset, skip: number, target: Uint8Array, what: string): void {
    const from = { region: at.region, offset: at.offset + skip };
    const { path, base } = this.locate(from, target.length, what);
    const source = this.#opened[at.region]?.source;
    if (source === undefined) throw new CimletError('not-found', `read ${path}: it is not open`);
    source.readInto(target, base + from.offset, what);
  }

  /** One object whole; none that a sane image has is as large as the limit. */
  read(at: RegionOffset, length: number, what: string): Buffer {
    this.locate(at, length, what);
    if (length > MAX_OBJECT) throw this.corruptAt(at, `${what} has ${length} bytes, too many to read`);
    const bytes = Buffer.allocUnsafeSlow(length);
    this.readInto(at, 0, bytes, what);
    return bytes;
  }

  /** The object IDs of a region. */
  readObjectIds(number: number): StoredObjectIds | undefined {
    return this.#opened[number]?.readObjectIds();
  }
}

/** The object ID digest of bytes on disk, read in pieces. */
export function digestStored(files: RegionFiles, at: RegionOffset, length: number, what: string): Buffer {
  files.locate(at, length, what);
  const digester = new Digester();
  const chunk = Buffer.allocUnsafeSlow(Math.min(DIGEST_CHUNK, length));
  for (let done = 0; done < length; ) {
    const part = chunk.subarray(0, Math.min(chunk.length, length - done));
    files.readInto(at, done, part, what);
    digester.update(part);
    done += part.length;
  }
  return digester.finish();
}

function openRegionFile(
  directory: string,
  guid: string,
  index: number,
  tolerate: ((fault: CimFault) => void) | undefined,
): OpenRegion {
  const region = {
    path: join(directory, regionFileName(guid, index)),
    base: 0,
    type: -1,
    size: 0,
    guid,
    index,
  };
  const readObjectIds = () => readObjectIdFile(join(directory, objectIdFileName(guid, index)));
  let source: FileSource | undefined;
  try {
    source = openSource(region.path);
    readHeader(region, source);
  } catch (error) {
    const fault =
      faultOf(error) ?? (isErrorCode(error, 'unsupported-host') ? versionFault(region, error) : undefined);
    if (tolerate === undefined || fault === undefined) {
      source?.close();
      throw error;
    }
    region.size = 0;
    tolerate(fault);
  }
  return { region, source, readObjectIds };
}

function openSource(path: string): FileSource {
  try {
    return new FileSource(path);
  } catch (error) {
    if (isErrorCode(error, 'not-found')) throw corruptAt(path, 0, 'the region file is missing');
    throw error;
  }
}

function readHeader(region: Region, source: FileSource): void {
  const bytes = Buffer.alloc(REGION_HEADER_SIZE);
  region.size = attempt(`read ${region.path}`, () => fstatSync(source.descriptor).size);
  const read = source.readSome(bytes, 0);
  region.type = decodeRegionHeader(bytes.subarray(0, read), region.path).type;
}

function readObjectIdFile(path: string): StoredObjectIds {
  const exists = fileSize(path) !== undefined;
  return { path, base: 0, bytes: exists ? readWhole(path) : undefined };
}

function versionFault(region: Region, error: Error): CimFault {
  return { file: region.path, offset: 16, message: error.message };
}
