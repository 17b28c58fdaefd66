/** Scratches over layers of Linux images: disks for utility VMs. Runs in a job's thread: a large one takes seconds. */

import { emptyExt4 } from '../../ext4/empty.ts';
import { writeVhdx } from '../../vhd/vhdx.ts';
import type { ScratchOptions } from '../host.ts';

/** What containerd gives them. The file has what is written only. */
const SCRATCH_BYTES = 20 * 2 ** 30;
const SECTOR = 512;

/** Writes the disk of a scratch of Linux layers. */
export interface LinuxScratchJob extends Pick<ScratchOptions, 'bytes' | 'unformatted'> {
  kind: 'linux-scratch';
  file: string;
  /** A UUID that no other disk has. */
  id: string;
}

/**
 * Writes a disk with an empty ext4 file system, which containerd has a VM make, or without any. A growing VHDX: what hcsshim attaches as a
 * scratch is called so, and Windows attaches no sparse file. Throws `invalid-manifest` for a size that can't be. Calls block; for the job's thread.
 */
export function writeLinuxScratch({ file, id, bytes, unformatted }: LinuxScratchJob): undefined {
  const uuid = Buffer.from(id.replaceAll('-', ''), 'hex');
  const wanted = bytes ?? SCRATCH_BYTES;
  const { size, pieces } =
    unformatted === true
      ? { size: Math.ceil(wanted / SECTOR) * SECTOR, pieces: [] }
      : emptyExt4(wanted, uuid, `make scratch ${file}`);
  writeVhdx(file, size, uuid, pieces);
}
