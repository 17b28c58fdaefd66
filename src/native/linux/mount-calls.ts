/** Thin wrappers of the mount system calls. Blocking ones run on another thread. */

import { closeSync, readSync } from 'node:fs';
import type { NativeResult } from '../library.ts';
import { errnoName, systemError } from './errno.ts';
import { check, libc, outcome, SyscallNumber } from './libc.ts';

const FSOPEN_CLOEXEC = 1;
const FSMOUNT_CLOEXEC = 1;
const FSCONFIG_SET_FLAG = 0;
const FSCONFIG_SET_STRING = 1;
const FSCONFIG_CMD_CREATE = 6;
const AT_FDCWD = -100;
const MOVE_MOUNT_F_EMPTY_PATH = 4;

const HINTS: Readonly<Record<string, string>> = {
  EINVAL: 'the kernel log (dmesg) may say more',
  ENODEV: 'this kernel lacks the file system (modprobe it, or use another kernel)',
  ENOTBLK: 'this kernel mounts it from block devices only: use loop devices',
  EPERM: 'mounting needs CAP_SYS_ADMIN outside of a user namespace: run as root',
};

/** fsmount(2) attributes. */
export const MountAttribute = { readOnly: 1, noSetuid: 2, noDevices: 4, noExecute: 8 } as const;
/** umount2(2) flags. */
export const UnmountFlag = { detach: 2, noFollow: 8 } as const;

/**
 * A file-system context: a mount being set up. What the kernel said about a failure goes into the error.
 * https://man7.org/linux/man-pages/man2/fsopen.2.html and its neighbours.
 */
export class FilesystemContext {
  readonly #fd: number;
  readonly #operation: string;

  private constructor(fd: number, operation: string) {
    this.#fd = fd;
    this.#operation = operation;
  }

  /** `operation` names the whole mount, for errors. Loads the file system's module where there is one. */
  static async open(filesystem: string, operation: string): Promise<FilesystemContext> {
    const result = await libc.callAsync('fsopen', SyscallNumber.fsopen, filesystem, FSOPEN_CLOEXEC);
    const fd = outcome(result);
    if (fd < 0) throw systemError(operation, -fd, { hint: HINTS[errnoName(-fd)] });
    return new FilesystemContext(fd, operation);
  }

  async setFlag(key: string): Promise<void> {
    await this.#configure(FSCONFIG_SET_FLAG, key, null);
  }

  /** At most 255 bytes; a longer `value` is refused. */
  async setString(key: string, value: string): Promise<void> {
    await this.#configure(FSCONFIG_SET_STRING, key, value);
  }

  /** Makes the superblock: opens the devices and reads from them. */
  async create(): Promise<void> {
    await this.#configure(FSCONFIG_CMD_CREATE, null, null);
  }

  /** The descriptor of a mount that is nowhere yet; closing it before `moveMount` drops the mount. */
  async mount(attributes: number): Promise<number> {
    return this.#check(
      await libc.callAsync('fsmount', SyscallNumber.fsmount, this.#fd, FSMOUNT_CLOEXEC, attributes),
    );
  }

  close(): void {
    closeSync(this.#fd);
  }

  async #configure(command: number, key: string | null, value: string | null): Promise<void> {
    this.#check(await libc.callAsync('fsconfig', SyscallNumber.fsconfig, this.#fd, command, key, value, 0));
  }

  #check(result: NativeResult): number {
    const value = outcome(result);
    if (value < 0) {
      const detail = this.#log();
      throw systemError(this.#operation, -value, { detail, hint: HINTS[errnoName(-value)] });
    }
    return value;
  }

  /** The context's messages, one to a read, each behind its level (`e `, `w `, `i `); reading takes them away. */
  #log(): string | undefined {
    const messages: string[] = [];
    const buffer = Buffer.alloc(4096);
    try {
      for (;;) messages.push(buffer.toString('utf8', 2, readSync(this.#fd, buffer)).trim());
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENODATA') throw error;
    }
    return messages.length === 0 ? undefined : messages.join('; ');
  }
}

/** What fsopen(2) would say to this process for an always present file system: 0, or the errno. */
export async function tryMountApi(): Promise<number> {
  const fd = outcome(await libc.callAsync('fsopen', SyscallNumber.fsopen, 'proc', FSOPEN_CLOEXEC));
  if (fd < 0) return -fd;
  closeSync(fd);
  return 0;
}

/** Puts a mount made by `FilesystemContext.mount` at a path. A symbolic link at the path's end isn't followed. */
export async function moveMount(mountFd: number, target: string, operation: string): Promise<void> {
  const args = [SyscallNumber.move_mount, mountFd, '', AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH];
  check(operation, await libc.callAsync('move_mount', ...args));
}

/** https://man7.org/linux/man-pages/man2/umount.2.html */
export async function umount2(target: string, flags: number): Promise<void> {
  check(`unmount ${target}`, await libc.callAsync('umount2', target, flags));
}
