/** Views that are made and yet not seen, because something was put over a directory above them since. */

import { parse } from 'node:path';
import { CimletError } from '../../errors.ts';
import { foldName } from '../../layers/layer-tree.ts';
import type { BindFilter } from '../../native/windows/bindfltapi.ts';
import type { Kernel32 } from '../../native/windows/kernel32.ts';
import { foldPath } from './mount-paths.ts';

/**
 * Whether Windows keeps a view at `place`, be it seen there or not: `volume` in its mount manager or, without one, whatever
 * its bind filter shows there. False where Windows doesn't tell.
 */
export async function isMadeAt(
  { bindFilter, kernel32 }: { bindFilter: BindFilter; kernel32: Kernel32 },
  place: string,
  volume: string | undefined,
): Promise<boolean> {
  try {
    return volume === undefined
      ? await isBound(bindFilter, place)
      : await isMountPoint(kernel32, place, volume);
  } catch (error) {
    if (error instanceof CimletError) return false;
    throw error;
  }
}

async function isMountPoint(kernel32: Kernel32, place: string, volume: string): Promise<boolean> {
  return (await kernel32.mountPointsOf(volume)).some((point) => foldPath(point) === foldPath(place));
}

async function isBound(bindFilter: BindFilter, place: string): Promise<boolean> {
  const drive = parse(place).root;
  const wanted = foldName(place.slice(drive.length - 1));
  const mappings = await bindFilter.getMappings(drive);
  // `\Device\HarddiskVolume3\x` is `\x` of the volume that was asked for.
  return mappings.some(({ root }) => foldName(root.replace(/^\\Device\\[^\\]+/i, '')) === wanted);
}
