/** The Windows names of C types and the structs that more than one DLL shares. Win64: ULONG has 4 bytes, pointers 8. */

import { alias, array, C, struct } from '../library.ts';

/** Negative: failure. */
export const HRESULT = alias('HRESULT', C.int32);
/** Negative: failure. */
export const NTSTATUS = alias('NTSTATUS', C.int32);
/** A function that returns its error itself, 0 for success. */
export const WIN32_ERROR = alias('WIN32_ERROR', C.uint32);
/** 0: failure, which GetLastError explains. */
export const BOOL = alias('BOOL', C.int32);
/** NULL or INVALID_HANDLE_VALUE (-1): failure, which GetLastError explains. Handles fit in a number. */
export const HANDLE = alias('HANDLE', C.intptr);
/** Text that errors must not repeat: what somebody else put into a document. */
export const DOCUMENT = alias('DOCUMENT', C.str16);

/** https://learn.microsoft.com/windows/win32/api/guiddef/ns-guiddef-guid */
export const GUID = struct('GUID', {
  Data1: C.uint32,
  Data2: C.uint16,
  Data3: C.uint16,
  Data4: array(C.uint8, 8),
});

/** https://learn.microsoft.com/windows/win32/api/minwinbase/ns-minwinbase-filetime */
export const FILETIME = struct('FILETIME', { dwLowDateTime: C.uint32, dwHighDateTime: C.uint32 });

export interface FiletimeValue {
  dwLowDateTime: number;
  dwHighDateTime: number;
}

/** A time in 100 ns units since 1601-01-01 UTC as the struct has it. */
export function filetimeValue(time: bigint): FiletimeValue {
  return { dwLowDateTime: Number(time & 0xffffffffn), dwHighDateTime: Number((time >> 32n) & 0xffffffffn) };
}
