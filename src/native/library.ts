/** Calls into shared libraries. The one file that loads koffi's libraries and functions; tables name what is in them. */

import { createRequire } from 'node:module';
import type koffiModule from 'koffi';
import type { LibraryHandle, TypeObject } from 'koffi';
import { CimletError } from '../errors.ts';

type Koffi = typeof koffiModule;
type KoffiFunction = ReturnType<LibraryHandle['func']>;

/** A function's C signature; `symbol` is its exported name where that isn't the row's own. */
export type Signature = readonly [result: CType, parameters: readonly CType[], symbol?: string];

export interface NativeResult {
  value: number | bigint;
  /** The calling thread's error number right after the call; it means something only when `value` says that it failed. */
  errno: number;
}

export interface Library<Name extends string> {
  call(name: Name, ...args: readonly unknown[]): NativeResult;
  /** On another thread. Buffers among the arguments must stay unchanged until it is done. */
  callAsync(name: Name, ...args: readonly unknown[]): Promise<NativeResult>;
  /** Loads the library and says which of the table's functions it hasn't; calls nothing. Throws when it can't be loaded. */
  missing(): Name[];
}

export interface LibraryOptions {
  /** What errors call the library; its file unless told. */
  label?: string;
  /** What errors say of a missing library or function. */
  absent?: string;
  /** Where to read a failed call's error number, called right after it on the same thread; C's errno unless told. */
  errno?: () => number;
}

/** C types for signature tables. `pointer` takes a Uint8Array (given as it is, not copied), an address or null. */
export const C = {
  void: 'void',
  int: 'int',
  uint: 'uint',
  long: 'long',
  ulong: 'ulong',
  size_t: 'size_t',
  uint8: 'uint8',
  uint16: 'uint16',
  uint32: 'uint32',
  int32: 'int32',
  uint64: 'uint64',
  int64: 'int64',
  intptr: 'intptr',
  str: 'str',
  str16: 'str16',
  pointer: 'pointer',
} as const;

/** A C struct. Objects given for one are copied into C memory for the call. */
export interface Struct {
  readonly kind: 'struct';
  readonly name: string;
  readonly fields: Readonly<Record<string, CType>>;
}

export interface Derived {
  readonly kind: 'pointer' | 'out' | 'array';
  readonly of: CType;
  readonly length?: number;
}

/** Another name for a type: what the vendor's documentation calls it. */
export interface Alias<Name extends string = string> {
  readonly kind: 'alias';
  readonly name: Name;
  readonly of: CType;
}

/** A pointer to a function that C calls. Give what `callable` made for it. */
export interface Callback {
  readonly kind: 'callback';
  readonly result: CType;
  readonly parameters: readonly CType[];
}

export type CType = (typeof C)[keyof typeof C] | Struct | Derived | Alias | Callback;

export function struct(name: string, fields: Readonly<Record<string, CType>>): Struct {
  return { kind: 'struct', name, fields };
}

/** A pointer to a value, or to the first of an array of values, copied into C memory for the call. */
export function pointerTo(of: CType): Derived {
  return { kind: 'pointer', of };
}

/** A pointer that the function writes through: give an array of one for a number or pointer, `{}` for a struct. */
export function out(of: CType): Derived {
  return { kind: 'out', of };
}

/** An array inside of a struct. */
export function array(of: CType, length: number): Derived {
  return { kind: 'array', of, length };
}

export function alias<Name extends string>(name: Name, of: CType): Alias<Name> {
  return { kind: 'alias', name, of };
}

/** What a thread of Windows has. koffi's own 128 KiB, which can't grow, are little for calls that go out to services. */
const ASYNC_STACK = 1 << 20;

export function callback(result: CType, parameters: readonly CType[]): Callback {
  return { kind: 'callback', result, parameters };
}

let loaded: Koffi | undefined;

/**
 * koffi, loaded when the first function is called: most worker threads call none, and a thread that ends while koffi
 * starts in it can take the process with it (seen with koffi 3.3).
 */
function koffi(): Koffi {
  if (loaded === undefined) {
    loaded = createRequire(import.meta.url)('koffi') as Koffi;
    loaded.config({ async_stack_size: ASYNC_STACK });
  }
  return loaded;
}

const structs = new WeakMap<Struct, TypeObject>();

function typeObject(type: CType): TypeObject {
  const { types, pointer, array: arrayOf } = koffi();
  if (typeof type === 'string') return type === 'pointer' ? pointer(types.void) : types[type];
  switch (type.kind) {
    case 'alias':
      return typeObject(type.of);
    case 'array':
      return arrayOf(typeObject(type.of), type.length ?? 0);
    case 'pointer':
      return pointer(typeObject(type.of));
    case 'out':
      return koffi().out(pointer(typeObject(type.of))) as unknown as TypeObject;
    case 'struct':
      return structObject(type);
    case 'callback':
      return pointer(koffi().proto(typeObject(type.result), type.parameters.map(typeObject)));
  }
}

function structObject(type: Struct): TypeObject {
  let made = structs.get(type);
  if (made === undefined) {
    const members = Object.entries(type.fields).map(([name, field]) => [name, typeObject(field)] as const);
    made = koffi().struct(Object.fromEntries(members));
    structs.set(type, made);
  }
  return made;
}

