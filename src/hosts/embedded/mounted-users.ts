/** What is mounted of a chain whose layers or merged CIM are to change. */

import { describeError, isErrorCode } from '../../errors.ts';
import type { EffectContext, MountRequest } from '../host.ts';
import type { Layout } from '../layout.ts';
import { changeMountRecord, readMountRecord, readMountRecords } from '../mount-records.ts';
import { stampOf } from '../quick-look.ts';
import type { Effects } from './effects.ts';
import { readMountInfo } from './mount-info.ts';
import { mountStateOf, type ViewRecord } from './own-mounts.ts';

export interface MountedHost {
  layout: Layout;
  effects: Effects;
  /** Within the lock of its mount. */
  show(request: MountRequest, context: EffectContext): Promise<unknown>;
}

/** Says of a mount whether it shows what is to change. */
export type Uses = (request: MountRequest) => boolean;

/** Where a chain that `uses` says is mounted. */
export async function mountedBy(layout: Layout, uses: Uses): Promise<string | undefined> {
  const table = readMountInfo();
  for (const record of await readMountRecords<ViewRecord>(layout)) {
    if (!uses(record.request)) continue;
    if ((await mountStateOf(record, table)).state !== 'missing') return record.request.path;
  }
  return undefined;
}

/** What is to be replaced under mounts. */
export interface Replacement {
  users: Uses;
  operation: string;
  /** Path of the record that is replaced with it. */
  record: string;
}

/**
 * Replaces what mounted chains consist of. The kernel keeps reading the files it opened, so its views are mounted
 * again; until then they are marked. When it fails, and the record is still the one that it was, they show what they did.
 */
export async function replaceUnder<T>(
  host: MountedHost,
  { users, operation, record }: Replacement,
  replace: () => Promise<T>,
  context: EffectContext,
): Promise<T> {
  const { layout, effects } = host;
  const views = (await readMountRecords<ViewRecord>(layout)).filter(
    ({ request }) => request.view === 'Kernel' && users(request),
  );
  // Those that are marked already show what was replaced earlier, whatever becomes of this.
  const fresh = views.filter(({ stale }) => stale !== true);
  const mark = async (stale: boolean, effect: EffectContext) => {
    for (const { request } of fresh)
      await effects.onMount(request.volumeGuid, effect, operation, () =>
        changeMountRecord<ViewRecord>(layout, request.volumeGuid, (view) => ({ ...view, stale })),
      );
  };
  const before = stampOf(record);
  let result: T;
  try {
    await mark(true, context);
    result = await replace();
  } catch (error) {
    // Whoever cancelled it wants them unmarked, too.
    if (stampOf(record, before) === before)
      await mark(false, { ...context, signal: new AbortController().signal });
    throw error;
  }
  for (const { request } of views) await showAgain(host, request, context);
  return result;
}

/** A view that can't be shown again yet, because another of its layers is damaged too, stays marked. */
async function showAgain(
  { layout, effects, show }: MountedHost,
  request: MountRequest,
  context: EffectContext,
): Promise<void> {
  try {
    await effects.onMount(request.volumeGuid, context, `mount ${request.path}`, async () => {
      const record = await readMountRecord<ViewRecord>(layout, request.volumeGuid);
      const isThere =
        record !== undefined && (await mountStateOf(record, readMountInfo())).state !== 'missing';
      if (isThere) await show(record.request, context);
    });
  } catch (error) {
    if (!isErrorCode(error, 'failed-precondition')) context.warn?.(describeError(error));
  }
}
