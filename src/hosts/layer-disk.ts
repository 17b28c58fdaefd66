/** A Linux layer's tar made into the disk image that a utility VM or a loop device mounts. The same on every host. */

import { randomUUID } from 'node:crypto';
import { lstatSync, renameSync, rmSync, statSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { syncDirectory } from '../cim/durable-files.ts';
import { CimletError, classify } from '../errors.ts';
import { appendVhdFooter, syncImage } from '../ext4/disk.ts';
import { type Ext4Options, Ext4Writer } from '../ext4/writer.ts';
import { decodeFile } from '../images/decode.ts';
import { importLinuxLayer } from '../layers/linux-layer.ts';
import { LowerDisks } from '../layers/lower-disks.ts';
import { DiskVerity } from './disk-verity.ts';

export interface LayerDiskOptions {
  /** Adds dm-verity, so that the kernel verifies what it reads. */
  verity: boolean;
  /** Small files lie in their inodes. */
  inlineData: boolean;
  /** Bytes that the file system may have at most. Default: 16 GiB. */
  maxSize?: number | undefined;
  /** Disks of the layers below, topmost first: directories that the tar doesn't state are as they are there. Default: none. */
  lower?: readonly string[] | undefined;
  signal: AbortSignal;
}

export interface LayerDiskInput extends LayerDiskOptions {
  /** The layer: a tar, plain, gzip or zstd. */
  tar: string;
  /** The disk, made or replaced when it is whole; no other than a regular file is. */
  file: string;
}

export interface LayerDisk {
  /** Entries of the tar. */
  entries: number;
  /** Files of the image, its root and lost+found among them. */
  inodes: number;
  /** Bytes of the whole disk image. */
  size: number;
  /** 64 hexadecimal digits, with dm-verity. */
  rootHash: string | undefined;
  warnings: string[];
}

/**
 * Writes a layer as a fixed VHD of a compact ext4 file system, durably; on any error there is no trace of it. The same layer and options give the
 * same bytes. Throws `corrupt` for a layer that isn't one or that ext4 can't hold, `no-space` when it is too large, `cancelled`.
 */
export async function createLayerDisk(input: LayerDiskInput): Promise<LayerDisk> {
  const { tar, file, signal } = input;
  const temporary = join(dirname(file), `tmp-${randomUUID()}-${basename(file).slice(0, 100)}`);
  try {
    refuseSpecial(file);
    const reading = `read layer ${tar}`;
    const stats = lookAt(tar, reading);
    if (!stats.isFile()) throw new CimletError('failed-precondition', `${reading}: it is no regular file`);
    const chunks = decodeFile({ file: tar, size: stats.size }, reading, signal, () => undefined);
    const disk = await writeLayerDisk(chunks, temporary, input);
    signal.throwIfAborted();
    renameSync(temporary, file);
    syncDirectory(dirname(file));
    return disk;
  } catch (error) {
    rmSync(temporary, { force: true });
    throw classify(error, `make ${file}`);
  }
}

/** The same of an uncompressed tar, into a file that is there, whole or not, however it ends. */
export async function writeLayerDisk(
  tar: AsyncIterable<Uint8Array>,
  file: string,
  { verity, signal, ...options }: LayerDiskOptions,
): Promise<LayerDisk> {
  const { uuid, rootHash, ...image } = verity
    ? await writeVerified(tar, file, options, signal)
    : { ...(await writeImage(tar, file, options, signal)), rootHash: undefined };
  const end = statSync(file).size;
  appendVhdFooter(file, end, rootHash === undefined ? uuid : Buffer.from(rootHash, 'hex'));
  syncImage(file);
  return { ...image, size: statSync(file).size, rootHash };
}

type ImageOptions = Omit<LayerDiskOptions, 'verity' | 'signal'> & Pick<Ext4Options, 'onWritten'>;

async function writeVerified(
  tar: AsyncIterable<Uint8Array>,
  file: string,
  options: ImageOptions,
  signal: AbortSignal,
) {
  const verity = new DiskVerity(file, signal);
  try {
    const image = await writeImage(tar, file, { ...options, onWritten: verity.onWritten }, signal);
    return { ...image, rootHash: await verity.finish(image.size) };
  } finally {
    await verity.close();
  }
}

async function writeImage(
  tar: AsyncIterable<Uint8Array>,
  file: string,
  { lower = [], ...options }: ImageOptions,
  signal: AbortSignal,
) {
  const disks = new LowerDisks(lower);
  try {
    const writer = new Ext4Writer(file, { ...options, lower: disks });
    return await importInto(writer, tar, signal);
  } finally {
    disks.close();
  }
}

async function importInto(writer: Ext4Writer, tar: AsyncIterable<Uint8Array>, signal: AbortSignal) {
  try {
    const { entries, warnings } = await importLinuxLayer(tar, writer, { signal });
    return { entries, warnings, ...writer.finish() };
  } finally {
    writer.close();
  }
}

/** A pipe or a device would be replaced, not written to. */
function refuseSpecial(file: string): void {
  const stats = lstatSync(file, { throwIfNoEntry: false });
  if (stats === undefined || stats.isFile()) return;
  throw new CimletError('failed-precondition', `make ${file}: there is something that is no regular file`, {
    hint: 'name a new file, or one that may be replaced',
  });
}

function lookAt(file: string, operation: string) {
  try {
    return statSync(file);
  } catch (error) {
    throw classify(error, operation);
  }
}
