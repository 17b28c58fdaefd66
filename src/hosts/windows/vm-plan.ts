/** What a view in a utility VM takes, step by step: pure. */

import { createHash } from 'node:crypto';
import { CimletError } from '../../errors.ts';
import type { CimImagePath } from '../../native/windows/cimfs.ts';
import { volumePath } from '../../native/windows/guid.ts';
import {
  blockCims,
  type Change,
  folderShare,
  LUNS_PER_CONTROLLER,
  linuxDiskMount,
  linuxLayers,
  linuxScsiDisk,
  pmemDisk,
  pmemPath,
  SCSI_CONTROLLERS,
  type ScsiSlot,
  scsiDisk,
  scsiPath,
  sharePath,
  windowsDiskMount,
  windowsLayers,
} from './hcs-documents.ts';

/** The layers, topmost first. */
export type VmLayers =
  /** Of block CIMs; a merged one comes before all others. */
  | { kind: 'cims'; cims: CimImagePath[] }
  /** Of WCIFS. */
  | { kind: 'folders'; folders: { id: string; path: string }[] }
  /** Of LCOW. */
  | { kind: 'disks'; files: string[] };

export interface VmView {
  volumeGuid: string;
  /** In the guest. */
  path: string;
  layers: VmLayers;
  /** The disk that takes the writes, and the part of it that does where others may have parts. */
  scratch: { disk: string; place: string } | undefined;
}

/** No device of a VM has more; most have fewer, and HCS says when there is none. */
const PMEM_DEVICES = 128;

/** Where disks of a VM may go, and which are there already. */
export class VmPlaces {
  readonly #held: ReadonlyMap<string, Change>;
  readonly #taken: Set<string>;
  readonly #withoutMemory: ReadonlySet<string>;

  /**
   * `held`: what the VM was given for other views. `refused`: resource paths that HCS said are taken. `withoutMemory`:
   * files that it didn't take as memory.
   */
  constructor(held: readonly Change[], refused: ReadonlySet<string>, withoutMemory: ReadonlySet<string>) {
    this.#held = new Map(held.map((change) => [change.key, change]));
    this.#taken = new Set([...refused, ...held.map(({ add }) => add.ResourcePath ?? '')]);
    this.#withoutMemory = withoutMemory;
  }

  windowsDisk(file: string, readOnly: boolean): Change {
    return this.#held.get(`disk ${file}`) ?? scsiDisk(this.#slot(1), file, readOnly);
  }

  linuxDisk(file: string, readOnly: boolean): Change {
    return (
      this.#held.get(`disk ${file}`) ?? linuxScsiDisk(this.#slot(SCSI_CONTROLLERS.length), file, readOnly)
    );
  }

  /** As memory, else on SCSI, as hcsshim does. */
  linuxLayer(file: string): Change {
    const held = this.#held.get(`disk ${file}`);
    if (held !== undefined) return held;
    for (let device = 0; device < PMEM_DEVICES && !this.#withoutMemory.has(file); device++) {
      const change = pmemDisk(device, file);
      if (this.#take(change.add.ResourcePath ?? '')) return change;
    }
    return this.linuxDisk(file, true);
  }

  /** From the end: whoever made the VM counts from the beginning. */
  #slot(controllers: number): ScsiSlot {
    for (let controller = 0; controller < controllers; controller++)
      for (let lun = LUNS_PER_CONTROLLER - 1; lun >= 0; lun--)
        if (this.#take(scsiPath({ controller, lun }))) return { controller, lun };
    throw new CimletError('failed-precondition', 'the utility VM has no place left for a disk', {
      hint: 'dismount what is attached to it',
    });
  }

  #take(resource: string): boolean {
    if (this.#taken.has(resource)) return false;
    this.#taken.add(resource);
    return true;
  }
}

/** In this order; taken back in reverse. */
export function planVmView(view: VmView, places: VmPlaces): Change[] {
  switch (view.layers.kind) {
    case 'cims':
      return planCims(view, view.layers.cims, places);
    case 'folders':
      return planFolders(view, view.layers.folders, places);
    case 'disks':
      return planDisks(view, view.layers.files, places);
  }
}

function planCims(view: VmView, cims: readonly CimImagePath[], places: VmPlaces): Change[] {
  const { volumeGuid } = view;
  const disks = cims.map(({ container }) => places.windowsDisk(container, true));
  const devices = cims.map(({ name }, index) => ({ name, lun: slotOf(disks[index]).lun }));
  const layers = [{ Id: volumeGuid, Path: `${volumePath(volumeGuid)}Files` }];
  return [
    ...disks,
    blockCims(volumeGuid, devices),
    ...windowsScratch(view, places),
    windowsLayers(view.path, layers, 'UnionFS'),
  ];
}

function planFolders(
  view: VmView,
  folders: readonly { id: string; path: string }[],
  places: VmPlaces,
): Change[] {
  const named = folders.map((folder) => ({ ...folder, name: shareName(folder.path) }));
  const layers = named.map(({ id, name }) => ({ Id: id, Path: sharePath(name) }));
  return [
    ...named.map(({ name, path }) => folderShare(name, path)),
    ...windowsScratch(view, places),
    windowsLayers(view.path, layers, 'WCIFS'),
  ];
}

function planDisks(
  { volumeGuid, path, scratch }: VmView,
  files: readonly string[],
  places: VmPlaces,
): Change[] {
  const changes: Change[] = [];
  const layers = files.map((file) => {
    const disk = places.linuxLayer(file);
    changes.push(disk);
    const at = disk.disk?.at;
    if (at !== undefined && 'pmem' in at) return pmemPath(at.pmem);
    const slot = slotOf(disk);
    changes.push(linuxDiskMount(slot, linuxMountPath(slot), true));
    return linuxMountPath(slot);
  });
  if (scratch === undefined) return [...changes, linuxLayers(volumeGuid, path, layers, undefined)];
  const disk = places.linuxDisk(scratch.disk, false);
  const slot = slotOf(disk);
  const upper = `${linuxMountPath(slot)}/scratch/${scratch.place}`;
  return [
    ...changes,
    disk,
    linuxDiskMount(slot, linuxMountPath(slot), false),
    linuxLayers(volumeGuid, path, layers, upper),
  ];
}

/** Mounted where the view is to be: the layers are shown under it. */
function windowsScratch({ path, scratch }: VmView, places: VmPlaces): Change[] {
  if (scratch === undefined) throw new Error(`attach ${path}: a Windows guest's view without a scratch`);
  const disk = places.windowsDisk(scratch.disk, false);
  return [disk, windowsDiskMount(slotOf(disk), path)];
}

function linuxMountPath({ controller, lun }: ScsiSlot): string {
  return `/run/mounts/cimlet/${controller}-${lun}`;
}

function slotOf(change: Change | undefined): ScsiSlot {
  const at = change?.disk?.at;
  if (at === undefined || 'pmem' in at) throw new Error(`${change?.key} is on no SCSI controller`);
  return at;
}

/** The same for the same folder, so that views share it. */
function shareName(folder: string): string {
  return `cimlet-${createHash('sha256').update(folder.toLowerCase()).digest('hex').slice(0, 16)}`;
}
