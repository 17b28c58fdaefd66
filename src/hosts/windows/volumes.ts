/** CIMs shown as volumes, each under a GUID that is derived from what it is for. */

import { stat } from 'node:fs/promises';
import { CimletError, classify, isErrorCode } from '../../errors.ts';
import { type CimFs, type CimImagePath, CimMountFlag } from '../../native/windows/cimfs.ts';
import { volumePath } from '../../native/windows/guid.ts';
import { isWin32Error } from '../../native/windows/native-error.ts';
import { Win32Error } from '../../native/windows/status.ts';
import { hexOf } from '../identity.ts';
import type { Limiter } from '../limiter.ts';
import type { Resource } from './acquire.ts';
import type { CimfsGuard } from './cimfs-guard.ts';

/** An image, alone or a merged one over its sources. */
export interface ShownImage {
  image: CimImagePath;
  /** What a merged image was merged from, topmost first, as it was merged. */
  sources: readonly CimImagePath[];
  kind: 'forked' | 'block';
  /** As `sha256:…`; Windows holds every read to it. */
  rootHash?: string | undefined;
}

export class Volumes {
  readonly #cimfs: CimFs;
  readonly #limiter: Limiter;
  readonly #guard: CimfsGuard;

  /** `limiter` lets few through at a time: CimFS has crashed hosts that mounted many at once. */
  constructor(cimfs: CimFs, limiter: Limiter, guard: CimfsGuard) {
    this.#cimfs = cimfs;
    this.#limiter = limiter;
    this.#guard = guard;
  }

  /** The volume as something to take and give back. */
  resource(shown: ShownImage, guid: string): Resource {
    return {
      acquire: () => this.mount(shown, guid),
      release: () => this.dismount(guid),
    };
  }

  async mount(shown: ShownImage, guid: string): Promise<void> {
    await this.#limiter.run(() => this.#guard.during(() => this.#mount(shown, guid)));
  }

  /** Not mounted is fine. `busy` when something on it is open. */
  async dismount(guid: string): Promise<void> {
    if (!(await isMounted(guid))) return;
    try {
      await this.#limiter.run(() => this.#guard.duringEnd(() => this.#cimfs.dismountImage(guid)));
    } catch (error) {
      if (isErrorCode(error, 'not-found')) return;
      if (isWin32Error(error, Win32Error.ACCESS_DENIED, Win32Error.SHARING_VIOLATION))
        throw new CimletError('busy', `dismount ${volumePath(guid)}: it is in use`, {
          hint: 'close what uses it',
          cause: error,
        });
      throw error;
    }
  }

  async #mount({ image, sources, kind, rootHash }: ShownImage, guid: string): Promise<void> {
    const flags = kind === 'block' ? CimMountFlag.singleFile : 0;
    const hash = rootHash === undefined ? undefined : Buffer.from(hexOf(rootHash), 'hex');
    if (sources.length > 0) {
      if (hash === undefined) await this.#cimfs.mergeMountImage(image, sources, flags, guid);
      else await this.#cimfs.mergeMountVerifiedImage(image, sources, flags, guid, hash);
    } else if (hash === undefined) await this.#cimfs.mountImage(image, flags, guid);
    else await this.#cimfs.mountVerifiedImage(image, flags, guid, hash);
  }
}

/** What of a mounted CIM the image's files are. */
export function filesOf(guid: string): string {
  return `${volumePath(guid)}Files`;
}

/** Whether a volume with this GUID is there. */
export async function isMounted(guid: string): Promise<boolean> {
  return (await identityOf(volumePath(guid))) !== undefined;
}

/** Which file or directory a path leads to: the same for two paths that lead to one. Undefined when there is nothing. */
export async function identityOf(path: string): Promise<string | undefined> {
  try {
    const { dev, ino } = await stat(path, { bigint: true });
    return `${dev}:${ino}`;
  } catch (error) {
    const classified = classify(error, `look at ${path}`);
    // Windows answers for volumes that are gone in many ways.
    if (isErrorCode(classified, 'not-found', 'failed-precondition', 'native')) return undefined;
    throw classified;
  }
}
