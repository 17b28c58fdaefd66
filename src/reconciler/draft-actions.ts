/** What is desired against what is there, resource by resource: one action each, or none. */

import type { LayerRef } from '../hosts/host.ts';
import { type MountResource, type Resource, type ResourceKey, resourceKey } from '../manifests/resources.ts';
import type { ChainFacts } from '../state/records.ts';
import { compareText } from './canonical.ts';
import type { Desired, DesiredChain } from './desired.ts';
import { describePlace } from './mount-paths.ts';
import { collectMergeNeeds, type MergePlan, planMerges, repairBelowMerges } from './plan-merges.ts';
import { findSpecChange, type MountChange, type MountVerdict } from './plan-mounts.ts';
import { describeChain } from './plan-removals.ts';
import {
  collectNeeds,
  findSealedBases,
  isReplaced,
  planSnapshots,
  type SnapshotPlan,
} from './plan-snapshots.ts';
import { dependenciesOf } from './resource-graph.ts';
import { intentDigest, mergeId, type Situation, snapshotId } from './situation.ts';
import type { SourceOf } from './sources.ts';
import type { Plan, PlannedAction, Reason, ResolvedImage, Verb } from './types.ts';
import { snapshotFor } from './writable-mounts.ts';

/** Actions for what is desired, not yet ordered. */
export interface Draft {
  actions: PlannedAction[];
  notes: Plan['notes'];
}

export function draftActions(
  desired: Desired,
  verdicts: ReadonlyMap<ResourceKey, MountVerdict>,
  situation: Situation,
  sourceOf: SourceOf,
): Draft {
  const draft: Draft = { actions: [], notes: [] };
  const { resources, chains } = desired;
  const isActing = (key: ResourceKey) => verdicts.get(key)?.kind === 'change';
  const sealedBases = findSealedBases(chains.values(), situation);
  const needs = collectNeeds(resources, chains, isActing, sealedBases, situation);
  const mergeNeeds = collectMergeNeeds(resources, chains, isActing, sealedBases);
  const imageActions = new Map<string, PlannedAction>();
  const readyAfterImage = (image: string): string[] => {
    const action = imageActions.get(image);
    return action === undefined ? [] : [action.id];
  };
  // Images come first in every chain, so their actions are known before the layers that wait for them.
  const incomplete = situation.recordsKnown ? undefined : findIncompleteImages(desired, situation);
  for (const resource of desired.resources) {
    if (resource.kind !== 'Image') continue;
    const image = desired.images.get(resource.metadata.name);
    if (image === undefined || incomplete?.has(resource.metadata.name) === false) continue;
    const action = draftImage(resource, image, situation, sourceOf);
    if (action !== undefined) imageActions.set(resource.metadata.name, action);
  }
  repairBelowMerges(
    mergeNeeds,
    needs,
    (id) => {
      const need = needs.get(id);
      return need !== undefined && isReplaced(id, need, situation);
    },
    situation,
  );
  const snapshots = planSnapshots(needs, situation, readyAfterImage);
  const merges = planMerges(mergeNeeds, snapshots, situation);
  const readyAfter = new Map<ResourceKey, string[]>();
  for (const resource of desired.resources) {
    const key = resourceKey(resource);
    const chain = desired.chains.get(key);
    const layersReady = chain === undefined ? [] : readyAfterChain(chain, snapshots, merges);
    const waits = [
      ...layersReady,
      ...dependenciesOf(resource).flatMap((needed) => readyAfter.get(needed) ?? []),
    ];
    const action = draftResource(resource, chain, {
      imageActions,
      verdicts,
      situation,
      sourceOf,
      draft,
    });
    if (action === undefined) {
      readyAfter.set(key, resource.kind === 'LayerChain' ? layersReady : []);
      continue;
    }
    draft.actions.push({
      ...action,
      dependsOn: [...new Set([...waits, ...action.dependsOn])].sort(compareText),
    });
    readyAfter.set(key, [action.id]);
  }
  draft.actions.push(...snapshots.actions.values(), ...merges.actions.values());
  draft.notes.push(...snapshots.notes, ...merges.notes);
  return draft;
}

/** Without records an Image counts as applied when the host has all its layers; offline none does (undefined). */
function findIncompleteImages(desired: Desired, situation: Situation): Set<string> | undefined {
  if (situation.observed === undefined) return undefined;
  const incomplete = new Set<string>();
  for (const { format, layers } of desired.chains.values()) {
    for (const { chainId, from } of layers) {
      if ('image' in from && !situation.layers.has(snapshotId({ chainId, format })))
        incomplete.add(from.image);
    }
  }
  return incomplete;
}

interface DraftContext {
  imageActions: ReadonlyMap<string, PlannedAction>;
  verdicts: ReadonlyMap<ResourceKey, MountVerdict>;
  situation: Situation;
  sourceOf: SourceOf;
  draft: Draft;
}

function draftResource(
  resource: Resource,
  chain: DesiredChain | undefined,
  context: DraftContext,
): PlannedAction | undefined {
  if (resource.kind === 'Image') return context.imageActions.get(resource.metadata.name);
  const key = resourceKey(resource);
  if (chain === undefined) throw new Error(`${key} has no chain although it isn't blocked`);
  if (resource.kind === 'LayerChain') return draftChain(resource, chain, context);
  const verdict = context.verdicts.get(key);
  if (verdict?.kind === 'reported') context.draft.notes.push({ key, message: verdict.message, drift: true });
  if (verdict?.kind !== 'change') return undefined;
  if (verdict.note !== undefined) context.draft.notes.push({ key, message: verdict.note });
  return draftMount(resource, verdict);
}

