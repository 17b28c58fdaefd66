/** What is mounted of a chain whose layers or merged CIM are to change. */

import { CimletError, describeError, isErrorCode } from '../../errors.ts';
import type { EffectContext, MountRequest } from '../host.ts';
import { type MountRecord, readMountRecord, readMountRecords } from '../mount-records.ts';
import { type Places, refuseInUse } from './compute-systems.ts';
import type { Effects } from './effects.ts';
import { placesOfMount } from './in-use.ts';
import { viewState } from './view-state.ts';
import { type Gallery, hideView, showView } from './views.ts';

/** Says of a mount whether it shows what is to change. */
export type Uses = (request: MountRequest) => boolean;

/** Where a chain that `uses` says is mounted. */
export async function mountedBy(gallery: Gallery, uses: Uses): Promise<string | undefined> {
  for (const record of await readMountRecords(gallery.layout))
    if (uses(record.request) && (await viewState(gallery, record)).state !== 'missing')
      return record.request.path;
  return undefined;
}

/**
 * Replaces what mounted chains consist of. Windows renames nothing that is open, so their views go first, and come back as
 * far as what they show is sound; a view that a crash keeps away is observed as missing. Throws `busy`, with nothing hidden,
 * when a running compute system uses one of them, or of the places that change.
 */
export async function replaceUnder<T>(
  gallery: Gallery,
  effects: Effects,
  { users, places, operation }: { users: Uses; places: Places; operation: string },
  replace: () => Promise<T>,
  context: EffectContext,
): Promise<T> {
  const shown: MountRecord[] = [];
  for (const record of await readMountRecords(gallery.layout))
    if (users(record.request) && (await viewState(gallery, record)).state !== 'missing') shown.push(record);
  // Its guest has it open, and what runs in there would lose it.
  const { utilityVM } = shown.find(({ request }) => request.utilityVM !== undefined)?.request ?? {};
  if (utilityVM !== undefined)
    throw new CimletError('busy', `${operation}: utility VM ${utilityVM} has it attached`, {
      hint: 'delete that Mount first, or stop the VM',
    });
  const used = [...places, ...shown.flatMap((record) => placesOfMount(record))];
  await refuseInUse(gallery.computecore, used, operation, context);
  const hidden: MountRecord[] = [];
  try {
    for (const record of shown) {
      hidden.push(record);
      await effects.onMount(record.request, context, operation, () => hideView(gallery, record));
    }
    return await replace();
  } finally {
    for (const { request } of hidden) await showAgain(gallery, effects, request, context);
  }
}

/** A view that can't be shown again yet, because another of its layers is damaged too, stays recorded. */
async function showAgain(
  gallery: Gallery,
  effects: Effects,
  request: MountRequest,
  context: EffectContext,
): Promise<void> {
  try {
    await effects.onMount(request, context, `mount ${request.path}`, async () => {
      const record = await readMountRecord(gallery.layout, request.volumeGuid);
      if (record !== undefined) await showView(gallery, record.request, context);
    });
  } catch (error) {
    if (!isErrorCode(error, 'failed-precondition')) context.warn?.(describeError(error));
  }
}
