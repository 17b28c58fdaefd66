/** Which chains have to be merged: each topmost layer once, however many want it; and which merged CIMs go. */

import type { LayerRef, MergeRequest } from '../hosts/host.ts';
import { type Resource, type ResourceKey, resourceKey } from '../manifests/resources.ts';
import type { ResourceRecord } from '../state/records.ts';
import { compareText } from './canonical.ts';
import type { DesiredChain } from './desired.ts';
import { type LeftChain, layersBegunFor, type Needs } from './plan-removals.ts';
import { isSealed, type SnapshotNeed, type SnapshotPlan } from './plan-snapshots.ts';
import { mergeId, type Situation, snapshotId } from './situation.ts';
import type { Plan, PlannedAction, Reason, Verb } from './types.ts';

export interface MergeNeed {
  request: MergeRequest;
  neededBy: ResourceKey;
  others: number;
  /** False when all that need it only want drift reported. */
  repairs: boolean;
}

type Verdict = { verb: Verb; drift: boolean; reasons: Reason[] };

export interface MergePlan {
  actions: Map<string, PlannedAction>;
  notes: Plan['notes'];
}

/** Needed merged CIMs by id, as `collectNeeds` collects layers. */
export function collectMergeNeeds(
  resources: readonly Resource[],
  chains: ReadonlyMap<ResourceKey, DesiredChain>,
  isActing: (key: ResourceKey) => boolean,
  sealedBases: ReadonlySet<string>,
): Map<string, MergeNeed> {
  const needs = new Map<string, MergeNeed>();
  for (const resource of resources) {
    const key = resourceKey(resource);
    const chain = chains.get(key);
    const top = chain?.layers.at(-1);
    if (chain === undefined || top === undefined || !chain.merged) continue;
    const borrowed = resource.kind === 'Mount' && resource.spec.chain !== undefined;
    const acting = isActing(key);
    if (borrowed && !acting) continue;
    const repairs = resource.spec.driftPolicy !== 'Report' || acting;
    const id = mergeId({ chainId: top.chainId, format: chain.format });
    const known = needs.get(id);
    if (known === undefined) {
      needs.set(id, {
        request: {
          chain: chain.layers.map(({ chainId }) => chainId),
          format: chain.format,
          ...(isSealed(chain, sealedBases) ? { seal: true } : {}),
          ...(chain.vhdFooter ? { vhdFooter: true } : {}),
        },
        neededBy: key,
        others: 0,
        repairs,
      });
    } else {
      known.repairs ||= repairs;
      if (chain.vhdFooter) known.request.vhdFooter = true;
      if (!borrowed) known.others++;
    }
  }
  return needs;
}

/** Drift is not only reported in a layer of a chain that is going to be merged. */
export function repairBelowMerges(
  merges: ReadonlyMap<string, MergeNeed>,
  snapshots: ReadonlyMap<string, SnapshotNeed>,
  isReplaced: (snapshot: string) => boolean,
  situation: Situation,
): void {
  for (const [id, need] of merges) {
    const sources = sourcesOf(need.request);
    const verdict = assess(id, need, situation, sources.some(isReplaced));
    if (verdict === undefined || (verdict.drift && !need.repairs)) continue;
    for (const source of sources) {
      const snapshot = snapshots.get(source);
      if (snapshot !== undefined) snapshot.repairs = true;
    }
  }
}

export function planMerges(
  needs: ReadonlyMap<string, MergeNeed>,
  snapshots: SnapshotPlan,
  situation: Situation,
): MergePlan {
  const plan: MergePlan = { actions: new Map(), notes: [] };
  for (const [id, need] of needs) {
    const { request, neededBy } = need;
    const sources = sourcesOf(request);
    const isReplaced = sources.some((source) => snapshots.actions.get(source)?.verb === 'replace');
    const verdict = assess(id, need, situation, isReplaced);
    const top = request.chain.at(-1);
    if (verdict === undefined || top === undefined) continue;
    if (verdict.drift && !need.repairs) {
      const what = verdict.reasons.map(({ message }) => message).join('; ');
      const message = `drift in the merged CIM on ${top}, only reported (driftPolicy: Report): ${what}`;
      plan.notes.push({ key: neededBy, message, drift: true });
      continue;
    }
    const below = snapshots.readyAfter.get(snapshotId({ chainId: top, format: request.format }));
    plan.actions.set(id, {
      id,
      kind: 'Merge',
      name: top,
      ...verdict,
      bytes: 0,
      detail: `${request.format}, ${request.chain.length} layers${request.seal ? ', sealed' : ''}${request.vhdFooter ? ', with VHD footer' : ''}`,
      dependsOn: below === undefined ? [] : [below],
      neededBy,
      work: { do: 'mergeChain', request },
    });
  }
  return plan;
}

