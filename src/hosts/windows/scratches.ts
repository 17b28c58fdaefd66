/**
 * Scratches: disks that take what is written over layers. Each is `sandbox.vhdx` in a folder, by which the layer calls name
 * it. Over CIMs it holds what differs from an empty, formatted disk in `scratches/`, of which there is one for each size; over WCIFS
 * layers, from the one that Windows made in the base layer.
 */

import { rename } from 'node:fs/promises';
import { join } from 'node:path';
import { CimletError, classify, isErrorCode } from '../../errors.ts';
import type { ComputeCore } from '../../native/windows/computecore.ts';
import type { ComputeStorage } from '../../native/windows/computestorage.ts';
import { FileAccess, type Kernel32 } from '../../native/windows/kernel32.ts';
import { AttachFlag, type VirtDisk } from '../../native/windows/virtdisk.ts';
import type { VmCompute } from '../../native/windows/vmcompute.ts';
import { ensureDirectory, exists, listDirectory, removeTree } from '../directories.ts';
import type { EffectContext, LayerFormat, VolumeGuid } from '../host.ts';
import type { KeyedLock } from '../keyed-lock.ts';
import { afterFailure, holding, type Resource } from './acquire.ts';
import { makeVmScratch, offerToVms } from './vm-scratch.ts';
import { filesOf } from './volumes.ts';

export const DISK = 'sandbox.vhdx';

const GIB = 1n << 30n;
const MIB = 1n << 20n;
/** What containerd gives scratches over CIMs, and Windows those over WCIFS layers. Files of disks grow as they are written to. */
const CIM_BYTES = 10n * GIB;
const WCIFS_BYTES = 20n * GIB;
/** Windows can't make a mount read-only, so a view has a scratch too, which is thrown away. */
const VIEW_BYTES = GIB;
/** ReFS, for which disks are left unformatted, takes no smaller ones. */
const UNFORMATTED_BYTES = 40n * GIB;

/** NTFS' own: a volume is grown to whole clusters, and one of them is NTFS'. */
const CLUSTER = 4096n;
const SECTOR = 512n;

export interface ScratchCalls {
  virtdisk: VirtDisk;
  vmcompute: VmCompute;
  computestorage: ComputeStorage;
  computecore: Pick<ComputeCore, 'grantVmGroupAccess'>;
  kernel32: Kernel32;
}

export interface NewScratch {
  format: Exclude<LayerFormat, 'LCOW'>;
  /** Folders of the WCIFS layers below, topmost first. */
  parents: readonly string[];
  isView: boolean;
  /** Default: what is usual for the format. */
  bytes?: number | undefined;
  unformatted?: boolean | undefined;
  /** With a disk for a utility VM beside it. */
  utilityVM?: boolean | undefined;
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

