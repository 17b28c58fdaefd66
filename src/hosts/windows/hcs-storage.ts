/**
 * The document of a mount that the Host Compute Service takes for the storage of a container in it: hcsshim's
 * internal/layers (MountedWCOWLayers) and internal/hcsoci (Container.Storage).
 */

import { basename } from 'node:path';
import { volumePath } from '../../native/windows/guid.ts';
import type { VmCompute } from '../../native/windows/vmcompute.ts';
import type { HcsStorage } from '../host.ts';
import type { Layout } from '../layout.ts';
import type { HcsLayer } from './hcs-documents.ts';
import { shownAs, type ViewRecord } from './view-state.ts';
import type { AttachedRecord } from './vm-attachments.ts';
import { topmostFirst } from './wcifs-paths.ts';

interface Sources {
  layout: Layout;
  vmcompute: Pick<VmCompute, 'nameToGuid'>;
  /** The volume of a scratch in a folder, while it is active. */
  scratches: { volumeOf(folder: string): Promise<string | undefined> };
}

/** Of a mount that is there. Linux layers are combined by their guest, and not told of so. */
export async function hcsStorageOf(
  { layout, vmcompute, scratches }: Sources,
  record: AttachedRecord & ViewRecord,
): Promise<HcsStorage | undefined> {
  const { request, scratch } = record;
  if (request.format === 'LCOW' || request.chain.length === 0) return undefined;
  if (request.utilityVM !== undefined) return inGuest(record);
  const Layers = await hostLayers(layout, vmcompute, record);
  const volume = scratch === undefined ? undefined : await scratches.volumeOf(scratch);
  return { Layers, ...(volume === undefined ? {} : { Path: volume }) };
}

/** A CIM's layers are one volume; those of WCIFS are folders, topmost first. */
async function hostLayers(
  layout: Layout,
  vmcompute: Pick<VmCompute, 'nameToGuid'>,
  record: ViewRecord,
): Promise<HcsLayer[]> {
  const { format, chain } = record.request;
  const guid = shownAs(record);
  if (format !== 'WCIFS') return [{ Id: guid, Path: volumePath(guid) }];
  return Promise.all(
    topmostFirst(layout, chain).map(async (Path) => ({
      Id: await vmcompute.nameToGuid(basename(Path)),
      Path,
    })),
  );
}

/** As the guest was told. */
function inGuest({ request, attachment }: AttachedRecord): HcsStorage | undefined {
  const told = attachment?.changes.at(-1)?.add.GuestRequest?.Settings as { Layers?: HcsLayer[] } | undefined;
  return told?.Layers === undefined ? undefined : { Layers: told.Layers, Path: request.path };
}