function sourcesOf({ chain, format }: MergeRequest): string[] {
  return chain.map((chainId) => snapshotId({ chainId, format }));
}

/**
 * What has to happen to a needed merged CIM. One that only misses a layer is whole again once that is built as it was;
 * it is written again when a layer is replaced by another.
 */
function assess(id: string, need: MergeNeed, situation: Situation, isReplaced: boolean): Verdict | undefined {
  const merge = situation.merges.get(id);
  if (merge === undefined) {
    const more = need.others === 0 ? '' : ` and ${need.others} more`;
    if (situation.mergedBefore.has(id))
      return {
        verb: 'repair',
        drift: true,
        reasons: [{ code: 'merge-missing', message: 'it was written and is gone from the host' }],
      };
    const needed: Reason = { code: 'needed-by', message: `needed by ${need.neededBy}${more}` };
    return { verb: 'create', drift: false, reasons: [needed] };
  }
  const changes: Reason[] = [];
  if (need.request.seal === true && merge.rootHash === undefined)
    changes.push({ code: 'seal-changed', message: 'it is not sealed, and its layers are' });
  else if (isReplaced) changes.push({ code: 'source-changed', message: 'layers of it are built again' });
  const faults = merge.faults.flatMap(({ code, message }): Reason[] =>
    code === 'source-missing' ? [] : [{ code, message }],
  );
  const drift =
    changes.length === 0 &&
    faults.some(({ code }) => code !== 'source-changed' && code !== 'builder-changed');
  if (need.request.vhdFooter === true && merge.vhdFooter !== true && changes.length === 0)
    changes.push({ code: 'footer-changed', message: 'it has no VHD footer' });
  const reasons = [...changes, ...faults];
  return reasons.length === 0 ? undefined : { verb: drift ? 'repair' : 'replace', drift, reasons };
}

export interface MergeRemovalInput {
  situation: Situation;
  desired: Needs;
  removals: ReadonlyMap<ResourceKey, ResourceRecord>;
  /** All other actions of the plan. */
  actions: readonly PlannedAction[];
  left: readonly LeftChain[];
  /** Consider only merged CIMs of chains that were left. */
  onlyLeft: boolean;
}

/** Removes merged CIMs that nobody needs, where the layer below stays; one on a layer that goes, goes with it. */
export function planMergeRemovals(input: MergeRemovalInput): PlannedAction[] {
  const { situation, desired, removals, actions, left } = input;
  const { chains, blocked } = desired;
  const kept = new Set<string>();
  const keep = (top: LayerRef | undefined) => {
    if (top !== undefined) kept.add(mergeId(top));
  };
  for (const ref of layersBegunFor(blocked, situation)) keep(ref);
  for (const { merged, layers, format } of chains.values()) {
    const chainId = layers.at(-1)?.chainId;
    if (merged && chainId !== undefined) keep({ chainId, format });
  }
  for (const [key, { facts }] of situation.resources) {
    const chainId = facts.chain?.chainIds.at(-1);
    if (removals.has(key) || chains.has(key) || facts.chain?.merged !== true || chainId === undefined)
      continue;
    keep({ chainId, format: facts.chain.format });
  }
  const dismounted = new Set<string>();
  for (const { work } of actions) {
    if (work.do === 'dismountView') dismounted.add(work.volumeGuid);
    if (work.do === 'mountView' && work.replaces !== undefined) dismounted.add(work.replaces);
    if (work.do === 'removeLayer') keep(work.ref);
  }
  for (const mount of situation.mounts.values()) if (!dismounted.has(mount.volumeGuid)) keep(mount);

  const leavers = new Map<string, string[]>();
  for (const { top, actionId } of left) {
    const known = leavers.get(mergeId(top));
    if (known === undefined) leavers.set(mergeId(top), [actionId]);
    else known.push(actionId);
  }
  return [...situation.merges].flatMap(([id, merge]): PlannedAction[] => {
    const chainId = merge.chain.at(-1);
    if (chainId === undefined || kept.has(id)) return [];
    const top: LayerRef = { chainId, format: merge.format };
    if (!situation.snapshots.has(snapshotId(top)) || (input.onlyLeft && !leavers.has(id))) return [];
    return [
      {
        id,
        kind: 'Merge',
        name: chainId,
        verb: 'delete',
        drift: false,
        reasons: [{ code: 'unreferenced', message: 'nothing needs it any more' }],
        bytes: merge.bytes,
        detail: `${merge.format}, ${merge.chain.length} layers`,
        dependsOn: [...new Set(leavers.get(id))].sort(compareText),
        work: { do: 'removeMerge', top },
      },
    ];
  });
}
