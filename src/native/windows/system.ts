/**
 * What every call needs: the thread's last error, its text, and the folder that system DLLs are loaded from. kernel32 is
 * loaded into every process, so its name alone can't find another file.
 */

import { existsSync } from 'node:fs';
import { win32 } from 'node:path';
import { CimletError } from '../../errors.ts';
import { C, library, type Signature, string16At } from '../library.ts';

const { uint32, pointer, str16 } = C;

const kernel32 = library('kernel32.dll', {
  GetLastError: [uint32, []],
  FormatMessageW: [uint32, [uint32, pointer, uint32, uint32, pointer, uint32, pointer]],
  GetModuleHandleW: [pointer, [str16]],
  GetSystemDirectoryW: [uint32, [pointer, uint32]],
  GetCurrentProcess: [C.intptr, []],
  LocalFree: [pointer, [pointer]],
  SetDefaultDllDirectories: [C.int32, [uint32]],
  TerminateProcess: [C.int32, [C.intptr, uint32]],
});

const FORMAT_MESSAGE_IGNORE_INSERTS = 0x200;
const FORMAT_MESSAGE_FROM_HMODULE = 0x800;
const FORMAT_MESSAGE_FROM_SYSTEM = 0x1000;
const LOAD_LIBRARY_SEARCH_APPLICATION_DIR = 0x200;
const LOAD_LIBRARY_SEARCH_SYSTEM32 = 0x800;
const MESSAGE_UNITS = 2048;
const PATH_UNITS = 260;

/** https://learn.microsoft.com/windows/win32/api/errhandlingapi/nf-errhandlingapi-getlasterror */
export function lastError(): number {
  return Number(kernel32.call('GetLastError').value);
}

/**
 * What Windows says about an error number, of Win32 and HRESULT from the system's table, of NTSTATUS from ntdll's;
 * undefined when it has no words for it.
 * https://learn.microsoft.com/windows/win32/api/winbase/nf-winbase-formatmessagew
 */
export function systemMessage(status: number, from: 'system' | 'ntdll' = 'system'): string | undefined {
  const module = from === 'ntdll' ? kernel32.call('GetModuleHandleW', 'ntdll.dll').value : null;
  const source = from === 'ntdll' ? FORMAT_MESSAGE_FROM_HMODULE : FORMAT_MESSAGE_FROM_SYSTEM;
  const buffer = Buffer.alloc(MESSAGE_UNITS * 2);
  const flags = FORMAT_MESSAGE_IGNORE_INSERTS | source;
  const { value } = kernel32.call('FormatMessageW', flags, module, status, 0, buffer, MESSAGE_UNITS, null);
  const text = buffer
    .toString('utf16le', 0, Number(value) * 2)
    .replace(/\s+/g, ' ')
    .trim();
  return text === '' ? undefined : text;
}

/**
 * Ends this process at once, whatever its threads are at.
 * https://learn.microsoft.com/windows/win32/api/processthreadsapi/nf-processthreadsapi-terminateprocess
 */
export function endProcess(code: number): void {
  kernel32.call('TerminateProcess', kernel32.call('GetCurrentProcess').value, code);
}

/** `C:\Windows\System32`, as the system has it, whatever the environment says. */
export function systemDirectory(): string {
  const buffer = Buffer.alloc(PATH_UNITS * 2);
  const { value } = kernel32.call('GetSystemDirectoryW', buffer, PATH_UNITS);
  if (Number(value) === 0 || Number(value) > PATH_UNITS)
    throw failure('find the system directory', 'GetSystemDirectoryW');
  return buffer.toString('utf16le', 0, Number(value) * 2);
}

function failure(operation: string, name: string): CimletError {
  const error = lastError();
  const text = systemMessage(error) ?? 'no words for it';
  return new CimletError('native', `${operation}: ${text} (${name} in kernel32.dll: ${error})`);
}

let limited = false;

/**
 * From now on, what DLLs need themselves comes from System32 or the program's own folder, where who can write could
 * replace the program: not from the working directory or the PATH.
 * https://learn.microsoft.com/windows/win32/api/libloaderapi/nf-libloaderapi-setdefaultdlldirectories
 */
export function limitDllSearch(): void {
  if (limited) return;
  const folders = LOAD_LIBRARY_SEARCH_SYSTEM32 | LOAD_LIBRARY_SEARCH_APPLICATION_DIR;
  if (Number(kernel32.call('SetDefaultDllDirectories', folders).value) === 0)
    throw failure('limit where DLLs come from', 'SetDefaultDllDirectories');
  limited = true;
}

/** The text at an address that a function returned, whose memory is given back with LocalFree. Empty for NULL. */
export function takeLocalString(address: bigint | null): string {
  if (address === null) return '';
  try {
    return string16At(address);
  } finally {
    kernel32.call('LocalFree', address);
  }
}

const COM: Readonly<Record<'CoTaskMemFree', Signature>> = { CoTaskMemFree: [C.void, [pointer]] };
const combase = library(() => win32.join(systemDirectory(), 'ole32.dll'), COM, { label: 'ole32.dll' });

/** The same for memory that is given back with CoTaskMemFree. */
export function takeTaskString(address: bigint | null): string {
  if (address === null) return '';
  try {
    return string16At(address);
  } finally {
    combase.call('CoTaskMemFree', address);
  }
}

/** The file in the first of some folders that has it. */
export function findFile(file: string, folders: readonly string[]): string | undefined {
  return folders.map((folder) => win32.join(folder, file)).find((path) => existsSync(path));
}
