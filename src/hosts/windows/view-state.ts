/** Where views stand, without touching any. */

import { join, resolve } from 'node:path';
import { CimletError } from '../../errors.ts';
import type { BindFilter } from '../../native/windows/bindfltapi.ts';
import type { Kernel32 } from '../../native/windows/kernel32.ts';
import { foreignStateOf } from '../foreign-path.ts';
import type { MountRequest, ObservedMount, PathState, VolumeGuid } from '../host.ts';
import type { MountRecord } from '../mount-records.ts';
import { isMadeAt } from './covered.ts';
import { foldPath } from './mount-paths.ts';
import type { Scratches } from './scratches.ts';
import type { VmAttachments } from './vm-attachments.ts';
import { filesOf, identityOf, isMounted } from './volumes.ts';

/** What seeing views takes. */
export interface Sight {
  bindFilter: BindFilter;
  kernel32: Kernel32;
  scratches: Scratches;
  vms: VmAttachments;
}

/** What a mount of Windows' is recorded with besides. */
export interface ViewRecord extends MountRecord {
  /** The folder of the scratch it is shown through: the snapshot's, or its own. Of one without parents, where its `Files` is. */
  scratch?: string | undefined;
  /** The GUID of the volume it is shown as. Earlier versions mounted it under the mount's own. */
  volume?: VolumeGuid | undefined;
}

/** What helps with a covered view. */
export const UNCOVER = 'take that away first';

type MountState = Pick<ObservedMount, 'state' | 'message'>;

/** The GUID of the volume that a view is shown as. */
export function shownAs({ volume, request }: ViewRecord): VolumeGuid {
  return volume ?? request.volumeGuid;
}

/** Whether a mounted CIM is what it shows. */
export function showsImage({ chain, format }: MountRequest): boolean {
  return chain.length > 0 && format !== 'WCIFS';
}

/** What is shown at the path; undefined while it isn't there. */
export async function sourceOf(
  { scratches }: Pick<Sight, 'scratches'>,
  record: ViewRecord,
): Promise<string | undefined> {
  const { scratch, request } = record;
  if (scratch === undefined) return filesOf(shownAs(record));
  return request.chain.length === 0 ? join(scratch, 'Files') : scratches.volumeOf(scratch);
}

/** Whether the volume that goes last is there. */
export async function isThereAnything(
  gallery: Pick<Sight, 'scratches'>,
  record: ViewRecord,
): Promise<boolean> {
  const { chain } = record.request;
  if (showsImage(record.request)) return isMounted(shownAs(record));
  return chain.length > 0 && (await sourceOf(gallery, record)) !== undefined;
}

/** Throws where Windows doesn't say. */
export async function viewState(gallery: Sight, record: ViewRecord): Promise<MountState> {
  if (record.request.utilityVM !== undefined) return gallery.vms.state(record);
  const { path } = record.request;
  if (showsImage(record.request) && !(await isMounted(shownAs(record))))
    return { state: 'missing', message: 'its volume is not mounted' };
  const source = await sourceOf(gallery, record);
  if (source === undefined) return { state: 'missing', message: 'its scratch is not active' };
  const there = await identityOf(resolve(path));
  if (there !== undefined && there === (await identityOf(source))) return { state: 'mounted' };
  const { chain, access } = record.request;
  const mounted = access === 'ReadWrite' && chain.length > 0 ? source : undefined;
  if (await isMadeAt(gallery, resolve(path), mounted))
    return { state: 'covered', message: `something that was put over a directory above ${path} hides it` };
  const seen = there === undefined ? `there is nothing at ${path}` : `${path} does not show its volume`;
  return { state: 'missing', message: seen };
}

/** For who only looks: a view of which Windows doesn't say how it stands is told of with what Windows says. */
export async function lookAtView(gallery: Sight, record: ViewRecord): Promise<MountState> {
  try {
    return await viewState(gallery, record);
  } catch (error) {
    if (!(error instanceof CimletError)) throw error;
    return { state: 'missing', message: error.message };
  }
}

export async function pathStateOf(
  gallery: Sight,
  path: string,
  records: readonly MountRecord[],
): Promise<PathState> {
  const folded = foldPath(path);
  for (const record of records) {
    if (record.request.utilityVM !== undefined || foldPath(record.request.path) !== folded) continue;
    const { state, message } = await lookAtView(gallery, record);
    if (state === 'mounted')
      return { kind: 'own-mount', detail: `our view of ${record.request.chain.at(-1)}` };
    if (state === 'covered') return { kind: 'foreign-mount', detail: message };
  }
  return foreignStateOf(path, 'a symbolic link or mount point');
}
