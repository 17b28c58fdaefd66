/** fltlib.dll: the file-system filters that are loaded. https://learn.microsoft.com/windows/win32/api/fltuser/ */

import { C, layoutOf, out, type Signature, struct } from '../library.ts';
import { HANDLE, HRESULT } from './ctypes.ts';
import type { Dll, Dlls } from './dll.ts';
import { Win32Error } from './status.ts';

const { int32, uint16, uint32, pointer } = C;

/**
 * The arm for minifilters. Offsets are from the beginning, lengths in bytes.
 * https://learn.microsoft.com/windows-hardware/drivers/ddi/fltuserstructures/ns-fltuserstructures-_filter_aggregate_standard_information
 */
export const FILTER_AGGREGATE_STANDARD_INFORMATION = struct('FILTER_AGGREGATE_STANDARD_INFORMATION', {
  NextEntryOffset: uint32,
  Flags: uint32,
  MiniFilterFlags: uint32,
  FrameID: uint32,
  NumberOfInstances: uint32,
  FilterNameLength: uint16,
  FilterNameBufferOffset: uint16,
  FilterAltitudeLength: uint16,
  FilterAltitudeBufferOffset: uint16,
});

const CALLS = {
  FilterFindFirst: [HRESULT, [int32, pointer, uint32, out(uint32), out(HANDLE)]],
  FilterFindNext: [HRESULT, [HANDLE, int32, pointer, uint32, out(uint32)]],
  FilterFindClose: [HRESULT, [HANDLE]],
} satisfies Record<string, Signature>;

const AGGREGATE_STANDARD = 2;
const IS_MINIFILTER = 1;
const ENTRY_BYTES = 4096;
const NO_MORE_ITEMS = (0x80070000 | Win32Error.NO_MORE_ITEMS) >>> 0;

export interface Minifilter {
  name: string;
  /** Where it stands among the others: the higher, the earlier it sees a request. */
  altitude: string;
}

export class FilterLibrary {
  readonly dll: Dll<keyof typeof CALLS>;

  constructor(dlls: Dlls) {
    this.dll = dlls.open('fltlib.dll', CALLS);
  }

  /** The minifilters that are loaded, in no order. Needs an administrator. */
  async minifilters(): Promise<Minifilter[]> {
    const operation = 'list file-system filters';
    const buffer = Buffer.alloc(ENTRY_BYTES);
    const [size, search] = [[0], [0]];
    const first = [AGGREGATE_STANDARD, buffer, buffer.length, size, search];
    const { status } = await this.dll.attempt('FilterFindFirst', ...first);
    if (status === NO_MORE_ITEMS) return [];
    if (status !== 0) throw this.dll.failure(operation, 'FilterFindFirst', first, status);
    try {
      const found = decodeFilter(buffer);
      for (;;) {
        const next = [search[0], AGGREGATE_STANDARD, buffer, buffer.length, size];
        const { status: more } = await this.dll.attempt('FilterFindNext', ...next);
        if (more === NO_MORE_ITEMS) return found;
        if (more !== 0) throw this.dll.failure(operation, 'FilterFindNext', next, more);
        found.push(...decodeFilter(buffer));
      }
    } finally {
      await this.dll.call(operation, 'FilterFindClose', search[0]);
    }
  }
}

/** Nothing for the old kind of filter, which has no altitude that tells anything. */
function decodeFilter(entry: Buffer): Minifilter[] {
  const { offsets } = layoutOf(FILTER_AGGREGATE_STANDARD_INFORMATION);
  if ((entry.readUInt32LE(offsets.Flags) & IS_MINIFILTER) === 0) return [];
  const text = (what: string) => textAt(entry, offsets[`${what}Length`], offsets[`${what}BufferOffset`]);
  return [{ name: text('FilterName'), altitude: text('FilterAltitude') }];
}

function textAt(entry: Buffer, lengthAt: number | undefined, offsetAt: number | undefined): string {
  const [length, offset] = [entry.readUInt16LE(lengthAt), entry.readUInt16LE(offsetAt)];
  return entry.toString('utf16le', offset, offset + length).split('\0', 1)[0] ?? '';
}
