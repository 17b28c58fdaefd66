/** Whether what a source no longer declares may really go: an emptied or renamed folder must not empty a host. */

import type { Resource, ResourceKey } from '../manifests/resources.ts';
import { compareText } from '../reconciler/canonical.ts';
import type { ResourceRecord } from '../state/records.ts';

/** On a resource of the source: the revisions, by commas, that what is pruned was last declared in. */
const PRUNE_CONFIRMED = 'cimlet.dev/prune-confirmed';

export interface PruneQuestion {
  sourceId: string;
  resources: readonly Resource[];
  /** Whether any source declares it: what has moved to another one isn't pruned. */
  isDeclared: (key: ResourceKey) => boolean;
  records: readonly ResourceRecord[];
  /** The largest share of a source's resources that one revision may prune without confirmation, from 0 to 1. */
  largestShare: number;
  /** Other sources that can't be read now: what has moved there isn't known. */
  unread: readonly string[];
}

/** Undefined when it may; otherwise why not and what to do, as a sentence without a full stop. */
export function findPruneObstacle(question: PruneQuestion): string | undefined {
  const { sourceId, resources, isDeclared, records, largestShare, unread } = question;
  // What is never pruned makes no share of it smaller.
  const owned = records.filter((record) => record.sourceId === sourceId && record.prune);
  const leaving = owned.filter(({ kind, name }) => !isDeclared(`${kind}/${name}`));
  if (leaving.length > 0 && unread.length > 0) {
    const whose = unread.length === 1 ? `source ${unread[0]}` : `sources ${unread.join(', ')}`;
    return `nothing is pruned: what left ${sourceId} may have moved to ${whose}, which can't be read`;
  }
  if (leaving.length === 0) return undefined;
  const number = `${leaving.length} of ${owned.length} resources of ${sourceId}`;
  if (resources.length === 0)
    return `nothing is pruned: ${number} would go, and it declares nothing for this host any more; to remove them, use cimlet delete`;
  if (leaving.length <= owned.length * largestShare) return undefined;
  const revisions = [...new Set(leaving.map(({ revision }) => revision))].sort(compareText);
  const confirmed = new Set(
    resources.flatMap(({ metadata }) => metadata.annotations?.[PRUNE_CONFIRMED]?.split(/[\s,]+/) ?? []),
  );
  if (revisions.every((revision) => confirmed.has(revision))) return undefined;
  const share = Math.round((100 * leaving.length) / owned.length);
  const remedy = `annotate a resource that stays with ${PRUNE_CONFIRMED}: ${revisions.join(',')}`;
  return `nothing is pruned: ${number} (${share}%) would go; to confirm, ${remedy}`;
}
