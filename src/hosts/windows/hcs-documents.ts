/**
 * What HCS is told to give a utility VM, and what is told to its guest, as documents; each change with what takes it back.
 * Source: hcsshim internal/uvm (scsi/backend.go, vpmem.go, vsmb.go, cimfs.go, combine_layers.go), internal/hcs/schema2,
 * internal/protocol/guestresource.
 */

import type { ModifySettingRequest } from '../../native/windows/computecore.ts';

/** What a utility VM is given. */
export interface Change {
  /** Names it within the VM: two views that need the same share one. */
  key: string;
  /** Of a disk: its file, and where the VM has it. */
  disk?: { file: string; at: ScsiSlot | { pmem: number } };
  add: ModifySettingRequest;
  /** In this order. */
  remove: ModifySettingRequest[];
}

/** Where a disk is attached. */
export interface ScsiSlot {
  controller: number;
  lun: number;
}

/** A layer as HCS is told of it; topmost first. */
export interface HcsLayer {
  Id: string;
  Path: string;
}

/** Every utility VM's have these, in this order. */
export const SCSI_CONTROLLERS = [
  'df6d0690-79e5-55b6-a5ec-c1e2f77f580a',
  '0110f83b-de10-5172-a266-78bca56bf50a',
  'b5d2d8d4-3a75-51bf-945b-3444dc6b8579',
  '305891a9-b251-5dfe-91a2-c25d9212275b',
];
export const LUNS_PER_CONTROLLER = 64;

/** Of CimMountImage in the guest: the image is a block device. */
const MOUNT_BLOCK_DEVICE = 0x10;
const VSMB_IN_GUEST = '\\\\?\\VMSMB\\VSMB-{dcc079ae-60ba-4d07-847c-3493609c0870}\\';

/** A disk attached, but not shown to the guest's programs. */
export function scsiDisk(slot: ScsiSlot, file: string, readOnly: boolean): Change {
  const ResourcePath = scsiPath(slot);
  const Settings = { Type: 'VirtualDisk', Path: file, ...(readOnly ? { ReadOnly: true } : {}) };
  return {
    key: `disk ${file}`,
    disk: { file, at: slot },
    add: { RequestType: 'Add', ResourcePath, Settings },
    remove: [{ RequestType: 'Remove', ResourcePath }],
  };
}

export function scsiPath({ controller, lun }: ScsiSlot): string {
  return `VirtualMachine/Devices/Scsi/${SCSI_CONTROLLERS[controller]}/Attachments/${lun}`;
}

/** As `scsiDisk`, taken out of the guest before it is taken away from it, as Linux guests need. */
export function linuxScsiDisk(slot: ScsiSlot, file: string, readOnly: boolean): Change {
  const disk = scsiDisk(slot, file, readOnly);
  const unplug = guest('Remove', 'SCSIDevice', { Controller: slot.controller, Lun: slot.lun });
  return { ...disk, remove: [unplug, ...disk.remove] };
}

/** An attached disk's file system, at a path in a Windows guest. Windows guests have controller 0 only. */
export function windowsDiskMount({ lun }: ScsiSlot, path: string): Change {
  return inGuest(`mount ${path}`, 'MappedVirtualDisk', { ContainerPath: path, Lun: lun });
}

/** The same of a Linux guest. One that is writable gets a file system where it has none. */
export function linuxDiskMount({ controller, lun }: ScsiSlot, path: string, readOnly: boolean): Change {
  const place = {
    MountPath: path,
    Lun: lun,
    Controller: controller,
    ...(readOnly ? { ReadOnly: true } : {}),
  };
  const how = readOnly ? { Options: ['ro'] } : { EnsureFilesystem: true, Filesystem: 'ext4' };
  return {
    key: `mount ${path}`,
    add: guest('Add', 'MappedVirtualDisk', { ...place, ...how }),
    remove: [guest('Remove', 'MappedVirtualDisk', place)],
  };
}

