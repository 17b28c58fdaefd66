/** What every tool needs of a `.cim` file before its contents: its header and the files it consists of. */

import { closeSync, fstatSync, readSync, statSync } from 'node:fs';
import { classify } from '../errors.ts';
import { openForReading } from './byte-source.ts';
import { attempt } from './faults.ts';
import {
  decodeImageHeader,
  IMAGE_HEADER_SIZE,
  type ImageHeader,
  objectIdFileName,
  REGION_SET_SIZE,
  type RegionSet,
  regionFileName,
} from './format.ts';

const LONGEST_HEADER = IMAGE_HEADER_SIZE + 0xffff * REGION_SET_SIZE;

/** Reads the header of a `.cim` file of any format version. */
export function readImageHeader(path: string): ImageHeader {
  return attempt(`open CIM ${path}`, () => {
    const descriptor = openForReading(path);
    try {
      const bytes = Buffer.alloc(Math.min(fstatSync(descriptor).size, LONGEST_HEADER));
      const read = readSync(descriptor, bytes, 0, bytes.length, 0);
      return decodeImageHeader(bytes.subarray(0, read), path);
    } finally {
      closeSync(descriptor);
    }
  });
}

/** Names of the files of one region set; object ID files may be absent in images that others wrote. */
export function setFileNames(set: RegionSet): string[] {
  const indexes = Array.from({ length: set.count }, (_, i) => i);
  return [
    ...indexes.map((i) => regionFileName(set.guid, i)),
    ...indexes.map((i) => objectIdFileName(set.guid, i)),
  ];
}

/** Name of the `.cim` file of an image, or of the image in its container. */
export function imageFileName(name: string): string {
  return `${name}.cim`;
}

export interface CimFile {
  name: string;
  size: number;
}

/** A file's size, or undefined when there is no such file. */
export function fileSize(path: string): number | undefined {
  try {
    return statSync(path).size;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw classify(error, `look at ${path}`);
  }
}
