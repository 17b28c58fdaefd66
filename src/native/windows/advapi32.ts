/** advapi32.dll: privileges of this process, and values of the live registry. */

import { array, C, layoutOf, out, pointerTo, type Signature, struct } from '../library.ts';
import { BOOL, HANDLE, LSTATUS } from './ctypes.ts';
import type { Dll, Dlls } from './dll.ts';
import type { Kernel32 } from './kernel32.ts';
import { Win32Error } from './status.ts';

const { int32, uint32, str16, pointer } = C;

/** https://learn.microsoft.com/windows/win32/api/winnt/ns-winnt-luid */
export const LUID = struct('LUID', { LowPart: uint32, HighPart: int32 });
/** https://learn.microsoft.com/windows/win32/api/winnt/ns-winnt-luid_and_attributes */
export const LUID_AND_ATTRIBUTES = struct('LUID_AND_ATTRIBUTES', { Luid: LUID, Attributes: uint32 });
/** With room for one privilege. https://learn.microsoft.com/windows/win32/api/winnt/ns-winnt-token_privileges */
export const TOKEN_PRIVILEGES = struct('TOKEN_PRIVILEGES', {
  PrivilegeCount: uint32,
  Privileges: array(LUID_AND_ATTRIBUTES, 1),
});

const CALLS = {
  OpenProcessToken: [BOOL, [HANDLE, uint32, out(HANDLE)]],
  GetTokenInformation: [BOOL, [HANDLE, int32, pointer, uint32, out(uint32)]],
  LookupPrivilegeValueW: [BOOL, [str16, str16, out(LUID)]],
  AdjustTokenPrivileges: [
    BOOL,
    [HANDLE, int32, pointerTo(TOKEN_PRIVILEGES), uint32, out(TOKEN_PRIVILEGES), out(uint32)],
  ],
  RegGetValueW: [LSTATUS, [HANDLE, str16, str16, uint32, out(uint32), pointer, pointer]],
} satisfies Record<string, Signature>;

/** What layers need beyond an administrator's rights; enabled only while they do. */
export type Privilege = 'SeBackupPrivilege' | 'SeRestorePrivilege' | 'SeSecurityPrivilege';

const CURRENT_PROCESS = -1;
const TOKEN_QUERY_AND_ADJUST = 0x28;
const SE_PRIVILEGE_ENABLED = 2;
const TOKEN_PRIVILEGES_CLASS = 3;
/** For more privileges than Windows has. */
const TOKEN_INFORMATION_BYTES = 4096;

/** A handle's 32 bits, extended by their sign as the header does. */
const HKEY_LOCAL_MACHINE = 0x80000002 | 0;
const RRF_RT_REG_SZ = 2;
const RRF_RT_REG_DWORD = 0x10;
const LONGEST_VALUE = 4096;

interface Luid {
  LowPart: number;
  HighPart: number;
}

interface Held {
  users: number;
  /** Enabled by this program, which therefore takes it back. */
  ours: boolean;
}

export class Advapi32 {
  readonly dll: Dll<keyof typeof CALLS>;
  readonly #kernel32: Kernel32;
  readonly #held = new Map<Privilege, Held>();

  constructor(dlls: Dlls, kernel32: Kernel32) {
    this.dll = dlls.open('advapi32.dll', CALLS);
    this.#kernel32 = kernel32;
  }

  /**
   * Runs an action with privileges of the process enabled, and takes back those that weren't enabled before, once the
   * last of several actions under way together is done. They count in this thread only: call it in the main one, around
   * jobs. `access-denied` when the process's token doesn't hold one; then none is enabled.
   */
  async withPrivileges<Result>(
    privileges: readonly Privilege[],
    action: () => Promise<Result>,
  ): Promise<Result> {
    const enabled: Privilege[] = [];
    try {
      for (const privilege of privileges) {
        this.#enable(privilege);
        enabled.push(privilege);
      }
      return await action();
    } finally {
      for (const privilege of enabled.reverse()) this.#release(privilege);
    }
  }

