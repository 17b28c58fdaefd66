/** The Windows names of C types and the structs that more than one DLL shares. Win64: ULONG has 4 bytes, pointers 8. */

import { alias, array, C, struct } from '../library.ts';

/** Negative: failure. */
export const HRESULT = alias('HRESULT', C.int32);
/** Negative: failure. */
export const NTSTATUS = alias('NTSTATUS', C.int32);
/** A function that returns its error itself, 0 for success. */
export const WIN32_ERROR = alias('WIN32_ERROR', C.uint32);
/** The same of registry functions. */
export const LSTATUS = alias('LSTATUS', C.int32);
/** 0: failure, which GetLastError explains. */
export const BOOL = alias('BOOL', C.int32);
/** NULL or INVALID_HANDLE_VALUE (-1): failure, which GetLastError explains. Handles fit in a number. */
export const HANDLE = alias('HANDLE', C.intptr);
/** Text that errors must not repeat: what somebody else put into a document. */
export const DOCUMENT = alias('DOCUMENT', C.str16);

/** Text that the DLL allocated. */
export const PWSTR = alias('PWSTR', C.pointer);
/** https://learn.microsoft.com/windows/win32/api/winnt/ns-winnt-ularge_integer-r1 */
export const ULARGE_INTEGER = alias('ULARGE_INTEGER', C.uint64);

/** https://learn.microsoft.com/windows/win32/api/guiddef/ns-guiddef-guid */
export const GUID = struct('GUID', {
  Data1: C.uint32,
  Data2: C.uint16,
  Data3: C.uint16,
  Data4: array(C.uint8, 8),
});

/** https://learn.microsoft.com/windows/win32/api/minwinbase/ns-minwinbase-filetime */
export const FILETIME = struct('FILETIME', { dwLowDateTime: C.uint32, dwHighDateTime: C.uint32 });
