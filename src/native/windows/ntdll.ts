/** ntdll.dll: the version of Windows that is true whatever the program's manifest says. */

import { array, C, layoutOf, type Signature, struct } from '../library.ts';
import { NTSTATUS } from './ctypes.ts';
import type { Dll, Dlls } from './dll.ts';

const { uint16, uint32, pointer } = C;

/** https://learn.microsoft.com/windows/win32/api/winnt/ns-winnt-osversioninfow */
export const OSVERSIONINFOW = struct('OSVERSIONINFOW', {
  dwOSVersionInfoSize: uint32,
  dwMajorVersion: uint32,
  dwMinorVersion: uint32,
  dwBuildNumber: uint32,
  dwPlatformId: uint32,
  szCSDVersion: array(uint16, 128),
});

const CALLS = { RtlGetVersion: [NTSTATUS, [pointer]] } satisfies Record<string, Signature>;

export interface OsVersion {
  major: number;
  minor: number;
  build: number;
}

export class Ntdll {
  readonly dll: Dll<keyof typeof CALLS>;

  constructor(dlls: Dlls) {
    this.dll = dlls.open('ntdll.dll', CALLS);
  }

  /** https://learn.microsoft.com/windows/win32/devnotes/rtlgetversion */
  getVersion(): OsVersion {
    const { size, offsets } = layoutOf(OSVERSIONINFOW);
    const info = Buffer.alloc(size);
    info.writeUInt32LE(size, offsets.dwOSVersionInfoSize);
    this.dll.callNow('ask for the version of Windows', 'RtlGetVersion', info);
    return {
      major: info.readUInt32LE(offsets.dwMajorVersion),
      minor: info.readUInt32LE(offsets.dwMinorVersion),
      build: info.readUInt32LE(offsets.dwBuildNumber),
    };
  }
}
