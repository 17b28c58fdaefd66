/**
 * The disk that a utility VM boots an image's system with: `vm\sandbox.vhdx` in a scratch's folder, where hcsshim looks for it
 * (internal/layers, getVmbFSBootFiles) and containerd puts it (label io.microsoft.vm.storage.scratch).
 */

import { dirname, join } from 'node:path';
import { CimletError, describeError, isErrorCode } from '../../errors.ts';
import type { ComputeCore } from '../../native/windows/computecore.ts';
import type { VirtDisk } from '../../native/windows/virtdisk.ts';
import { ensureDirectory, exists } from '../directories.ts';
import type { EffectContext, LayerFormat } from '../host.ts';

/** In the folder of a scratch. */
export const VM_DISK = join('vm', 'sandbox.vhdx');

/** What ProcessUtilityImage leaves in a layer that has a utility VM: what differs from the other one, which is below it. */
const TEMPLATE = join('UtilityVM', 'SystemTemplate.vhdx');
const TEMPLATE_BASE = join('UtilityVM', 'SystemTemplateBase.vhdx');

interface VmScratchCalls {
  virtdisk: Pick<VirtDisk, 'createDifferencingVhdx'>;
  computecore: Pick<ComputeCore, 'grantVmGroupAccess'>;
}

/** Throws `unsupported-host` for layers that no VM boots from with such a disk. */
export function requireVmFormat(format: LayerFormat, operation: string): void {
  if (format === 'WCIFS') return;
  throw new CimletError(
    'unsupported-host',
    `${operation}: utility VMs boot WCIFS layers with a disk of their own, and ${format} layers not so`,
    {
      hint:
        format === 'BlockCIM'
          ? 'ask for an unformatted scratch: a VM boots block CIMs with that'
          : 'use format: WCIFS, or leave utilityVM out',
    },
  );
}

/**
 * Makes the disk of the uppermost layer that has a utility VM; `parents` are folders of WCIFS layers, topmost first. Throws
 * `failed-precondition` when none has.
 */
export async function makeVmScratch(
  calls: VmScratchCalls,
  folder: string,
  parents: readonly string[],
): Promise<void> {
  const layer = await vmLayer(parents, folder);
  const disk = join(folder, VM_DISK);
  await ensureDirectory(dirname(disk));
  for (const below of [TEMPLATE_BASE, TEMPLATE]) await letVmsRead(calls, join(layer, below));
  // Over the template, not a copy of it: it names its base by a path that its layer had before that was committed.
  await calls.virtdisk.createDifferencingVhdx(disk, join(layer, TEMPLATE));
}

async function vmLayer(parents: readonly string[], folder: string): Promise<string> {
  for (const parent of parents) if (await exists(join(parent, TEMPLATE))) return parent;
  throw new CimletError(
    'failed-precondition',
    `make ${join(folder, VM_DISK)}: no layer of the chain has a utility VM (${TEMPLATE})`,
    { hint: 'choose an image that has one, as nanoserver and servercore have, or leave utilityVM out' },
  );
}

/** Where there is no Host Compute Service, there are no VMs to read it. */
async function letVmsRead({ computecore }: Pick<VmScratchCalls, 'computecore'>, file: string): Promise<void> {
  try {
    await computecore.grantVmGroupAccess(file);
  } catch (error) {
    if (!isErrorCode(error, 'unsupported-host')) throw error;
  }
}

/** The same of what is needed without VMs, too: where it can't be granted, that is warned of. */
export async function offerToVms(
  calls: Pick<VmScratchCalls, 'computecore'>,
  file: string,
  context: EffectContext,
): Promise<void> {
  try {
    await letVmsRead(calls, file);
  } catch (error) {
    context.warn?.(`utility VMs may be unable to read ${file}: ${describeError(error)}`);
  }
}
