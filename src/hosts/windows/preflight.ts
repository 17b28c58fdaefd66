/** Whether Windows can keep layers where the root is. */

import { dirname } from 'node:path';
import { CimletError, isErrorCode } from '../../errors.ts';
import type { FileFacts, WindowsFileInfo } from '../../native/windows/file-info.ts';
import type { Kernel32 } from '../../native/windows/kernel32.ts';
import type { CapabilityState } from '../host.ts';

const ELSEWHERE = 'choose another --root';

/** What looking at a store takes. */
export interface StoreSight {
  kernel32: Pick<Kernel32, 'volumeRoot' | 'volumeInformation'>;
  facts: Pick<FileFacts, 'info'>;
}

/** Why not; undefined when it can. Looks at what exists of the path. */
export async function examineStore(sight: StoreSight, root: string): Promise<CapabilityState | undefined> {
  try {
    let nearest: string | undefined;
    for (let path = root; ; path = dirname(path)) {
      const info = look(sight, path);
      if (info !== undefined) nearest ??= path;
      if (info !== undefined && info.reparseTag !== 0) return behindLink(path, info.reparseTag);
      if (path === dirname(path)) return await examineVolume(sight.kernel32, nearest ?? path);
    }
  } catch (error) {
    if (!(error instanceof CimletError)) throw error;
    return { available: false, reason: error.message, hint: ELSEWHERE };
  }
}

/** Undefined also for what may not be looked at: who may not see it is told so when it is used. */
function look({ facts }: StoreSight, path: string): WindowsFileInfo | undefined {
  try {
    return facts.info(path);
  } catch (error) {
    if (isErrorCode(error, 'access-denied', 'failed-precondition')) return undefined;
    throw error;
  }
}

/** Junctions and mount points, and what filters have put there: clouds, deduplication, other layers. */
function behindLink(path: string, tag: number): CapabilityState {
  const kind = `reparse tag 0x${tag.toString(16).padStart(8, '0')}`;
  return {
    available: false,
    reason: `${path} is a link or mount point (${kind}): Windows opens no layers behind one`,
    hint: ELSEWHERE,
  };
}

async function examineVolume(
  kernel32: StoreSight['kernel32'],
  path: string,
): Promise<CapabilityState | undefined> {
  const volume = await kernel32.volumeRoot(path);
  const { fileSystem } = await kernel32.volumeInformation(volume);
  if (fileSystem === 'NTFS') return undefined;
  return {
    available: false,
    reason: `${volume} is ${fileSystem}; layers are kept on NTFS`,
    hint: ELSEWHERE,
  };
}
