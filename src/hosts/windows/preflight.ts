/** Whether Windows can keep layers where the root is. */

import { lstat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { CimletError, classify, isErrorCode } from '../../errors.ts';
import type { Kernel32 } from '../../native/windows/kernel32.ts';
import type { CapabilityState } from '../host.ts';

const ELSEWHERE = 'choose another --root';

/** Why not; undefined when it can. Looks at what exists of the path. */
export async function examineStore(kernel32: Kernel32, root: string): Promise<CapabilityState | undefined> {
  for (let path = root; ; path = dirname(path)) {
    if (await isLink(path))
      return {
        available: false,
        reason: `${path} is a link or mount point: Windows opens no layers behind one`,
        hint: ELSEWHERE,
      };
    if (path === dirname(path)) return examineVolume(kernel32, path);
  }
}

async function examineVolume(kernel32: Kernel32, volume: string): Promise<CapabilityState | undefined> {
  try {
    const { fileSystem } = await kernel32.volumeInformation(volume);
    if (fileSystem === 'NTFS') return undefined;
    return {
      available: false,
      reason: `${volume} is ${fileSystem}; layers are kept on NTFS`,
      hint: ELSEWHERE,
    };
  } catch (error) {
    if (!(error instanceof CimletError)) throw error;
    return { available: false, reason: error.message, hint: ELSEWHERE };
  }
}

/** False for what isn't there. */
async function isLink(path: string): Promise<boolean> {
  try {
    return (await lstat(path)).isSymbolicLink();
  } catch (error) {
    const classified = classify(error, `look at ${path}`);
    if (isErrorCode(classified, 'not-found', 'failed-precondition', 'access-denied')) return false;
    throw classified;
  }
}
