/**
 * Extended attributes, of symbolic links themselves too. These calls block, as `fs.*Sync` do. Paths and names are strings or raw
 * bytes. https://man7.org/linux/man-pages/man7/xattr.7.html
 */

import { CimletError } from '../../errors.ts';
import { Errno } from './errno.ts';
import { check, libc, outcome } from './libc.ts';

/** The most that the kernel returns of a value, and of a list of names (XATTR_SIZE_MAX, XATTR_LIST_MAX). */
const BUFFER_SIZE = 65536;

/** What a file system answers that can't hold an attribute: none at all, not on such a file, not of this size. */
const REFUSALS: readonly number[] = [Errno.ENOTSUP, Errno.EPERM, Errno.E2BIG, Errno.ENOSPC, Errno.ERANGE];

/** An attribute's value, undefined when the path has none of this name. */
export function getXattr(path: string | Uint8Array, name: string | Uint8Array): Uint8Array | undefined {
  const buffer = Buffer.allocUnsafe(BUFFER_SIZE);
  const result = libc.call('lgetxattr', cString(path), cString(name), buffer, buffer.length);
  if (outcome(result) === -Errno.ENODATA) return undefined;
  return new Uint8Array(buffer.subarray(0, check(`read xattr ${show(name)} of ${show(path)}`, result)));
}

/** Sets an attribute. False when the file system can't hold it, or not on this kind of file; nothing is changed then. */
export function setXattr(path: string | Uint8Array, name: string | Uint8Array, value: Uint8Array): boolean {
  const result = libc.call('lsetxattr', cString(path), cString(name), value, value.length, 0);
  if (REFUSALS.includes(-outcome(result))) return false;
  check(`set xattr ${show(name)} of ${show(path)}`, result);
  return true;
}

/** Names of the attributes that this process may see, which may be in any encoding. */
export function listXattrs(path: string | Uint8Array): Buffer[] {
  const buffer = Buffer.allocUnsafe(BUFFER_SIZE);
  const result = libc.call('llistxattr', cString(path), buffer, buffer.length);
  const size = check(`list xattrs of ${show(path)}`, result);
  const names: Buffer[] = [];
  for (let at = 0; at < size; at += (names.at(-1)?.length ?? 0) + 1)
    names.push(Buffer.from(buffer.subarray(at, buffer.indexOf(0, at))));
  return names;
}

function cString(text: string | Uint8Array): Buffer {
  const bytes = Buffer.from(text);
  if (bytes.includes(0)) throw new CimletError('failed-precondition', `${show(text)} contains NUL`);
  return Buffer.concat([bytes, Buffer.alloc(1)]);
}

function show(text: string | Uint8Array): string {
  return Buffer.from(text).toString();
}
