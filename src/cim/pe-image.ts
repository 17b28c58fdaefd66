/**
 * PE image streams: a 512-byte aligned PE file laid out on 4 KiB pages, so its bytes aren't contiguous. Layout: data
 * offset u64; data length i64; image length u32; mapping count u16; flags u16; mappings {file offset u32, delta u32}.
 * Bytes from a mapping's file offset on live `delta` bytes further in the data. Read only; our writer makes none.
 */

import { type RegionOffset, readRegionOffset } from './format.ts';
import type { RegionFiles } from './region-files.ts';

const HEADER_SIZE = 24;
const MAPPING_SIZE = 8;

export interface PeImage {
  data: RegionOffset;
  dataLength: number;
  /** By file offset, ascending. */
  mappings: { fileOffset: number; delta: number }[];
}

/** Reads a PE image object; mappings out of order are `corrupt`. */
export function readPeImage(files: RegionFiles, at: RegionOffset, what: string): PeImage {
  const header = files.read(at, HEADER_SIZE, `the PE image of ${what}`);
  const data = readRegionOffset(header, 0);
  if (data === undefined) throw files.corruptAt(at, `the PE image of ${what} has no data`);
  const count = header.readUInt16LE(20);
  const first = { region: at.region, offset: at.offset + HEADER_SIZE };
  const bytes = files.read(first, count * MAPPING_SIZE, `the PE mappings of ${what}`);
  const mappings = Array.from({ length: count }, (_, i) => ({
    fileOffset: bytes.readUInt32LE(i * MAPPING_SIZE),
    delta: bytes.readUInt32LE(i * MAPPING_SIZE + 4),
  }));
  if (mappings.some(({ fileOffset }, i) => fileOffset <= (mappings[i - 1]?.fileOffset ?? -1)))
    throw files.corruptAt(first, `the PE mappings of ${what} are out of order`);
  return { data, dataLength: Number(BigInt.asUintN(63, header.readBigUInt64LE(8))), mappings };
}

/** Where in the data the byte at `position` of the file is, and how many follow it without a gap (may be none). */
export function locatePeBytes(image: PeImage, position: number): { skip: number; length: number } {
  let low = 0;
  let high = image.mappings.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((image.mappings[middle]?.fileOffset ?? 0) <= position) low = middle + 1;
    else high = middle;
  }
  const end = image.mappings[low]?.fileOffset ?? image.dataLength;
  return { skip: position + (image.mappings[low - 1]?.delta ?? 0), length: end - position };
}
