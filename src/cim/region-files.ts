/** The region files of an open image, its ancestors' first, in the order their numbers have. Every read is bounded. */

import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { isErrorCode } from '../errors.ts';
import { attempt, type CimFault, corruptAt, faultOf } from './faults.ts';
import {
  decodeRegionHeader,
  REGION_HEADER_SIZE,
  type RegionOffset,
  type RegionSet,
  regionFileName,
} from './format.ts';
import { Digester } from './object-ids.ts';

const MAX_OBJECT = 2 ** 30;
const DIGEST_CHUNK = 1024 * 1024;

export interface Region {
  path: string;
  /** As the header says; see RegionType. */
  type: number;
  /** Bytes in the file. */
  size: number;
  guid: string;
  /** Number within its own region set. */
  index: number;
}

export class RegionFiles {
  readonly regions: readonly Region[];
  /** -1 where a file could not be opened and the caller tolerates it. */
  readonly #descriptors: readonly number[];

  readonly #image: string;

  private constructor(image: string, regions: Region[], descriptors: number[]) {
    this.#image = image;
    this.regions = regions;
    this.#descriptors = descriptors;
  }

  /**
   * Opens all files of an image's sets, which are beside it. With `tolerate`, a missing or malformed file is handed to it and reads from that
   * region fail; without, it is the error.
   */
  static open(image: string, sets: RegionSet[], tolerate?: (fault: CimFault) => void): RegionFiles {
    const regions: Region[] = [];
    const descriptors: number[] = [];
    try {
      for (const { guid, count } of sets)
        for (let index = 0; index < count; index++) {
          const region = {
            path: join(dirname(image), regionFileName(guid, index)),
            type: -1,
            size: 0,
            guid,
            index,
          };
          regions.push(region);
          descriptors.push(-1);
          try {
            descriptors[descriptors.length - 1] = openDescriptor(region.path);
            readHeader(region, descriptors.at(-1) ?? -1);
          } catch (error) {
            const fault =
              faultOf(error) ??
              (isErrorCode(error, 'unsupported-host') ? versionFault(region, error) : undefined);
            if (tolerate === undefined || fault === undefined) throw error;
            region.size = 0;
            tolerate(fault);
          }
        }
    } catch (error) {
      for (const descriptor of descriptors) if (descriptor >= 0) closeSync(descriptor);
      throw error;
    }
    return new RegionFiles(image, regions, descriptors);
  }

  close(): void {
    for (const descriptor of this.#descriptors) if (descriptor >= 0) closeSync(descriptor);
  }

  /** Refuses a range that isn't inside its region file. `what` names the object for the error. */
  locate(at: RegionOffset, length: number, what: string): Region {
    const region = this.regions[at.region];
    if (region === undefined)
      throw corruptAt(
        this.#image,
        0,
        `${what} is said to be in region ${at.region} of ${this.regions.length}`,
      );
    if (at.offset < REGION_HEADER_SIZE || at.offset + length > region.size)
      throw corruptAt(
        region.path,
        at.offset,
        `${what} (${length} bytes) lies outside the ${region.size} bytes`,
      );
    return region;
  }

  /** Fills `target` from `skip` bytes after the object's start. */
  readInto(at: RegionOffset, skip: number, target: Uint8Array, what: string): void {
    const from = { region: at.region, offset: at.offset + skip };
    const { path } = this.locate(from, target.length, what);
    const descriptor = this.#descriptors[at.region] ?? -1;
    for (let done = 0; done < target.length; ) {
      const read = attempt(`read ${path}`, () =>
        readSync(descriptor, target, done, target.length - done, from.offset + done),
      );
      if (read === 0) throw corruptAt(path, from.offset + done, `${what}: the file became shorter`);
      done += read;
    }
  }

  /** One object whole; none that a sane image has is as large as the limit. */
  read(at: RegionOffset, length: number, what: string): Buffer {
    const { path } = this.locate(at, length, what);
    if (length > MAX_OBJECT)
      throw corruptAt(path, at.offset, `${what} has ${length} bytes, too many to read`);
    const bytes = Buffer.allocUnsafeSlow(length);
    this.readInto(at, 0, bytes, what);
    return bytes;
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

function openDescriptor(path: string): number {
  try {
    return openSync(path, 'r');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT')
      throw corruptAt(path, 0, 'the region file is missing');
    return attempt(`open ${path}`, () => {
      throw error;
    });
  }
}

function readHeader(region: Region, descriptor: number): void {
  const bytes = Buffer.alloc(REGION_HEADER_SIZE);
  const read = attempt(`read ${region.path}`, () => {
    region.size = fstatSync(descriptor).size;
    return readSync(descriptor, bytes, 0, bytes.length, 0);
  });
  region.type = decodeRegionHeader(bytes.subarray(0, read), region.path).type;
}

function versionFault(region: Region, error: Error): CimFault {
  return { file: region.path, offset: 16, message: error.message };
}
