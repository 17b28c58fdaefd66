/** The step that makes a written merged CIM the one of its chain. */

import { removeTree } from './directories.ts';
import type { ChainId, EffectContext, MergedChain } from './host.ts';
import { type Layout, mergeFolder } from './layout.ts';
import { readMergeRecord } from './records.ts';
import { putInPlace, removeAside, setAside } from './snapshot-folders.ts';

/** The folder's rename commits what its record completed; `remove` deletes the one that it replaces. */
export async function commitMerge(
  layout: Layout,
  top: ChainId,
  context: EffectContext,
  remove = removeTree,
): Promise<MergedChain> {
  const written = await readMergeRecord(layout, top, 'tmp-');
  if (written === undefined) throw new Error(`the merged CIM on ${top} was not written`);
  const folder = mergeFolder(top);
  await setAside(layout, folder);
  await putInPlace(layout, folder);
  await removeAside(layout, folder, context, remove);
  return written.merge;
}
