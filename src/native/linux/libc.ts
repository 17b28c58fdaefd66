/**
 * Linux calls that Node has no API for. The new mount calls go through syscall(2) by number, the same on every
 * architecture (asm-generic/unistd.h): glibc exports them by name only since 2.36. Only this folder uses the table.
 */

import { C, library, type NativeResult } from '../library.ts';
import { systemError } from './errno.ts';

export const SyscallNumber = { move_mount: 429, fsopen: 430, fsconfig: 431, fsmount: 432 } as const;

const { long, int, uint, ulong, str, size_t, pointer } = C;

export const libc = library(null, {
  fsopen: [long, [long, str, uint], 'syscall'],
  fsconfig: [long, [long, int, uint, str, str, int], 'syscall'],
  fsmount: [long, [long, int, uint, uint], 'syscall'],
  move_mount: [long, [long, int, str, int, str, uint], 'syscall'],
  umount2: [int, [str, int]],
  syncfs: [int, [int]],
  flock: [int, [int, int]],
  poll: [int, [pointer, ulong, int]],
  ioctl: [int, [int, ulong, pointer]],
  lgetxattr: [long, [pointer, pointer, pointer, size_t]],
  lsetxattr: [int, [pointer, pointer, pointer, size_t, int]],
  llistxattr: [long, [pointer, pointer, size_t]],
});

/** The call's result, or the errno it failed with, negative as the kernel has it. */
export function outcome({ value, errno }: NativeResult): number {
  return Number(value) < 0 ? -errno : Number(value);
}

/** The call's result; throws when it failed. `operation` names what was being done and to what. */
export function check(operation: string, result: NativeResult): number {
  const value = outcome(result);
  if (value < 0) throw systemError(operation, -value);
  return value;
}
