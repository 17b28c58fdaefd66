/** Views in utility VMs, as mounts: what showing and taking away a view is in views.ts. */

import { CimletError } from '../../errors.ts';
import type { VmCompute } from '../../native/windows/vmcompute.ts';
import type { MountedView, MountRequest } from '../host.ts';
import { readMountRecord, readMountRecords, recordedView, removeMountRecord } from '../mount-records.ts';
import { isSameView, viewOf } from '../mounted-view.ts';
import type { Store } from './store.ts';
import type { AttachedRecord, VmAttachments } from './vm-attachments.ts';
import { requireVmLayers } from './vm-layers.ts';
import type { VmView } from './vm-plan.ts';

/** What attaching views takes. */
export interface VmGallery extends Store {
  vms: VmAttachments;
  vmcompute: Pick<VmCompute, 'nameToGuid'>;
}

/** `scratch`: what takes the writes. The caller holds the volume GUID's lock and has checked capabilities. */
export async function attachView(
  gallery: VmGallery,
  request: MountRequest & { utilityVM: string },
  scratch: VmView['scratch'],
): Promise<MountedView> {
  const { layout, vms, vmcompute } = gallery;
  const { volumeGuid, path, utilityVM, expectedRootHash } = request;
  const operation = `mount ${path} in utility VM ${utilityVM}`;
  const own = await readMountRecord<AttachedRecord>(layout, volumeGuid);
  const isThere = own !== undefined && (await vms.state(own)).state === 'mounted';
  const isAsked =
    isSameView(own === undefined ? viewOf(request) : recordedView(own), viewOf(request)) &&
    (expectedRootHash === undefined || expectedRootHash === own?.rootHash);
  if (isThere && isAsked) return recordedView(own);
  if (isThere || (own !== undefined && own.request.utilityVM === undefined))
    throw new CimletError('failed-precondition', `${operation}: ${volumeGuid} already shows something else`, {
      hint: 'dismount it first',
    });
  const { layers, rootHash } = await requireVmLayers(gallery, vmcompute, request, operation);
  if (scratch === undefined && request.format !== 'LCOW')
    throw new CimletError(
      'invalid-manifest',
      `${operation}: a Windows guest shows layers under a scratch only`,
      { hint: 'use access: ReadWrite' },
    );
  await requireFreePlace(gallery, request, operation);
  const vm = await vms.require(utilityVM, request.format, operation);
  if (own !== undefined) await detachView(gallery, own);
  const record = {
    formatVersion: 1 as const,
    request: { ...request, chain: [...request.chain] },
    created: [],
    ...(rootHash === undefined ? {} : { rootHash }),
  };
  try {
    await vms.attach(record, vm, { volumeGuid, path, layers, scratch }, operation);
  } catch (error) {
    const left = await readMountRecord<AttachedRecord>(layout, volumeGuid);
    if ((left?.attachment?.changes.length ?? 0) === 0) await removeMountRecord(layout, volumeGuid);
    throw error;
  }
  return recordedView(record);
}

/** Takes a view away. What is gone already is fine; the scratch stays. */
export async function detachView({ layout, vms }: VmGallery, record: AttachedRecord): Promise<void> {
  await vms.detach(record);
  await removeMountRecord(layout, record.request.volumeGuid);
}

/** Of the guest's paths only those are known where another of our views is. */
async function requireFreePlace(
  { layout }: Store,
  { volumeGuid, path, utilityVM }: MountRequest,
  operation: string,
): Promise<void> {
  for (const { request: other } of await readMountRecords(layout))
    if (other.utilityVM === utilityVM && other.path === path && other.volumeGuid !== volumeGuid)
      throw new CimletError('already-exists', `${operation}: there is another view there already`, {
        hint: 'mount elsewhere',
      });
}