function draftImage(
  resource: Resource,
  image: ResolvedImage,
  situation: Situation,
  sourceOf: SourceOf,
): PlannedAction | undefined {
  const key = resourceKey(resource);
  const record = situation.resources.get(key);
  const applied = record?.appliedDigest === undefined ? undefined : record.facts.image;
  const change = ((): { verb: Verb; reason: Reason } | undefined => {
    if (applied === undefined)
      return { verb: 'create', reason: { code: 'new', message: 'not on this host yet' } };
    if (applied.digest !== image.digest) {
      const was = applied.reference === image.reference ? '' : ` (${applied.reference})`;
      return { verb: 'change', reason: { code: 'image-changed', message: `was ${applied.digest}${was}` } };
    }
    const reason = findSpecChange(record, intentDigest(resource), sourceOf(key).id);
    return reason === undefined ? undefined : { verb: 'change', reason };
  })();
  if (change === undefined) return undefined;
  const { os, architecture, osVersion } = image.platform;
  const platform = [os, architecture, osVersion].filter((part) => part !== undefined).join('/');
  const { name } = resource.metadata;
  return {
    id: key,
    kind: 'Image',
    name,
    verb: change.verb,
    drift: false,
    reasons: [change.reason],
    bytes: 0,
    detail: `${image.reference === undefined ? '' : `${image.reference}, `}${image.digest}, ${platform}, ${image.layers.length} layer${image.layers.length === 1 ? '' : 's'}`,
    dependsOn: [],
    work: {
      do: 'resolveImage',
      image: name,
      digest: image.digest,
      blobs: image.layers.map(({ blob }) => blob),
    },
  };
}

function draftChain(
  resource: Resource,
  chain: DesiredChain,
  context: DraftContext,
): PlannedAction | undefined {
  const key = resourceKey(resource);
  const { situation, sourceOf } = context;
  const record = situation.resources.get(key);
  const facts = {
    format: chain.format,
    chainIds: chain.layers.map(({ chainId }) => chainId),
    ...(chain.merged ? { merged: true as const } : {}),
  };
  const applied = record?.appliedDigest === undefined ? undefined : record.facts.chain;
  const change = ((): { verb: Verb; reason: Reason } | undefined => {
    // A damaged layer is drift of the layer, not of the chain.
    if (!situation.recordsKnown && isThere(chain, situation)) return undefined;
    if (applied === undefined)
      return { verb: 'create', reason: { code: 'new', message: 'not on this host yet' } };
    const specChange = findSpecChange(record, intentDigest(resource), sourceOf(key).id);
    if (describeIds(applied) !== describeIds(facts)) {
      const isImageOnly = chain.layers.every(({ from }) => 'image' in from);
      const code = specChange === undefined && isImageOnly ? 'image-changed' : 'layers-changed';
      return { verb: 'replace', reason: { code, message: `was ${describeChain(applied)}` } };
    }
    return specChange === undefined ? undefined : { verb: 'change', reason: specChange };
  })();
  if (change === undefined) return undefined;
  const { name } = resource.metadata;
  return {
    id: key,
    kind: 'LayerChain',
    name,
    verb: change.verb,
    drift: false,
    reasons: [change.reason],
    bytes: 0,
    detail: describeChain(facts) ?? '',
    dependsOn: [],
    work: { do: 'recordChain', chain: name, ...facts },
  };
}

function isThere({ layers, format, merged }: DesiredChain, situation: Situation): boolean {
  const chainId = layers.at(-1)?.chainId;
  return (
    layers.every((layer) => situation.layers.has(snapshotId({ chainId: layer.chainId, format }))) &&
    (!merged || chainId === undefined || situation.merges.has(mergeId({ chainId, format })))
  );
}

function describeIds(chain: ChainFacts): string {
  return `${chain.format} ${chain.chainIds.join(' ')}`;
}

function draftMount(mount: MountResource, change: MountChange): PlannedAction {
  const { request, replaces, occupant } = change;
  const snapshot = snapshotFor(mount, request);
  const view = snapshot === undefined ? `${request.view} view` : 'writable';
  return {
    id: resourceKey(mount),
    kind: 'Mount',
    name: mount.metadata.name,
    verb: change.verb,
    drift: change.drift,
    reasons: change.reasons,
    bytes: 0,
    detail: `${describePlace(request)}, ${view} ${snapshot === undefined ? 'of' : 'over'} ${request.format} ${request.chain.at(-1)}`,
    dependsOn: occupant === undefined ? [] : [occupant],
    work: {
      do: 'mountView',
      request,
      ...(snapshot === undefined ? {} : { snapshot }),
      ...(replaces === undefined ? {} : { replaces }),
    },
  };
}

function readyAfterChain(chain: DesiredChain, snapshots: SnapshotPlan, merges: MergePlan): string[] {
  const chainId = chain.layers.at(-1)?.chainId;
  if (chainId === undefined) return [];
  const top: LayerRef = { chainId, format: chain.format };
  const merge = chain.merged ? merges.actions.get(mergeId(top))?.id : undefined;
  const action = merge ?? snapshots.readyAfter.get(snapshotId(top));
  return action === undefined ? [] : [action];
}
