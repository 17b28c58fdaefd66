/** A scratch over WCIFS layers: its disk attached, and the layers shown under it, are a volume. */

import { existsSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { isErrorCode } from '../../errors.ts';
import type { VmCompute } from '../../native/windows/vmcompute.ts';
import { ensureDirectory, listDirectory } from '../directories.ts';
import type { VolumeGuid } from '../host.ts';
import type { Layout } from '../layout.ts';
import { readMountRecord } from '../mount-records.ts';
import { type Resource, together } from './acquire.ts';
import { scratchVolume } from './scratches.ts';

const VIEW_SCRATCH = /^view-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})$/;

/** The scratch is there already. Parents come topmost first. */
export function scratchOver(vmcompute: VmCompute, scratch: string, parents: readonly string[]): Resource {
  const isActive = async () => (await scratchVolume(vmcompute, scratch)) !== undefined;
  return together([
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

export function viewScratchPath({ root }: Layout, volumeGuid: VolumeGuid): string {
  return join(root, 'scratches', `view-${volumeGuid}`);
}

/** The scratch of a read-only view, made and thrown away with it: Windows shows WCIFS layers under nothing else. */
export function viewScratch(vmcompute: VmCompute, scratch: string, parents: readonly string[]): Resource {
  const made: Resource = {
    acquire: async () => {
      // A run that died may have left the beginning of one.
      await destroyScratch(vmcompute, scratch);
      await ensureDirectory(dirname(scratch));
      await vmcompute.createSandboxLayer(scratch, parents);
    },
    release: () => destroyScratch(vmcompute, scratch),
  };
  return together([made, scratchOver(vmcompute, scratch, parents)]);
}

/** Scratches of views that nobody recorded, or whose record was lost. */
export async function viewScratchLeftovers(
  layout: Layout,
  running: ReadonlySet<VolumeGuid>,
): Promise<{ path: string; reason: string }[]> {
  const found: { path: string; reason: string }[] = [];
  for (const name of await listDirectory(join(layout.root, 'scratches'))) {
    const volumeGuid = VIEW_SCRATCH.exec(name)?.[1] as VolumeGuid | undefined;
    if (volumeGuid === undefined || running.has(volumeGuid)) continue;
    if ((await readMountRecord(layout, volumeGuid)) !== undefined) continue;
    found.push({
      path: viewScratchPath(layout, volumeGuid),
      reason: 'the scratch of a view that nobody recorded',
    });
  }
  return found;
}

export function isViewScratch(path: string): boolean {
  return VIEW_SCRATCH.test(basename(path));
}

/** Deletes a scratch, and ends what it shows before. Fine when there is none. */
export async function destroyScratch(vmcompute: VmCompute, scratch: string): Promise<void> {
  await scratchOver(vmcompute, scratch, []).release();
  if (existsSync(scratch)) await vmcompute.destroyLayer(scratch);
}

/** A run that died between activating and preparing left nothing to end. */
async function unlessGone(call: () => Promise<void>): Promise<void> {
  try {
    await call();
  } catch (error) {
    if (!isErrorCode(error, 'not-found')) throw error;
  }
}
