/** Writable mounts: an ext4 image, and overlayfs. https://docs.kernel.org/filesystems/overlayfs.html */

import { closeSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { classify } from '../../errors.ts';
import { attachLoop, findLoop } from './loop.ts';
import { FilesystemContext, MountAttribute, moveMount } from './mount-calls.ts';

export interface MountOverlayRequest {
  /** Directories to look through, topmost first; one or more. */
  lowers: readonly string[];
  /** Takes the writes: two directories of one file system, the second one empty. */
  writable?: { upper: string; work: string } | undefined;
  /** What the mount table shows as the source. At most 255 bytes. */
  source: string;
  /** An existing directory; a symbolic link isn't followed. */
  target: string;
}

/**
 * Mounts an overlay, without device files and set-user-ID, as one operation. It holds on to what its directories are on: those mounts may go
 * as soon as this returns. A directory of lower layers is never renamed, only copied, so that the upper directory by itself says what changed.
 */
export async function mountOverlay(request: MountOverlayRequest): Promise<void> {
  const { lowers, writable, source, target } = request;
  const operation = `mount overlay ${source} at ${target}`;
  const held: { close(): Promise<void> | void }[] = [];
  /** By descriptor, so that no path is too long or has a character that means something to overlayfs. */
  const reachable = async (directory: string): Promise<string> => {
    const handle = await openDirectory(directory, operation);
    held.push(handle);
    return `/proc/self/fd/${handle.fd}`;
  };
  try {
    const context = await FilesystemContext.open('overlay', operation);
    held.push(context);
    await context.setString('source', source);
    // lowerdir+ (Linux 6.7) takes one at a time, for as many as there are.
    const key = lowers.length === 1 ? 'lowerdir' : 'lowerdir+';
    for (const lower of lowers) await context.setString(key, await reachable(lower));
    if (writable !== undefined) {
      await context.setString('upperdir', await reachable(writable.upper));
      await context.setString('workdir', await reachable(writable.work));
      await context.setString('index', 'off');
    }
    // Neither made nor followed: no layer has a say in where a file is.
    await context.setString('redirect_dir', 'nofollow');
    await context.setString('metacopy', 'off');
    await context.create();
    const { readOnly, noSetuid, noDevices } = MountAttribute;
    const mountFd = await context.mount(noSetuid | noDevices | (writable === undefined ? readOnly : 0));
    held.push({ close: () => closeSync(mountFd) });
    await moveMount(mountFd, target, operation);
  } finally {
    for (const resource of held.reverse()) await resource.close();
  }
}

/**
 * Mounts an ext4 image in a file at an existing directory. A writable one that is mounted already, anywhere, is the same file system.
 * Throws as `attachLoop`, and `native` with the kernel's words for an image it refuses.
 */
export async function mountExt4(
  image: string,
  target: string,
  { readOnly = false }: { readOnly?: boolean } = {},
): Promise<void> {
  const operation = `mount ext4 image ${image} at ${target}`;
  const held: { close(): Promise<void> | void }[] = [];
  try {
    const known = readOnly ? undefined : await findLoop(image);
    const device = known ?? (await attachLoop(image, { writable: !readOnly }));
    held.push(device);
    const context = await FilesystemContext.open('ext4', operation);
    held.push(context);
    if (readOnly) await context.setFlag('ro');
    await context.setString('source', device.path);
    await context.create();
    const { noSetuid, noDevices } = MountAttribute;
    const mountFd = await context.mount(noSetuid | noDevices | (readOnly ? MountAttribute.readOnly : 0));
    held.push({ close: () => closeSync(mountFd) });
    await moveMount(mountFd, target, operation);
  } finally {
    for (const resource of held.reverse()) await resource.close();
  }
}

async function openDirectory(directory: string, operation: string): Promise<FileHandle> {
  try {
    return await open(directory, 'r');
  } catch (error) {
    throw classify(error, `${operation}: open ${directory}`);
  }
}
