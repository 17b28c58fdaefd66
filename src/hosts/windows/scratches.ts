/**
 * Scratches of writable mounts: a disk each, `scratches/<volume guid>/sandbox.vhdx`, that holds what differs from the
 * empty, formatted one in `scratches/template`. A scratch keeps what was written until its mount is taken away for good.
 */

import { rename } from 'node:fs/promises';
import { join } from 'node:path';
import { classify, isErrorCode } from '../../errors.ts';
import type { ComputeStorage } from '../../native/windows/computestorage.ts';
import type { VirtDisk } from '../../native/windows/virtdisk.ts';
import type { VmCompute } from '../../native/windows/vmcompute.ts';
import { ensureDirectory, exists, listDirectory, removeTree } from '../directories.ts';
import type { VolumeGuid } from '../host.ts';
import type { KeyedLock } from '../keyed-lock.ts';
import type { Resource } from './acquire.ts';
import { filesOf } from './volumes.ts';

/** What containerd gives CIM scratches. The file grows as it is written to. */
const SCRATCH_BYTES = 10n << 30n;
const DISK = 'sandbox.vhdx';

export interface ScratchCalls {
  virtdisk: VirtDisk;
  vmcompute: VmCompute;
  computestorage: ComputeStorage;
}

export class Scratches {
  readonly #folder: string;
  readonly #calls: ScratchCalls;
  readonly #locks: KeyedLock;

  constructor(root: string, calls: ScratchCalls, locks: KeyedLock) {
    this.#folder = join(root, 'scratches');
    this.#calls = calls;
    this.#locks = locks;
  }

  /** The disk attached, and the layers of a volume shown under it: together a writable volume. */
  resources(volumeGuid: VolumeGuid): Resource[] {
    const { vmcompute, computestorage } = this.#calls;
    const path = this.#path(volumeGuid);
    const layers = {
      SchemaVersion: { Major: 2, Minor: 1 },
      FilterType: 'UnionFS' as const,
      Layers: [{ Id: volumeGuid, Path: filesOf(volumeGuid) }],
    };
    return [
      {
        acquire: async () => {
          await this.#ensureDisk(volumeGuid);
          await vmcompute.activateLayer(path);
        },
        release: async () => {
          if ((await this.volumeOf(volumeGuid)) !== undefined) await vmcompute.deactivateLayer(path);
        },
      },
      {
        acquire: async () => {
          const volume = await this.volumeOf(volumeGuid);
          if (volume === undefined) throw new Error(`scratch ${path} is active and has no volume`);
          await computestorage.attachOverlayFilter(volume, layers);
        },
        release: async () => {
          const volume = await this.volumeOf(volumeGuid);
          if (volume !== undefined) await detach(() => computestorage.detachOverlayFilter(volume, layers));
        },
      },
    ];
  }

  /** The volume of a scratch, `\\?\Volume{guid}\`, while its disk is attached. */
  async volumeOf(volumeGuid: VolumeGuid): Promise<string | undefined> {
    const path = this.#path(volumeGuid);
    if (!(await exists(join(path, DISK)))) return undefined;
    const volume = await this.#calls.vmcompute.getLayerMountPath(path);
    if (!volume.startsWith('\\\\?\\Volume{')) return undefined;
    return volume.endsWith('\\') ? volume : `${volume}\\`;
  }

  async remove(volumeGuid: VolumeGuid): Promise<void> {
    await removeTree(this.#path(volumeGuid));
  }

  /** Of mounts that nobody knows any more, and of what was never finished. */
  async leftovers(known: ReadonlySet<string>): Promise<{ path: string; reason: string }[]> {
    const found: { path: string; reason: string }[] = [];
    for (const name of await listDirectory(this.#folder))
      if (/^[0-9a-f-]{36}$/.test(name) && !known.has(name))
        found.push({ path: join(this.#folder, name), reason: 'a scratch of no recorded mount' });
    for (const name of await listDirectory(join(this.#folder, 'template')))
      if (name.startsWith('tmp-'))
        found.push({
          path: join(this.#folder, 'template', name),
          reason: 'a scratch template that was never finished',
        });
    return found;
  }

  async #ensureDisk(volumeGuid: VolumeGuid): Promise<void> {
    const folder = this.#path(volumeGuid);
    const disk = join(folder, DISK);
    if (await exists(disk)) return;
    const template = await this.#locks.run('scratch template', () => this.#ensureTemplate());
    await ensureDirectory(folder);
    const temporary = join(folder, `tmp-${DISK}`);
    await removeTree(temporary);
    await this.#calls.virtdisk.createDifferencingVhdx(temporary, template);
    await move(temporary, disk);
  }

  async #ensureTemplate(): Promise<string> {
    const { virtdisk, computestorage } = this.#calls;
    const folder = join(this.#folder, 'template');
    const template = join(folder, 'blank.vhdx');
    if (await exists(template)) return template;
    await ensureDirectory(folder);
    const temporary = join(folder, 'tmp-blank.vhdx');
    await removeTree(temporary);
    const disk = await virtdisk.createVhdx(temporary, SCRATCH_BYTES);
    try {
      await computestorage.formatWritableLayerVhd(disk);
    } finally {
      virtdisk.close(disk);
    }
    await move(temporary, template);
    return template;
  }

  #path(volumeGuid: VolumeGuid): string {
    return join(this.#folder, volumeGuid);
  }
}

/** A run that died between activating and attaching left nothing to detach. */
async function detach(call: () => Promise<void>): Promise<void> {
  try {
    await call();
  } catch (error) {
    if (!isErrorCode(error, 'not-found')) throw error;
  }
}

async function move(from: string, to: string): Promise<void> {
  try {
    await rename(from, to);
  } catch (error) {
    throw classify(error, `rename ${from}`);
  }
}
