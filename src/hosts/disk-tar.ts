/** Disks of Linux layers, and what was written to those of scratches, as layer tars. The same on every host; runs in a job's thread. */

import { createHash } from 'node:crypto';
import { CimletError, classify } from '../errors.ts';
import { Disk } from '../ext4/disk.ts';
import type { Ext4File, Ext4Reader } from '../ext4/reader.ts';
import { exportLinuxLayer, exportLinuxUpper } from '../layers/export-linux-layer.ts';
import type { DiffId } from './host.ts';
import type { JobControl } from './job-thread.ts';
import { type TarFile, writeTarFile } from './tar-file.ts';

export interface ExportDiskJob extends TarFile {
  kind: 'export-disk';
  disk: string;
}

/** What a guest wrote over layers: overlayfs' upper directory on the disk of a scratch. */
export interface ExportScratchJob extends TarFile {
  kind: 'export-scratch';
  disk: string;
  /** Names the snapshot's part of the disk. */
  place: string;
  /** Others have parts of the disk, too. */
  isShared: boolean;
}

export async function writeDiskTar(job: ExportDiskJob, control: JobControl): Promise<{ bytes: number }> {
  return withDisk(job, ({ files }) => ({ bytes: writeTarFile(job, exportLinuxLayer(files), control) }));
}

/** Throws `failed-precondition` for a disk that is in use, or wasn't unmounted. */
export async function writeScratchTar(
  job: ExportScratchJob,
  control: JobControl,
): Promise<{ diffId: DiffId }> {
  const digest = createHash('sha256');
  return withDisk(job, ({ files }) => {
    const chunks = exportLinuxUpper(files, upperOf(files, job));
    writeTarFile(job, chunks, control, (batch) => digest.update(batch));
    return { diffId: `sha256:${digest.digest('hex')}` as DiffId };
  });
}

function withDisk<T>(job: TarFile & { disk: string }, use: (disk: Disk) => T): T {
  const disk = new Disk(job.disk);
  try {
    return use(disk);
  } catch (error) {
    throw classify(error, `export ${job.disk} to ${job.file}`);
  } finally {
    disk.close();
  }
}

/**
 * Where cimlet has guests write, else the only place that is there: other runtimes name it after their container. Undefined when nothing was
 * written. Source: hcsshim internal/guest/runtime/hcsv2 (uvm.go, modifyCombinedLayers) and internal/guestpath.
 */
function upperOf(files: Ext4Reader, { disk, place, isShared }: ExportScratchJob): Ext4File | undefined {
  const own = files.find(`scratch/${place}/upper`);
  const scratch = files.find('scratch');
  if (own !== undefined || isShared || scratch === undefined) return own;
  const uppers = [...files.entries(scratch)].flatMap(({ name }) => files.find(`scratch/${name}/upper`) ?? []);
  if (uppers.length <= 1) return uppers[0];
  throw new CimletError('failed-precondition', `export ${disk}: several containers have written to it`, {
    hint: 'look into it with cimlet vhd ls and cat',
  });
}
