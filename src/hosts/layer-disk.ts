/** A Linux layer's tar made into the disk image that a utility VM or a loop device mounts. The same on every host. */

import { randomUUID } from 'node:crypto';
import { renameSync, rmSync, statSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { syncDirectory } from '../cim/durable-files.ts';
import { CimletError, classify } from '../errors.ts';
import { appendVhdFooter, syncImage } from '../ext4/disk.ts';
import { appendVerity } from '../ext4/verity-tree.ts';
import { Ext4Writer } from '../ext4/writer.ts';
import { decodeFile } from '../images/decode.ts';
import { importLinuxLayer } from '../layers/linux-layer.ts';

export interface LayerDiskInput {
  /** The layer: a tar, plain, gzip or zstd. */
  tar: string;
  /** The disk, made or replaced when it is whole. */
  file: string;
  /** Adds dm-verity, so that the kernel verifies what it reads. */
  verity: boolean;
  /** Small files lie in their inodes. */
  inlineData: boolean;
  /** Bytes that the file system may have at most. Default: 16 GiB. */
  maxSize?: number | undefined;
  signal: AbortSignal;
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
  const { file, verity, signal } = input;
  const operation = `make ${file}`;
  const temporary = join(dirname(file), `tmp-${randomUUID()}-${basename(file).slice(0, 100)}`);
  try {
    const { uuid, ...image } = await writeImage(input, temporary);
    const rootHash = verity ? await appendVerity(temporary, image.size, { signal }) : undefined;
    const end = statSync(temporary).size;
    appendVhdFooter(temporary, end, rootHash === undefined ? uuid : Buffer.from(rootHash, 'hex'));
    syncImage(temporary);
    signal.throwIfAborted();
    renameSync(temporary, file);
    syncDirectory(dirname(file));
    return { ...image, size: statSync(file).size, rootHash };
  } catch (error) {
    rmSync(temporary, { force: true });
    throw classify(error, operation);
  }
}

async function writeImage({ tar, inlineData, maxSize, signal }: LayerDiskInput, file: string) {
  const operation = `read layer ${tar}`;
  const stats = lookAt(tar, operation);
  if (!stats.isFile()) throw new CimletError('failed-precondition', `${operation}: it is no regular file`);
  const writer = new Ext4Writer(file, { inlineData, maxSize });
  try {
    const chunks = decodeFile({ file: tar, size: stats.size }, operation, signal, () => undefined);
    const { entries, warnings } = await importLinuxLayer(chunks, writer, { signal });
    return { entries, warnings, ...writer.finish() };
  } finally {
    writer.close();
  }
}

function lookAt(file: string, operation: string) {
  try {
    return statSync(file);
  } catch (error) {
    throw classify(error, operation);
  }
}
