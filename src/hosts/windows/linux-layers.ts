/** Layers of Linux images and scratches over them: disks for utility VMs, which Windows has no part in. */

import { join } from 'node:path';
import { emptyExt4 } from '../../ext4/empty.ts';
import { writeVhdx } from '../../vhd/vhdx.ts';
import type { EffectContext, ScratchOptions, UnpackRequest } from '../host.ts';
import { LAYER_DISK, layerDiskPath } from '../unpack-linux.ts';
import { runJob, type WrittenImage } from './jobs.ts';
import { offerToVms } from './vm-scratch.ts';
import type { Workshop } from './workshop.ts';

/** Always with a VHD footer, and for every VM to read, as containerd leaves it. A seal is dm-verity. */
export async function writeLinuxLayer(
  { layout, computecore }: Pick<Workshop, 'layout' | 'computecore'>,
  { blob, diffId, parents, seal = false }: UnpackRequest,
  folder: string,
  context: EffectContext,
): Promise<WrittenImage> {
  const file = join(folder, LAYER_DISK);
  const lower = parents.map((chainId) => layerDiskPath(layout, chainId)).reverse();
  const { size, entries, warnings, rootHash } = await runJob(
    { kind: 'unpack-linux', blob, diffId, file, lower, seal },
    context,
  );
  await offerToVms({ computecore }, file, context);
  return {
    cimFiles: [{ name: LAYER_DISK, size }],
    bytes: size,
    files: entries,
    warnings,
    ...(rootHash === undefined ? {} : { rootHash: `sha256:${rootHash}` }),
  };
}

/** What containerd gives them. The file has what is written only. */
const SCRATCH_BYTES = 20 * 2 ** 30;
const SECTOR = 512;

/**
 * Writes a disk with an empty ext4 file system, which containerd has a VM make, or without any. A growing VHDX: what hcsshim attaches as a
 * scratch is called so, and Windows attaches no sparse file. `id` is a UUID that no other disk has. Throws `invalid-manifest` for a size that
 * can't be.
 */
export function writeLinuxScratch(file: string, id: string, { bytes, unformatted }: ScratchOptions): void {
  const uuid = Buffer.from(id.replaceAll('-', ''), 'hex');
  const wanted = bytes ?? SCRATCH_BYTES;
  const { size, pieces } =
    unformatted === true
      ? { size: Math.ceil(wanted / SECTOR) * SECTOR, pieces: [] }
      : emptyExt4(wanted, uuid, `make scratch ${file}`);
  writeVhdx(file, size, uuid, pieces);
}
