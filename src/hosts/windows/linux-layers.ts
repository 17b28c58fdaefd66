/** Layers of Linux images: disks for utility VMs, which Windows has no part in. */

import { join } from 'node:path';
import type { EffectContext, UnpackRequest } from '../host.ts';
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
