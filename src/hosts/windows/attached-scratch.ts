/**
 * Scratches whose disks are attached though no mount of ours shows them: by a runtime that was told where they are, or by a
 * run that died. They are detached when nothing can be using them.
 */

import { setTimeout as wait } from 'node:timers/promises';
import { CimletError, isErrorCode } from '../../errors.ts';
import type { ComputeCore } from '../../native/windows/computecore.ts';
import type { ComputeStorage } from '../../native/windows/computestorage.ts';
import type { Kernel32 } from '../../native/windows/kernel32.ts';
import type { VmCompute } from '../../native/windows/vmcompute.ts';
import { throwIfAborted } from '../abort.ts';
import type { EffectContext } from '../host.ts';
import { type ComputeSystemsSeen, possibleUse, seeComputeSystems } from './compute-systems.ts';
import { scratchVolume } from './scratches.ts';

export const STOP = 'stop what runs in it first';

/** How often, and after what pauses, a volume is asked whether something on it is open. */
const ATTEMPTS = 5;
const PAUSE_MS = 100;

/** What seeing their use takes. */
export interface ScratchSight {
  vmcompute: Pick<VmCompute, 'getLayerMountPath'>;
  kernel32: Kernel32;
  computecore: ComputeCore;
}

export interface DetachCalls extends ScratchSight {
  vmcompute: VmCompute;
  computestorage: ComputeStorage;
}

/**
 * Whether something on a volume is open, and stays so: what scans or indexes files opens what was just attached for a
 * moment.
 */
export async function staysOpen(
  kernel32: Pick<Kernel32, 'isVolumeInUse'>,
  volume: string,
  signal?: AbortSignal,
): Promise<boolean> {
  for (let attempt = 1; await kernel32.isVolumeInUse(volume); attempt++) {
    if (attempt === ATTEMPTS) return true;
    await wait(PAUSE_MS);
    if (signal !== undefined) throwIfAborted(signal, `wait for what is open on ${volume}`);
  }
  return false;
}

/** What may be using a scratch, as a sentence without a full stop; undefined when nothing can, or it isn't attached. */
export async function useOfScratch(
  sight: ScratchSight,
  folder: string,
  seen: ComputeSystemsSeen,
): Promise<string | undefined> {
  const volume = await scratchVolume(sight.vmcompute, folder);
  return volume === undefined ? undefined : useOfVolume(sight, volume, [folder], seen);
}

/** Job containers are no compute systems, so that the volume itself is asked as well. */
async function useOfVolume(
  { kernel32 }: Pick<ScratchSight, 'kernel32'>,
  volume: string,
  places: readonly string[],
  seen: ComputeSystemsSeen,
  signal?: AbortSignal,
): Promise<string | undefined> {
  const use = possibleUse(seen, [...places, volume]);
  if (use !== undefined) return `its disk is attached, and ${use}`;
  const isOpen = await staysOpen(kernel32, volume, signal);
  return isOpen ? 'its disk is attached, and something on it is open' : undefined;
}

/** Detaches a scratch whose disk is attached. Throws `busy` while something may be using it. */
export async function freeScratch(
  calls: DetachCalls,
  folder: string,
  operation: string,
  { signal }: EffectContext,
): Promise<void> {
  if ((await scratchVolume(calls.vmcompute, folder)) === undefined) return;
  const seen = await seeComputeSystems(calls.computecore, signal);
  const use = await releaseScratch(calls, folder, seen, signal);
  if (use === undefined) return;
  throw new CimletError('busy', `${operation}: scratch ${folder} is in use: ${use}`, { hint: STOP });
}

/**
 * Throws `busy` while something on a scratch's volume is open. For what we attached ourselves: a runtime may have got hold of
 * it since the run that did so died.
 */
export async function refuseOpen(
  { vmcompute, kernel32 }: ScratchSight,
  folder: string,
  operation: string,
  signal?: AbortSignal,
): Promise<void> {
  const volume = await scratchVolume(vmcompute, folder);
  if (volume === undefined || !(await staysOpen(kernel32, volume, signal))) return;
  throw new CimletError('busy', `${operation}: something on the volume of scratch ${folder} is open`, {
    hint: STOP,
  });
}

/** Detaches a scratch, if its disk is attached. Gives what may be using it, which it is then left to. */
export async function releaseScratch(
  calls: DetachCalls,
  folder: string,
  seen: ComputeSystemsSeen,
  signal?: AbortSignal,
): Promise<string | undefined> {
  const { vmcompute, computestorage, kernel32 } = calls;
  const volume = await scratchVolume(vmcompute, folder);
  if (volume === undefined) return undefined;
  const use = await useOfVolume(calls, volume, [folder], seen, signal);
  if (use !== undefined) return use;
  for (const place of await mountPoints(kernel32, volume)) await kernel32.deleteVolumeMountPoint(place);
  const filter = { SchemaVersion: { Major: 2, Minor: 1 }, FilterType: 'UnionFS' as const };
  await ifAny(() => computestorage.detachOverlayFilter(volume, filter));
  await ifAny(() => vmcompute.unprepareLayer(folder));
  await vmcompute.deactivateLayer(folder);
  return undefined;
}

async function mountPoints(kernel32: Kernel32, volume: string): Promise<string[]> {
  try {
    return await kernel32.mountPointsOf(volume);
  } catch (error) {
    if (isErrorCode(error, 'not-found')) return [];
    throw error;
  }
}

/** For what may not be attached at all, which Windows says in many ways. */
export async function ifAny(detach: () => Promise<void>): Promise<void> {
  try {
    await detach();
  } catch (error) {
    if (!(error instanceof CimletError)) throw error;
  }
}