  /** What the process's token says of a privilege. */
  privilegeState(privilege: Privilege): 'enabled' | 'disabled' | 'absent' {
    const operation = `ask for ${privilege}`;
    return this.#withToken(operation, (token) => {
      const luid = this.#luid(operation, privilege);
      const [buffer, size] = [Buffer.alloc(TOKEN_INFORMATION_BYTES), [0]];
      const { LowPart: lowAt, HighPart: highAt } = layoutOf(LUID).offsets;
      const args = [token, TOKEN_PRIVILEGES_CLASS, buffer, buffer.length, size];
      this.dll.callNow(operation, 'GetTokenInformation', ...args);
      const { offsets: list } = layoutOf(TOKEN_PRIVILEGES);
      const { size: each, offsets } = layoutOf(LUID_AND_ATTRIBUTES);
      const count = buffer.readUInt32LE(list.PrivilegeCount);
      for (let index = 0; index < count; index++) {
        const entry = buffer.subarray((list.Privileges ?? 0) + index * each);
        const id = entry.subarray(offsets.Luid);
        if (id.readUInt32LE(lowAt) !== luid.LowPart || id.readInt32LE(highAt) !== luid.HighPart) continue;
        return (entry.readUInt32LE(offsets.Attributes) & SE_PRIVILEGE_ENABLED) === 0 ? 'disabled' : 'enabled';
      }
      return 'absent';
    });
  }

  /** A REG_DWORD below HKEY_LOCAL_MACHINE; undefined when it isn't there. */
  machineDword(key: string, name: string): number | undefined {
    return this.#machineValue(key, name, RRF_RT_REG_DWORD)?.readUInt32LE();
  }

  /** A REG_SZ below HKEY_LOCAL_MACHINE; undefined when it isn't there. */
  machineString(key: string, name: string): string | undefined {
    const value = this.#machineValue(key, name, RRF_RT_REG_SZ);
    return value?.toString('utf16le').split('\0', 1)[0];
  }

  #machineValue(key: string, name: string, types: number): Buffer | undefined {
    const data = Buffer.alloc(LONGEST_VALUE);
    const size = Buffer.alloc(4);
    size.writeUInt32LE(data.length);
    const args = [HKEY_LOCAL_MACHINE, key, name, types, [0], data, size];
    const { status } = this.dll.attemptNow('RegGetValueW', ...args);
    if (status === Win32Error.FILE_NOT_FOUND) return undefined;
    if (status !== 0)
      throw this.dll.failure(`read registry value HKLM\\${key}\\${name}`, 'RegGetValueW', args, status);
    return data.subarray(0, size.readUInt32LE());
  }

  #enable(privilege: Privilege): void {
    const held = this.#held.get(privilege);
    if (held !== undefined) held.users++;
    else this.#held.set(privilege, { users: 1, ours: this.#set(privilege, true) });
  }

  #release(privilege: Privilege): void {
    const held = this.#held.get(privilege);
    if (held === undefined || --held.users > 0) return;
    this.#held.delete(privilege);
    if (held.ours) this.#set(privilege, false);
  }

  /** Whether that changed anything. */
  #set(privilege: Privilege, enabled: boolean): boolean {
    const operation = `${enabled ? 'enable' : 'disable'} ${privilege}`;
    return this.#withToken(operation, (token) => {
      const Attributes = enabled ? SE_PRIVILEGE_ENABLED : 0;
      const state = {
        PrivilegeCount: 1,
        Privileges: [{ Luid: this.#luid(operation, privilege), Attributes }],
      };
      const before = {} as typeof state;
      const args = [token, 0, state, layoutOf(TOKEN_PRIVILEGES).size, before, [0]];
      const { status, lastError } = this.dll.attemptNow('AdjustTokenPrivileges', ...args);
      // It succeeds also when it has done nothing, and says so in the last error only.
      const failed = status === 0 && lastError === Win32Error.NOT_ALL_ASSIGNED ? lastError : status;
      if (failed !== 0) throw this.dll.failure(operation, 'AdjustTokenPrivileges', args, failed);
      const changed = before.PrivilegeCount > 0 ? before.Privileges[0]?.Attributes : Attributes;
      return ((changed ?? 0) & SE_PRIVILEGE_ENABLED) !== Attributes;
    });
  }

  #luid(operation: string, privilege: Privilege): Luid {
    const luid = {} as Luid;
    this.dll.callNow(operation, 'LookupPrivilegeValueW', null, privilege, luid);
    return luid;
  }

  #withToken<Result>(operation: string, use: (token: number) => Result): Result {
    const token = [0];
    this.dll.callNow(operation, 'OpenProcessToken', CURRENT_PROCESS, TOKEN_QUERY_AND_ADJUST, token);
    try {
      return use(token[0] ?? 0);
    } finally {
      this.#kernel32.closeHandle(token[0] ?? 0);
    }
  }
}
