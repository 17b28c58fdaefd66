/**
 * PE image streams: a 512-byte aligned PE file laid out on 4 KiB pages, so its bytes aren't contiguous. Layout: data
 * offset u64; data length i64; image length u32; mapping count u16; flags u16; mappings {file offset u32, delta u32}.
 * Bytes from a mapping's file offset on live `delta` bytes further in the data. Read only; our writer makes none.
 */

import { corruptAt } from './faults.ts';
import { type RegionOffset, readRegionOffset } from './format.ts';
import type { RegionFiles } from './region-files.ts';

const HEADER_SIZE = 24;
const MAPPING_SIZE = 8;

export interface PeImage {
  data: RegionOffset;
  dataLength: number;
  /** The mappings as on disk. */
  mappings: Buffer;
}

export function readPeImage(files: RegionFiles, at: RegionOffset, what: string): PeImage {
  const bytes = files.read(at, HEADER_SIZE, `PE image of ${what}`);
  const { path } = files.locate(at, HEADER_SIZE, what);
  const data = readRegionOffset(bytes, 0);
  if (data === undefined) throw corruptAt(path, at.offset, `the PE image of ${what} has no data`);
  const dataLength = Number(BigInt.asUintN(63, bytes.readBigUInt64LE(8)));
  const mappings = files.read(
    { region: at.region, offset: at.offset + HEADER_SIZE },
    bytes.readUInt16LE(20) * MAPPING_SIZE,
    `PE mappings of ${what}`,
  );
  return { data, dataLength, mappings };
}

/** Where in the data the byte at `position` of the file is, and how many follow it without a gap (may be none). */
export function locatePeBytes(image: PeImage, position: number): { skip: number; length: number } {
  let delta = 0;
  let end = image.dataLength;
  for (let mapping = 0; mapping < image.mappings.length; mapping += MAPPING_SIZE) {
    const fileOffset = image.mappings.readUInt32LE(mapping);
    if (fileOffset > position) {
      end = fileOffset;
      break;
    }
    delta = image.mappings.readUInt32LE(mapping + 4);
  }
  return { skip: position + delta, length: end - position };
}
