/** DLLs of Windows: where they may be loaded from, and calls whose failures are typed errors. */

import { win32 } from 'node:path';
import { isMainThread } from 'node:worker_threads';
import { CimletError } from '../../errors.ts';
import { type CType, type Library, library, type Signature } from '../library.ts';
import { NativeError } from './native-error.ts';
import { describeStatus, ntstatusIn, type StatusKind, Win32Error } from './status.ts';
import { findFile, lastError, limitDllSearch, systemDirectory, systemMessage } from './system.ts';

export type Table<Name extends string> = Readonly<Record<Name, Signature>>;

/** The folders that a DLL may be loaded from, the first one first. */
export type DllFolders = (file: string) => readonly string[];

const ABSENT = 'not available on this build of Windows';

/** Ships apart from Windows: beside the program, or in System32. */
const CIMWRITER = 'cimwriter.dll';

/** System32 alone, and for cimwriter.dll the program's own folder before it: never the working directory or the PATH. */
export function systemFolders(file: string): readonly string[] {
  const system = systemDirectory();
  return file === CIMWRITER ? [win32.dirname(process.execPath), system] : [system];
}

/** What a DLL offers on this build of Windows. */
export interface DllState {
  file: string;
  /** Where it was loaded from; undefined when it isn't there. */
  path: string | undefined;
  /** Functions of the table that it hasn't; all of them when it isn't there. */
  missing: readonly string[];
  /** Why the file that is there can't be loaded. */
  problem?: string;
}

/** A call's result. `status` is the error number, 0 for success. */
export interface Outcome {
  value: number | bigint;
  status: number;
  /** GetLastError right after the call, whatever the result. */
  lastError: number;
}

/** Is told when a call begins that doesn't block; what it returns, when that has ended. */
export type CallWatch = (call: { operation: string; dll: string; name: string }) => () => void;

/** Opens DLLs. `folders` decides where they come from; only tests give another than `systemFolders`. */
export class Dlls {
  readonly #folders: DllFolders;
  readonly #watch: CallWatch | undefined;
  readonly #opened: Dll<never>[] = [];

  constructor(folders: DllFolders = systemFolders, watch?: CallWatch) {
    this.#folders = folders;
    this.#watch = watch;
  }