  /**
   * Makes a scratch in a folder that has none. Throws `invalid-manifest` for a size that can't be made. What is there of it
   * when that fails is the caller's to remove.
   */
  async make(folder: string, scratch: NewScratch, context: EffectContext): Promise<void> {
    await this.#makeDisk(folder, scratch, context);
    if (scratch.utilityVM === true) await makeVmScratch(this.#calls, folder, scratch.parents);
  }

  async #makeDisk(folder: string, scratch: NewScratch, context: EffectContext): Promise<void> {
    const { format, bytes, unformatted, isView, parents } = scratch;
    const wanted = bytes === undefined ? undefined : wholeMebibytes(BigInt(bytes));
    if (unformatted === true) return this.#makeUnformatted(folder, wanted ?? UNFORMATTED_BYTES);
    if (format === 'WCIFS') return this.#makeOverBase(folder, parents, wanted);
    const usual = isView ? VIEW_BYTES : CIM_BYTES;
    const size = wanted ?? usual;
    const template = await this.#template(size < usual ? size : usual);
    // VMs are granted the disks over it one by one, and this with none of them: also one that an earlier cimlet made.
    await offerToVms(this.#calls, template, context);
    await this.#calls.virtdisk.createDifferencingVhdx(join(folder, DISK), template);
    if (size <= usual) return;
    await this.#calls.vmcompute.expandSandboxSize(folder, size);
    await this.#extendVolume(folder);
  }

  /** A scratch's disk attached, and the layers of a mounted CIM shown under it: together a writable volume. */
  resources(folder: string, volumeGuid: VolumeGuid): Resource[] {
    const { vmcompute, computestorage } = this.#calls;
    const layers = {
      SchemaVersion: { Major: 2, Minor: 1 },
      FilterType: 'UnionFS' as const,
      Layers: [{ Id: volumeGuid, Path: filesOf(volumeGuid) }],
    };
    return [
      {
        acquire: () => vmcompute.activateLayer(folder),
        release: async () => {
          if ((await this.volumeOf(folder)) !== undefined) await vmcompute.deactivateLayer(folder);
        },
      },
      {
        acquire: async () => {
          const volume = await this.volumeOf(folder);
          if (volume === undefined) throw new Error(`scratch ${folder} is active and has no volume`);
          await computestorage.attachOverlayFilter(volume, layers);
        },
        release: async () => {
          const volume = await this.volumeOf(folder);
          if (volume !== undefined) await detach(() => computestorage.detachOverlayFilter(volume, layers));
        },
      },
    ];
  }

  async volumeOf(folder: string): Promise<string | undefined> {
    return scratchVolume(this.#calls.vmcompute, folder);
  }

  /** Of disks in `scratches/` that were never finished. */
  async leftovers(): Promise<{ path: string; reason: string }[]> {
    return (await listDirectory(this.#folder))
      .filter((name) => name.startsWith('tmp-'))
      .map((name) => ({
        path: join(this.#folder, name),
        reason: 'an empty scratch disk that was never finished',
      }));
  }

  /** Nothing can grow it later: what grows disks looks for a file system. */
  async #makeUnformatted(folder: string, size: bigint): Promise<void> {
    if (size < UNFORMATTED_BYTES)
      throw new CimletError(
        'invalid-manifest',
        `make scratch ${folder}: ${size} bytes are too few for an unformatted one`,
        { hint: 'ask for 40 GiB or more: what such disks are formatted with, ReFS, takes no smaller ones' },
      );
    const { virtdisk } = this.#calls;
    virtdisk.close(await virtdisk.createVhdx(join(folder, DISK), size));
  }

  /** Mounting it extends its volume: PrepareLayer does, which no CIM's scratch goes through. */
  async #makeOverBase(folder: string, parents: readonly string[], size: bigint | undefined): Promise<void> {
    if (size !== undefined && size < WCIFS_BYTES)
      throw new CimletError(
        'invalid-manifest',
        `make scratch ${folder}: ${size} bytes are less than the 20 GiB that Windows gives one over WCIFS layers`,
        { hint: 'ask for more, or leave the size out: the file takes what is written only' },
      );
    const { vmcompute } = this.#calls;
    await vmcompute.createSandboxLayer(folder, parents);
    if (size !== undefined && size > WCIFS_BYTES) await vmcompute.expandSandboxSize(folder, size);
  }

  /** Grows the file system over what its disk has grown to. */
  async #extendVolume(folder: string): Promise<void> {
    const { virtdisk, vmcompute, kernel32 } = this.#calls;
    const path = join(folder, DISK);
    const disk = await virtdisk.open(path);
    const attached: Resource = {
      acquire: () => virtdisk.attach(disk, path, AttachFlag.bypassDefaultEncryptionPolicy),
      release: () => virtdisk.detach(disk, path),
    };
    try {
      await holding(attached, async () => {
        const volume = (await vmcompute.getLayerMountPath(folder)).replace(/\\$/, '');
        await this.#extendTo(kernel32, volume);
      });
    } finally {
      virtdisk.close(disk);
    }
  }

  async #extendTo(kernel32: Kernel32, volume: string): Promise<void> {
    const handle = await kernel32.createFile(volume, { access: FileAccess.read + FileAccess.write });
    try {
      const clusters = (await kernel32.diskLength(handle, volume)) / CLUSTER;
      const { total } = await kernel32.diskSpace(volume);
      // Windows refuses to extend a volume by nothing.
      if (total / CLUSTER + 1n < clusters)
        await kernel32.extendVolume(handle, volume, clusters * (CLUSTER / SECTOR));
    } finally {
      kernel32.closeHandle(handle);
    }
  }

  /** The empty disk of a size, made when it is first needed. */
  async #template(size: bigint): Promise<string> {
    const name = `blank-${size / MIB}m.vhdx`;
    return this.#locks.run(`scratch template ${name}`, async () => {
      const template = join(this.#folder, name);
      if (await exists(template)) return template;
      await ensureDirectory(this.#folder);
      const temporary = join(this.#folder, `tmp-${name}`);
      await removeTree(temporary);
      try {
        await this.#makeFormatted(temporary, size);
        await move(temporary, template);
      } catch (error) {
        throw await afterFailure(error, () => removeTree(temporary));
      }
      return template;
    });
  }

  async #makeFormatted(path: string, size: bigint): Promise<void> {
    const { virtdisk, computestorage } = this.#calls;
    const disk = await virtdisk.createVhdx(path, size);
    try {
      await computestorage.formatWritableLayerVhd(disk);
    } finally {
      virtdisk.close(disk);
    }
  }
}

/** The volume of a scratch, `\\?\Volume{guid}\`, while its disk is attached. */
export async function scratchVolume(
  vmcompute: Pick<VmCompute, 'getLayerMountPath'>,
  folder: string,
): Promise<string | undefined> {
  if (!(await exists(join(folder, DISK)))) return undefined;
  const volume = await vmcompute.getLayerMountPath(folder);
  if (!volume.startsWith('\\\\?\\Volume{')) return undefined;
  return volume.endsWith('\\') ? volume : `${volume}\\`;
}

function wholeMebibytes(bytes: bigint): bigint {
  return ((bytes + MIB - 1n) / MIB) * MIB;
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
