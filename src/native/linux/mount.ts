import { closeSync } from 'node:fs';
import { type FileHandle, open, stat } from 'node:fs/promises';
import { classify } from '../../errors.ts';
import { attachLoop } from './loop.ts';
import { FilesystemContext, MountAttribute, moveMount, UnmountFlag, umount2 } from './mount-calls.ts';

/** fsconfig(2) refuses longer strings. */
const LONGEST_STRING = 255;

export interface MountErofsRequest {
  image: string;
  /**
   * All of the image's external devices, in its order: regular files, or block devices. A wrong number is refused,
   * but given none at all the kernel shows wrong data: it takes the devices for parts of the image.
   */
  devices: readonly string[];
  /** An existing directory; a symbolic link isn't followed. */
  target: string;
  /** Through loop devices, for kernels that can't mount an EROFS image in a file (before 6.12). */
  loop?: boolean | undefined;
}

/**
 * Mounts an EROFS image read-only, without device files and set-user-ID, as one operation: it is there afterwards, or
 * nothing is. In /proc/self/mountinfo its source is the image's path, `/proc/self/fd/…` if that is longer than 255
 * bytes, or the loop device, which detaches by itself after unmounting.
 *
 * Throws `unsupported-host` where the kernel has no EROFS or (ENOTBLK) needs `loop`, `access-denied` without
 * CAP_SYS_ADMIN, `not-found` for a missing target, and `native` with the kernel's words for an image it refuses.
 */
export async function mountErofs({ image, devices, target, loop = false }: MountErofsRequest): Promise<void> {
  const operation = `mount EROFS image ${image} at ${target}`;
  const held: { close(): Promise<void> | void }[] = [];
  const hold = <Resource extends (typeof held)[number]>(resource: Resource): Resource => {
    held.push(resource);
    return resource;
  };
  /** A path by which the kernel can open `file`, in the kind and length it accepts. */
  const reachable = async (file: string): Promise<string> => {
    if (loop && !(await isBlockDevice(file, operation))) return hold(await attachLoop(file)).path;
    if (Buffer.byteLength(file) <= LONGEST_STRING) return file;
    return `/proc/self/fd/${hold(await openFile(file, operation)).fd}`;
  };
  try {
    const context = hold(await FilesystemContext.open('erofs', operation));
    await context.setFlag('ro');
    await context.setString('source', await reachable(image));
    for (const device of devices) await context.setString('device', await reachable(device));
    await context.create();
    const { readOnly, noSetuid, noDevices } = MountAttribute;
    const mountFd = await context.mount(readOnly | noSetuid | noDevices);
    hold({ close: () => closeSync(mountFd) });
    await moveMount(mountFd, target, operation);
  } finally {
    for (const resource of held.reverse()) await resource.close();
  }
}

/**
 * Unmounts what is topmost at a path; a symbolic link isn't followed. `detach`: also while in use, out of sight at
 * once and gone after the last use. Throws `busy`, `access-denied`, `not-found`, `native` (EINVAL: nothing is mounted).
 */
export async function unmount(target: string, options: { detach?: boolean | undefined } = {}): Promise<void> {
  await umount2(target, UnmountFlag.noFollow | (options.detach ? UnmountFlag.detach : 0));
}

async function isBlockDevice(file: string, operation: string): Promise<boolean> {
  try {
    return (await stat(file)).isBlockDevice();
  } catch (error) {
    throw classify(error, `${operation}: look at ${file}`);
  }
}

async function openFile(file: string, operation: string): Promise<FileHandle> {
  try {
    return await open(file, 'r');
  } catch (error) {
    throw classify(error, `${operation}: open ${file}`);
  }
}
