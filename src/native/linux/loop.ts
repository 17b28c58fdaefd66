/** Loop devices: a regular file as a block device. https://man7.org/linux/man-pages/man4/loop.4.html */

import { existsSync } from 'node:fs';
import { type FileHandle, open, readdir, readFile, realpath } from 'node:fs/promises';
import { basename } from 'node:path';
import { CimletError, classify } from '../../errors.ts';
import { Errno, systemError } from './errno.ts';
import { libc, outcome } from './libc.ts';

const LOOP_CONFIGURE = 0x4c0a;
const LOOP_CTL_GET_FREE = 0x4c82;
const LO_FLAGS_READ_ONLY = 1;
const LO_FLAGS_AUTOCLEAR = 4;

// struct loop_config: __u32 fd, block_size; struct loop_info64 (232 bytes); __u64 reserved[8].
const CONFIG_SIZE = 304;
const FLAGS_AT = 8 + 52;
const FILE_NAME_AT = 8 + 56;
const FILE_NAME_BYTES = 64;

/** Others may take a free device first. */
const ATTEMPTS = 64;

/** An attached loop device. It lasts until `close` and until nothing else (a mount) has it open any more. */
export interface LoopDevice {
  readonly path: string;
  close(): Promise<void>;
}

/**
 * Attaches a file, read-only unless `writable`, to a free loop device that detaches by itself after its last use. `access-denied`
 * for who may not open loop devices, `unsupported-host` where there are none, `busy` when none is free, or stays so long enough.
 */
export async function attachLoop(
  file: string,
  { writable = false }: { writable?: boolean } = {},
): Promise<LoopDevice> {
  const operation = `attach ${file} to a loop device`;
  const backing = await openOr(file, operation, writable);
  try {
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const device = await openFree(operation, writable);
      const config = configuration(backing.fd, file, writable);
      const result = await ioctl(device.handle.fd, LOOP_CONFIGURE, config);
      if (result >= 0) return { path: device.path, close: () => device.handle.close() };
      await device.handle.close();
      if (result !== -Errno.EBUSY) throw systemError(operation, -result);
    }
  } finally {
    await backing.close();
  }
  throw new CimletError('busy', `${operation}: ${ATTEMPTS} devices that were free have been taken`);
}

/**
 * The loop device that a file is attached to already, held open; undefined when there is none. Two devices of one file
 * don't know of one another: what is written through both is lost.
 */
export async function findLoop(file: string): Promise<LoopDevice | undefined> {
  const operation = `look for the loop device of ${file}`;
  try {
    const path = await realpath(file);
    for (const name of await readdir('/sys/block')) {
      if (!name.startsWith('loop') || (await backingFile(name)) !== path) continue;
      const handle = await openOr(`/dev/${name}`, operation, true);
      // It may have been detached, and attached to something else, before it was opened.
      if ((await backingFile(name)) === path) return { path: `/dev/${name}`, close: () => handle.close() };
      await handle.close();
    }
  } catch (error) {
    throw classify(error, operation);
  }
  return undefined;
}

/** What a loop device (`loop0`) is attached to, undefined when to nothing. */
export async function backingFile(name: string): Promise<string | undefined> {
  const file = `/sys/block/${name}/loop/backing_file`;
  try {
    return (await readFile(file, 'utf8')).trimEnd().replace(/ \(deleted\)$/, '');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENXIO' || code === 'ENODEV') return undefined;
    throw classify(error, `read ${file}`);
  }
}

async function openFree(operation: string, writable: boolean): Promise<{ path: string; handle: FileHandle }> {
  const control = await openOr('/dev/loop-control', operation, false);
  try {
    const number = await ioctl(control.fd, LOOP_CTL_GET_FREE, null);
    if (number < 0) throw systemError(operation, -number);
    const path = `/dev/loop${number}`;
    // Without devtmpfs, as in most containers, there are only those that were made beforehand.
    if (number > 0 && !existsSync(path))
      throw new CimletError('busy', `${operation}: all loop devices are in use, and there is no ${path}`, {
        hint: 'detach one (losetup -a lists them), or provide more of /dev/loop*',
      });
    return { path, handle: await openOr(path, operation, writable) };
  } finally {
    await control.close();
  }
}

async function openOr(path: string, operation: string, writable: boolean): Promise<FileHandle> {
  try {
    return await open(path, writable ? 'r+' : 'r');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (path.startsWith('/dev/loop') && (code === 'ENOENT' || code === 'ENXIO'))
      throw new CimletError('unsupported-host', `${operation}: there is no ${path} (${code})`, {
        hint: 'load the loop module (modprobe loop); in a container, give it /dev/loop-control and /dev/loop*',
        cause: error,
      });
    throw classify(error, `${operation}: open ${path}`);
  }
}

function configuration(fd: number, file: string, writable: boolean): Buffer {
  const config = Buffer.alloc(CONFIG_SIZE);
  config.writeUInt32LE(fd, 0);
  config.writeUInt32LE(LO_FLAGS_AUTOCLEAR | (writable ? 0 : LO_FLAGS_READ_ONLY), FLAGS_AT);
  config.write(basename(file), FILE_NAME_AT, FILE_NAME_BYTES - 1);
  return config;
}

/** The ioctl's result, or the errno, negative. */
async function ioctl(fd: number, request: number, argument: Uint8Array | null): Promise<number> {
  return outcome(await libc.callAsync('ioctl', fd, request, argument));
}