export interface Layout {
  size: number;
  offsets: Record<string, number>;
}

const layouts = new WeakMap<Struct, Layout>();

/** Where a struct's fields lie in memory, in bytes. */
export function layoutOf(type: Struct): Layout {
  const known = layouts.get(type);
  if (known !== undefined) return known;
  const made = typeObject(type);
  const names = Object.keys(type.fields);
  const offsets = names.map((name) => [name, koffi().offsetof(made, name)] as const);
  const layout = { size: koffi().sizeof(made), offsets: Object.fromEntries(offsets) };
  layouts.set(type, layout);
  return layout;
}

/**
 * The address of a function for C to call, for the life of the process. Another thread that calls it waits until this one
 * has run it: this one must not be in a call that waits for that.
 */
export function callable(type: Callback, run: (...args: never[]) => unknown): bigint {
  return koffi().register(run, typeObject(type));
}

/** The NUL-terminated UTF-16 text at an address that a function returned. */
export function string16At(address: bigint): string {
  return koffi().decode.string16(address);
}

/**
 * Binds a library's functions. Nothing is loaded before the first call of each; what is missing then throws
 * `unsupported-host` naming it. `file` null: what this process has loaded already, such as its C library; a function is
 * asked for the file when it is needed.
 */
export function library<Name extends string>(
  file: string | null | (() => string),
  table: Readonly<Record<Name, Signature>>,
  options: LibraryOptions = {},
): Library<Name> {
  const label = options.label ?? (typeof file === 'string' ? file : 'the C library');
  const absent = options.absent ?? 'not on this system';
  const errno = options.errno ?? (() => koffi().errno());
  const bound = new Map<Name, KoffiFunction>();
  let handle: LibraryHandle | undefined;

  const load = (): LibraryHandle => {
    if (handle !== undefined) return handle;
    const path = typeof file === 'function' ? file() : file;
    try {
      handle = koffi().load(path);
    } catch (cause) {
      throw new CimletError('unsupported-host', `load ${label}: ${absent}`, { cause });
    }
    return handle;
  };

  const bind = (name: Name): KoffiFunction => {
    let found = bound.get(name);
    if (found !== undefined) return found;
    const [result, parameters, symbol = name] = table[name];
    const from = load();
    const types = [result, ...parameters].map(typeObject);
    try {
      found = from.func(symbol, types[0] as TypeObject, types.slice(1));
    } catch (cause) {
      throw new CimletError('unsupported-host', `load ${symbol} in ${label}: ${absent}`, { cause });
    }
    bound.set(name, found);
    return found;
  };

  return {
    call(name, ...args) {
      checkStrings(name, args);
      const value: number | bigint = bind(name)(...args);
      return { value, errno: errno() };
    },
    async callAsync(name, ...args) {
      checkStrings(name, args);
      const call = bind(name);
      await turn();
      // koffi keeps no hold on what it was given: until the call is done, this does.
      const held = new Set([args]);
      try {
        return await new Promise((resolve, reject) => {
          call.async(...args, (error: unknown, value: number | bigint) => {
            // koffi hands the worker thread's errno to this callback, and to nothing after it.
            const code = errno();
            if (error) reject(error);
            else resolve({ value, errno: code });
          });
        });
      } finally {
        held.clear();
        next();
      }
    },
    missing() {
      const from = load();
      return (Object.keys(table) as Name[]).filter((name) => !exports(from, table[name][2] ?? name));
    },
  };
}

function exports(from: LibraryHandle, symbol: string): boolean {
  try {
    from.symbol(symbol);
    return true;
  } catch {
    return false;
  }
}

/** Threads of libuv's pool, which is made before anything could change their number. */
const POOL_THREADS = Math.max(1, Number(process.env.UV_THREADPOOL_SIZE) || 4);
/**
 * Calls that koffi has at a time. One thread is left to Node: its file calls go on while others don't return. Each call that
 * waits for a thread has its stack already, and koffi refuses the 257th.
 */
const MOST_UNDER_WAY = Math.max(1, Math.min(32, POOL_THREADS - 1));
let underWay = 0;
const waiting: (() => void)[] = [];

/** Resolves when a call may be made; `next` must follow it. */
async function turn(): Promise<void> {
  if (underWay < MOST_UNDER_WAY) underWay++;
  else await new Promise<void>((resolve) => waiting.push(resolve));
}

/** The call that was made is done: its place goes to the one that has waited longest. */
function next(): void {
  const first = waiting.shift();
  if (first === undefined) underWay--;
  else first();
}

/** C would see such a string end early, and act on another object than the caller named. */
function checkStrings(name: string, args: readonly unknown[]): void {
  for (const arg of args) {
    if (typeof arg === 'string') {
      if (!arg.includes('\0')) continue;
      throw new CimletError('failed-precondition', `${name}: ${JSON.stringify(arg)} contains NUL`);
    }
    if (Array.isArray(arg)) checkStrings(name, arg);
    else if (isPlain(arg)) checkStrings(name, Object.values(arg));
  }
}

function isPlain(value: unknown): value is object {
  return typeof value === 'object' && value !== null && !ArrayBuffer.isView(value);
}
