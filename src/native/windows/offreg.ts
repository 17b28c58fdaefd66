/** offreg.dll: registry hives in files. https://learn.microsoft.com/windows/win32/devnotes/offline-registry-library */

import { C, out, pointerTo, type Signature } from '../library.ts';
import { HANDLE, WIN32_ERROR } from './ctypes.ts';
import type { Dll, Dlls } from './dll.ts';
import { Win32Error } from './status.ts';

const { uint32, str16, pointer } = C;

const CALLS = {
  ORCreateHive: [WIN32_ERROR, [out(HANDLE)]],
  OROpenHive: [WIN32_ERROR, [str16, out(HANDLE)]],
  ORCloseHive: [WIN32_ERROR, [HANDLE]],
  ORMergeHives: [WIN32_ERROR, [pointerTo(HANDLE), uint32, out(HANDLE)]],
  ORSaveHive: [WIN32_ERROR, [HANDLE, str16, uint32, uint32]],
  OROpenKey: [WIN32_ERROR, [HANDLE, str16, out(HANDLE)]],
  ORCreateKey: [WIN32_ERROR, [HANDLE, str16, str16, uint32, pointer, out(HANDLE), out(uint32)]],
  ORCloseKey: [WIN32_ERROR, [HANDLE]],
  ORDeleteKey: [WIN32_ERROR, [HANDLE, str16]],
  ORGetValue: [WIN32_ERROR, [HANDLE, str16, str16, out(uint32), pointer, pointer]],
  ORSetValue: [WIN32_ERROR, [HANDLE, str16, uint32, pointer, uint32]],
} satisfies Record<string, Signature>;

/** What merging hives takes. */
export const MERGE_HIVES = ['OROpenHive', 'ORCloseHive', 'ORMergeHives', 'ORSaveHive'] as const;

export type HiveHandle = number & { readonly brand: 'HiveHandle' };
/** A hive's handle is its root key's. */
export type KeyHandle = number & { readonly brand: 'HiveHandle' | 'KeyHandle' };

export interface RegistryValue {
  /** REG_SZ is 1, REG_DWORD 4. */
  type: number;
  data: Uint8Array;
}

/** The Windows that saved hives are for; hcsshim gives the running one's, which has been 10.0 throughout. */
const FOR_WINDOWS = [10, 0] as const;

/** What is done with whole hives blocks: it belongs into a job's thread. */
export class Offreg {
  readonly dll: Dll<keyof typeof CALLS>;

  constructor(dlls: Dlls) {
    this.dll = dlls.open('offreg.dll', CALLS);
  }

  /** Whether this Windows has what it takes. */
  canMergeHives(): boolean {
    const { path, missing, problem } = this.dll.probe();
    return path !== undefined && problem === undefined && !MERGE_HIVES.some((name) => missing.includes(name));
  }

  createHive(): HiveHandle {
    const hive = [0];
    this.dll.callNow('create a hive', 'ORCreateHive', hive);
    return hive[0] as HiveHandle;
  }

  /** Reads the whole file; it isn't kept open. */
  openHive(path: string): HiveHandle {
    const hive = [0];
    this.dll.callNow(`open hive ${path}`, 'OROpenHive', path, hive);
    return hive[0] as HiveHandle;
  }

  closeHive(hive: HiveHandle): void {
    this.dll.callNow('close a hive', 'ORCloseHive', hive);
  }

  /** Puts deltas over their base: the base first. The result is a hive of its own. */
  mergeHives(baseFirst: readonly HiveHandle[]): HiveHandle {
    const merged = [0];
    const operation = `merge ${baseFirst.length} hives`;
    this.dll.callNow(operation, 'ORMergeHives', [...baseFirst], baseFirst.length, merged);
    return merged[0] as HiveHandle;
  }

  /** `already-exists` when the file is there. */
  saveHive(hive: HiveHandle, path: string): void {
    this.dll.callNow(`save hive ${path}`, 'ORSaveHive', hive, path, ...FOR_WINDOWS);
  }

  async openKey(parent: KeyHandle, path: string): Promise<KeyHandle> {
    const key = [0];
    await this.dll.call(`open registry key ${path}`, 'OROpenKey', parent, path, key);
    return key[0] as KeyHandle;
  }

  /** Opens a key, made if need be. */
  async createKey(parent: KeyHandle, path: string): Promise<KeyHandle> {
    const key = [0];
    const args = [parent, path, null, 0, null, key, [0]];
    await this.dll.call(`create registry key ${path}`, 'ORCreateKey', ...args);
    return key[0] as KeyHandle;
  }

  async closeKey(key: KeyHandle): Promise<void> {
    await this.dll.call('close a registry key', 'ORCloseKey', key);
  }

  /** `path` null deletes the key itself. It must have no subkeys. */
  async deleteKey(parent: KeyHandle, path: string | null): Promise<void> {
    await this.dll.call(`delete registry key ${path ?? ''}`, 'ORDeleteKey', parent, path);
  }

  /** A value of a key, or of its subkey `path`; undefined when it isn't there. */
  async getValue(key: KeyHandle, path: string | null, name: string): Promise<RegistryValue | undefined> {
    const operation = `read registry value ${name} of ${path ?? 'a key'}`;
    const [type, size] = [[0], Buffer.alloc(4)];
    for (let data: Buffer | null = null; ; data = Buffer.alloc(size.readUInt32LE())) {
      const args = [key, path, name, type, data, size];
      const { status } = await this.dll.attempt('ORGetValue', ...args);
      if (status === Win32Error.FILE_NOT_FOUND) return undefined;
      if (status === 0 && (data !== null || size.readUInt32LE() === 0))
        return { type: type[0] ?? 0, data: new Uint8Array(data?.subarray(0, size.readUInt32LE()) ?? []) };
      if (status !== 0 && status !== Win32Error.MORE_DATA)
        throw this.dll.failure(operation, 'ORGetValue', args, status);
    }
  }

  async setValue(key: KeyHandle, name: string, { type, data }: RegistryValue): Promise<void> {
    const operation = `write registry value ${name}`;
    await this.dll.call(operation, 'ORSetValue', key, name, type, data, data.length);
  }
}
