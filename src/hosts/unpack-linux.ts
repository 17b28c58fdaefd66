/** A Linux layer unpacked into the disk that a utility VM mounts. Runs in a job's thread. */

import type { DiffId, LayerBlob } from './host.ts';
import type { JobControl } from './job-thread.ts';
import { type LayerDisk, writeLayerDisk } from './layer-disk.ts';
import { nameCulprit, openJobTar } from './unpack-input.ts';

/** As containerd names it, and as large as containerd lets it become. */
export const LAYER_DISK = 'layer.vhd';
const MAX_DISK_BYTES = 128 * 2 ** 30;

export interface UnpackLinuxJob {
  blob: LayerBlob;
  diffId: DiffId;
  /** What is left of it on failure is the caller's to remove. */
  file: string;
  seal: boolean;
}

/** Decodes and verifies a blob. The same layer gives the same bytes. */
export async function unpackLinux(job: UnpackLinuxJob, control: JobControl): Promise<LayerDisk> {
  const { signal } = control;
  const options = { verity: job.seal, inlineData: false, maxSize: MAX_DISK_BYTES, signal };
  try {
    return await writeLayerDisk(openJobTar(job, control), job.file, options);
  } catch (error) {
    throw nameCulprit(error, job, []);
  }
}
