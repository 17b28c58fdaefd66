/** Disks of Linux layers, and what was written to those of scratches, as layer tars. The same on every host; runs in a job's thread. */

import { createHash } from 'node:crypto';
import { CimletError, classify } from '../errors.ts';
import { Disk } from '../ext4/disk.ts';
import { openImage } from '../ext4/image-file.ts';
import type { Ext4File, Ext4Reader } from '../ext4/reader.ts';
import { SUPERBLOCK_AT, SUPERBLOCK_SIZE } from '../ext4/superblock.ts';
import { verifyVerity } from '../ext4/verity-tree.ts';
import { exportLinuxLayer, exportLinuxUpper } from '../layers/export-linux-layer.ts';
import type { DiffId } from './host.ts';
import type { JobControl } from './job-thread.ts';
import { type TarFile, writeTarFile } from './tar-file.ts';

export interface ExportDiskJob extends TarFile {
  kind: 'export-disk';
  disk: string;
  /** That its dm-verity must have; all of it is verified before it is read. */
  rootHash: string | undefined;
}

/** What a guest wrote over layers: overlayfs' upper directory on the disk of a scratch. */
export interface ExportScratchJob extends TarFile {
  kind: 'export-scratch';
  disk: string;
  /** Names the snapshot's part of the disk. */
  place: string;
  /** Names the part of the snapshot whose disk it is; with a dot after it, the names of all others' begin so, also of those that are gone. */
  owner: string;
  /** Others have parts of the disk, too. */
  isShared: boolean;
}

/** Throws `failed-precondition` for a disk with another seal, `corrupt` for one that isn't what was sealed. */
export async function writeDiskTar(job: ExportDiskJob, control: JobControl): Promise<{ bytes: number }> {
  return withDisk(job, (disk) => {
    if (job.rootHash !== undefined) requireSealed(disk, job.rootHash, control);
    return { bytes: writeTarFile(job, exportLinuxLayer(disk.files), control) };
  });
}

function requireSealed({ file, verity }: Disk, rootHash: string, { checkpoint }: JobControl): void {
  const found = verity === undefined ? 'none' : `sha256:${verity.rootHash}`;
  if (verity === undefined || found !== rootHash)
    throw new CimletError(
      'failed-precondition',
      `${file.path}: its root hash is ${found}, expected is ${rootHash}`,
    );
  const [fault] = verifyVerity(file, verity, { throwIfAborted: checkpoint });
  if (fault !== undefined)
    throw new CimletError('corrupt', `${file.path} at offset ${fault.offset}: ${fault.message}`);
}

/** Throws `failed-precondition` for a disk that is in use, wasn't unmounted or never formatted, and where others have written to it. */
export async function writeScratchTar(
  job: ExportScratchJob,
  control: JobControl,
): Promise<{ diffId: DiffId }> {
  refuseBlank(job.disk);
  const digest = createHash('sha256');
  return withDisk(job, ({ files }) => {
    const chunks = exportLinuxUpper(files, upperOf(files, job));
    writeTarFile(job, chunks, control, (batch) => digest.update(batch));
    return { diffId: `sha256:${digest.digest('hex')}` as DiffId };
  });
}

/** Where a superblock is there is nothing yet. */
function refuseBlank(disk: string): void {
  const image = openImage(disk);
  try {
    if (image.read(SUPERBLOCK_AT, SUPERBLOCK_SIZE).some((byte) => byte !== 0)) return;
  } finally {
    image.close();
  }
  throw new CimletError('failed-precondition', `export ${disk}: there is no file system on it yet`, {
    hint: 'the first utility VM that its snapshot is mounted in makes one',
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
 * written; what is written and can't be told to be the snapshot's is refused, since the disk of one that is committed is deleted.
 * Source: hcsshim internal/guest/runtime/hcsv2 (uvm.go, modifyCombinedLayers) and internal/guestpath.
 */
function upperOf(files: Ext4Reader, job: ExportScratchJob): Ext4File | undefined {
  const { disk, place, owner, isShared } = job;
  const refuse = (why: string) =>
    new CimletError('failed-precondition', `export ${disk}: ${why}`, {
      hint: 'look into it with cimlet vhd ls and cat',
    });
  const own = files.find(`scratch/${place}/upper`);
  const [other, another] = namesIn(files, 'scratch').filter((name) => !isOf(owner, name));
  if (other === undefined) {
    const [stranger] = namesIn(files, '').filter((name) => name !== 'scratch' && name !== 'lost+found');
    if (own === undefined && stranger !== undefined)
      throw refuse(`what is on it, as ${JSON.stringify(stranger)}, was written in no place that is known`);
    return own;
  }
  const others = [other, ...(another === undefined ? [] : [another])].map((name) => `scratch/${name}`);
  const upper = files.find(`scratch/${other}/upper`);
  const isOnly = own === undefined && another === undefined && !isShared;
  if (isOnly && upper !== undefined) return upper;
  throw refuse(`something else has written to it (${others.join(', ')})`);
}

function isOf(owner: string, place: string): boolean {
  return place === owner || place.startsWith(`${owner}.`);
}

function namesIn(files: Ext4Reader, path: string): string[] {
  const directory = files.find(path);
  return directory === undefined ? [] : [...files.entries(directory)].map(({ name }) => name);
}