  /** Nothing is loaded before the first call. */
  open<Name extends string>(file: string, table: Table<Name>): Dll<Name> {
    const dll = new Dll(file, table, () => findFile(file, this.#folders(file)), this.#watch);
    this.#opened.push(dll);
    return dll;
  }

  /** The state of every DLL opened through this. Loads them; calls nothing. */
  probe(): DllState[] {
    return this.#opened.map((dll) => dll.probe());
  }
}

/**
 * One DLL's functions. Methods named `...Now` block; the others run on a thread of libuv's pool, which Node's file calls
 * need too: few at a time (library.ts), and from the main thread alone. In a thread of their own they block.
 */
export class Dll<in Name extends string> {
  readonly file: string;
  readonly #table: Table<string>;
  readonly #find: () => string | undefined;
  readonly #watch: CallWatch | undefined;
  readonly #library: Library<string>;

  constructor(file: string, table: Table<Name>, find: () => string | undefined, watch?: CallWatch) {
    this.file = file;
    this.#watch = watch;
    this.#table = table;
    this.#find = find;
    this.#library = library(() => this.#path(), table, { label: file, errno: lastError, absent: ABSENT });
  }

  /**
   * Calls a function and gives its value; a failure, by the table's result type, throws a `NativeError`. `operation`
   * names what is being done and to what. `unsupported-host` when this build hasn't the DLL or the function.
   */
  async call(operation: string, name: Name, ...args: readonly unknown[]): Promise<number> {
    const ended = this.#watch?.({ operation, dll: this.file, name });
    try {
      return this.#checked(operation, name, args, await this.attempt(name, ...args));
    } finally {
      ended?.();
    }
  }

  callNow(operation: string, name: Name, ...args: readonly unknown[]): number {
    return this.#checked(operation, name, args, this.attemptNow(name, ...args));
  }

  /** For who expects some errors. */
  async attempt(name: Name, ...args: readonly unknown[]): Promise<Outcome> {
    const { value, errno } = isMainThread
      ? await this.#library.callAsync(name, ...args)
      : this.#library.call(name, ...args);
    return { value, status: this.#status(name, value, errno), lastError: errno };
  }

  attemptNow(name: Name, ...args: readonly unknown[]): Outcome {
    const { value, errno } = this.#library.call(name, ...args);
    return { value, status: this.#status(name, value, errno), lastError: errno };
  }

  /** The error of a call that failed with `status`. `detail`: what the called said beyond the number. */
  failure(
    operation: string,
    name: Name,
    args: readonly unknown[],
    status: number,
    detail?: string,
  ): NativeError {
    const row = this.#row(name);
    const kind = statusKind(row);
    const shown = args.map((arg, index) => showArgument(arg, row[1][index]));
    return new NativeError({
      operation,
      dll: this.file,
      function: row[2] ?? name,
      kind,
      status,
      text: detail ?? words(kind, status),
      args: shown,
    });
  }

  /** What this build has of it. Loads it; calls nothing. */
  probe(): DllState {
    const path = this.#find();
    const missing = Object.keys(this.#table);
    if (path === undefined) return { file: this.file, path, missing };
    try {
      return { file: this.file, path, missing: this.#library.missing() };
    } catch (error) {
      if (!(error instanceof CimletError)) throw error;
      const problem = error.cause instanceof Error ? error.cause.message : error.message;
      return { file: this.file, path, missing, problem };
    }
  }

  #row(name: string): Signature {
    const row = this.#table[name];
    if (row === undefined) throw new Error(`no declaration of ${name} in ${this.file}`);
    return row;
  }

  #path(): string {
    limitDllSearch();
    const path = this.#find();
    if (path !== undefined) return path;
    throw new CimletError('unsupported-host', `load ${this.file}: ${ABSENT}`, {
      hint: '`cimlet doctor` says what this machine can do',
    });
  }

  #status(name: Name, value: number | bigint, error: number): number {
    switch (resultName(this.#row(name))) {
      case 'HRESULT':
      case 'NTSTATUS':
        return value < 0 ? Number(value) >>> 0 : 0;
      case 'WIN32_ERROR':
      case 'LSTATUS':
        return Number(value);
      case 'BOOL':
        return Number(value) === 0 ? error || Win32Error.GEN_FAILURE : 0;
      case 'HANDLE':
        return Number(value) === 0 || Number(value) === -1 ? error || Win32Error.GEN_FAILURE : 0;
      default:
        return 0;
    }
  }

  #checked(operation: string, name: Name, args: readonly unknown[], { value, status }: Outcome): number {
    if (status !== 0) throw this.failure(operation, name, args, status);
    return Number(value);
  }
}

function resultName([result]: Signature): string | undefined {
  return typeof result === 'object' && result.kind === 'alias' ? result.name : undefined;
}

function statusKind(signature: Signature): StatusKind {
  const name = resultName(signature);
  return name === 'HRESULT' || name === 'NTSTATUS' ? name : 'WIN32_ERROR';
}

function words(kind: StatusKind, status: number): string | undefined {
  const ntstatus = ntstatusIn(kind, status);
  if (ntstatus !== undefined) return systemMessage(ntstatus, 'ntdll');
  return systemMessage(describeStatus(kind, status).win32 ?? status);
}

const LONGEST_SHOWN = 300;

function showArgument(value: unknown, type: CType | undefined): string {
  if (typeof type === 'object' && type.kind === 'alias' && type.name === 'DOCUMENT') return '(document)';
  if (typeof value === 'string') return JSON.stringify(value.slice(0, LONGEST_SHOWN));
  if (typeof value === 'number' || typeof value === 'bigint') return `0x${value.toString(16)}`;
  if (value === null || value === undefined) return 'NULL';
  return ArrayBuffer.isView(value) ? `(${value.byteLength} bytes)` : '(pointer)';
}