/** A layer's disk as memory, mounted in a Linux guest. */
export function pmemDisk(device: number, file: string): Change {
  const ResourcePath = `VirtualMachine/Devices/VirtualPMem/Devices/${device}`;
  const Settings = { DeviceNumber: device, MountPath: pmemPath(device) };
  const request = (type: 'Add' | 'Remove') => guest(type, 'VPMemDevice', Settings);
  return {
    key: `disk ${file}`,
    disk: { file, at: { pmem: device } },
    add: {
      RequestType: 'Add',
      ResourcePath,
      Settings: { HostPath: file, ReadOnly: true, ImageFormat: 'Vhd1' },
      ...request('Add'),
    },
    remove: [{ RequestType: 'Remove', ResourcePath, ...request('Remove') }],
  };
}

export function pmemPath(device: number): string {
  return `/run/layers/p${device}`;
}

/**
 * A folder shown to a Windows guest. Not mapped into its memory: such a share can't be taken away while the guest holds
 * a file of it, and hcsshim therefore never does.
 */
export function folderShare(name: string, folder: string): Change {
  const ResourcePath = 'VirtualMachine/Devices/VirtualSmb/Shares';
  const Options = {
    ReadOnly: true,
    ShareRead: true,
    CacheIo: true,
    PseudoOplocks: true,
    TakeBackupPrivilege: true,
    NoDirectmap: true,
  };
  return {
    key: `share ${name}`,
    add: { RequestType: 'Add', ResourcePath, Settings: { Name: name, Path: folder, Options } },
    remove: [{ RequestType: 'Remove', ResourcePath, Settings: { Name: name } }],
  };
}

export function sharePath(name: string): string {
  return VSMB_IN_GUEST + name;
}

/** CIMs of attached disks, mounted as one volume of a Windows guest: the merged one first, then topmost to base. */
export function blockCims(volumeGuid: string, cims: readonly { name: string; lun: number }[]): Change {
  const BlockCIMs = cims.map(({ name, lun }) => ({ CimName: name, Lun: lun }));
  const add = { BlockCIMs, VolumeGUID: volumeGuid, MountFlags: MOUNT_BLOCK_DEVICE };
  return {
    key: `volume ${volumeGuid}`,
    add: guest('Add', 'WCOWBlockCims', add),
    remove: [guest('Remove', 'WCOWBlockCims', { VolumeGUID: volumeGuid })],
  };
}

/** Layers under a scratch that is mounted at `root` in a Windows guest. */
export function windowsLayers(
  root: string,
  layers: readonly HcsLayer[],
  filter: 'WCIFS' | 'UnionFS',
): Change {
  // Guests of Windows Server 2022 know no FilterType and refuse it; WCIFS is what they take without.
  const FilterType = filter === 'WCIFS' ? {} : { FilterType: filter };
  return {
    key: `layers ${root}`,
    add: guest('Add', 'CombinedLayers', { ContainerRootPath: root, Layers: layers, ...FilterType }),
    remove: [guest('Remove', 'CombinedLayers', { ContainerRootPath: root })],
  };
}

/** Layers mounted in a Linux guest, topmost first, as one tree at `root`: read-only without a scratch. */
export function linuxLayers(
  id: string,
  root: string,
  layers: readonly string[],
  scratch: string | undefined,
): Change {
  const Layers = layers.map((Path) => ({ Path }));
  const ScratchPath = scratch === undefined ? {} : { ScratchPath: scratch };
  return {
    key: `layers ${root}`,
    add: guest('Add', 'CombinedLayers', { ContainerID: id, ContainerRootPath: root, Layers, ...ScratchPath }),
    remove: [guest('Remove', 'CombinedLayers', { ContainerRootPath: root })],
  };
}

function inGuest(key: string, resource: string, settings: object): Change {
  return { key, add: guest('Add', resource, settings), remove: [guest('Remove', resource, settings)] };
}

function guest(type: 'Add' | 'Remove', resource: string, settings: object): ModifySettingRequest {
  return { GuestRequest: { ResourceType: resource, RequestType: type, Settings: settings } };
}
