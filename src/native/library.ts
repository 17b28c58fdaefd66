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
  /** The calling thread's errno right after the call; it means something only when `value` says that it failed. */
  errno: number;
}

export interface Library<Name extends string> {
  call(name: Name, ...args: readonly unknown[]): NativeResult;
  /** On another thread. Buffers among the arguments must stay unchanged until it is done. */
  callAsync(name: Name, ...args: readonly unknown[]): Promise<NativeResult>;
}

/** C types for signature tables. `pointer` takes a Uint8Array (given as it is, not copied), an address or null. */
export const C = {
  int: 'int',
  uint: 'uint',
  long: 'long',
  ulong: 'ulong',
  size_t: 'size_t',
  str: 'str',
  pointer: 'pointer',
} as const;

export type CType = (typeof C)[keyof typeof C];

let loaded: Koffi | undefined;

/**
 * koffi, loaded when the first function is called: most worker threads call none, and a thread that ends while koffi
 * starts in it can take the process with it (seen with koffi 3.3).
 */
function koffi(): Koffi {
  loaded ??= createRequire(import.meta.url)('koffi') as Koffi;
  return loaded;
}

function typeObject(type: CType): TypeObject {
  const { types, pointer } = koffi();
  return type === 'pointer' ? pointer(types.void) : types[type];
}

/**
 * Binds a library's functions. Nothing is loaded before the first call of each; what is missing then throws
 * `unsupported-host` naming it. `file` null: what this process has loaded already, such as its C library.
 */
export function library<Name extends string>(
  file: string | null,
  table: Readonly<Record<Name, Signature>>,
): Library<Name> {
  const label = file ?? 'the C library';
  const bound = new Map<Name, KoffiFunction>();
  let handle: LibraryHandle | undefined;

  const bind = (name: Name): KoffiFunction => {
    let found = bound.get(name);
    if (found !== undefined) return found;
    const [result, parameters, symbol = name] = table[name];
    try {
      handle ??= koffi().load(file);
      found = handle.func(symbol, typeObject(result), parameters.map(typeObject));
    } catch (cause) {
      const missing = handle === undefined ? label : `${symbol} in ${label}`;
      throw new CimletError('unsupported-host', `load ${missing}: not on this system`, { cause });
    }
    bound.set(name, found);
    return found;
  };

  return {
    call(name, ...args) {
      checkStrings(name, args);
      const value: number | bigint = bind(name)(...args);
      return { value, errno: koffi().errno() };
    },
    callAsync(name, ...args) {
      checkStrings(name, args);
      const call = bind(name);
      return new Promise((resolve, reject) => {
        call.async(...args, (error: unknown, value: number | bigint) => {
          // koffi hands the worker thread's errno to this callback, and to nothing after it.
          const errno = koffi().errno();
          if (error) reject(error);
          else resolve({ value, errno });
        });
      });
    },
  };
}

/** C would see such a string end early, and act on another object than the caller named. */
function checkStrings(name: string, args: readonly unknown[]): void {
  for (const arg of args) {
    if (typeof arg === 'string' && arg.includes('\0'))
      throw new CimletError('failed-precondition', `${name}: ${JSON.stringify(arg)} contains NUL`);
  }
}
