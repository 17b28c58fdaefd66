/** A Linux layer unpacked into the disk that a utility VM mounts. Runs in a job's thread. */

import { join } from 'node:path';
import type { ChainId, DiffId, LayerBlob } from './host.ts';
import type { JobControl } from './job-thread.ts';
import { type LayerDisk, writeLayerDisk } from './layer-disk.ts';
import { type Layout, layerFolder, snapshotPath } from './layout.ts';
import { nameCulprit, openJobTar } from './unpack-input.ts';

/** As containerd names it, and as large as containerd lets it become. */
export const LAYER_DISK = 'layer.vhd';
/** Changes whenever the same layer would give another disk. */
export const LINUX_DISK_BUILDER = 'linux-disk/1';
const MAX_DISK_BYTES = 128 * 2 ** 30;

/** The disk to write. */
export interface LinuxDiskTarget {
  /** What is left of it on failure is the caller's to remove. */
  file: string;
  /** Disks of the layers below, topmost first. */
  lower: readonly string[];
  seal: boolean;
}

export interface UnpackLinuxJob extends LinuxDiskTarget {
  blob: LayerBlob;
  diffId: DiffId;
}

/** Decodes and verifies a blob. The same layer over the same ones gives the same bytes. */
export async function unpackLinux(job: UnpackLinuxJob, control: JobControl): Promise<LayerDisk> {
  try {
    return await writeLinuxDisk(openJobTar(job, control), job, control);
  } catch (error) {
    throw nameCulprit(error, job, job.lower);
  }
}

/** The same of an uncompressed tar. */
export async function writeLinuxDisk(
  tar: AsyncIterable<Uint8Array>,
  { file, lower, seal: verity }: LinuxDiskTarget,
  { signal }: JobControl,
): Promise<LayerDisk> {
  return writeLayerDisk(tar, file, { verity, lower, inlineData: false, maxSize: MAX_DISK_BYTES, signal });
}

/** A committed Linux layer's disk. */
export function layerDiskPath(layout: Layout, chainId: ChainId): string {
  return join(snapshotPath(layout, layerFolder({ chainId, format: 'LCOW' })), LAYER_DISK);
}
