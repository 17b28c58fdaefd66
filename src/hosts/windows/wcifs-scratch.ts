/** A scratch over WCIFS layers: its disk attached, and the layers shown under it, are a volume. */

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { isErrorCode } from '../../errors.ts';
import type { VmCompute } from '../../native/windows/vmcompute.ts';
import { combined, type Resource } from './acquire.ts';

const DISK = 'sandbox.vhdx';

/** The scratch is there already. Parents come topmost first. */
export function scratchOver(vmcompute: VmCompute, scratch: string, parents: readonly string[]): Resource {
  const isActive = async () => (await scratchVolume(vmcompute, scratch)) !== undefined;
  return combined([
    {
      acquire: () => vmcompute.activateLayer(scratch),
      release: async () => {
        if (await isActive()) await vmcompute.deactivateLayer(scratch);
      },
    },
    {
      acquire: () => vmcompute.prepareLayer(scratch, parents),
      release: async () => {
        if (await isActive()) await unlessGone(() => vmcompute.unprepareLayer(scratch));
      },
    },
  ]);
}

/** The volume of a scratch, `\\?\Volume{guid}\`, while it is active. */
export async function scratchVolume(vmcompute: VmCompute, scratch: string): Promise<string | undefined> {
  if (!existsSync(join(scratch, DISK))) return undefined;
  const volume = await vmcompute.getLayerMountPath(scratch);
  if (!volume.startsWith('\\\\?\\Volume{')) return undefined;
  return volume.endsWith('\\') ? volume : `${volume}\\`;
}

/** A run that died between activating and preparing left nothing to end. */
async function unlessGone(call: () => Promise<void>): Promise<void> {
  try {
    await call();
  } catch (error) {
    if (!isErrorCode(error, 'not-found')) throw error;
  }
}
