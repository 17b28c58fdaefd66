/** Which layers have to be built: each chain ID once per format, however many want it. */

import type { LayerFormat, ObservedLayer } from '../hosts/host.ts';
import { type Resource, type ResourceKey, resourceKey } from '../manifests/resources.ts';
import type { DesiredChain, DesiredLayer } from './desired.ts';
import { type Situation, snapshotId } from './situation.ts';
import type { Plan, PlannedAction, Reason, Verb } from './types.ts';

export interface SnapshotNeed {
  layer: DesiredLayer;
  format: LayerFormat;
  /** The chain that it is in, base first, and how many layers are below it there. */
  chain: readonly DesiredLayer[];
  depth: number;
  neededBy: ResourceKey;
  others: number;
  /** False when all that need it only want drift reported. */
  repairs: boolean;
  seal: boolean;
  vhdFooter: boolean;
}

export interface SnapshotPlan {
  actions: Map<string, PlannedAction>;
  /** For each needed snapshot, the action that makes it usable: its own, or else the nearest below it. */
  readyAfter: Map<string, string | undefined>;
  notes: Plan['notes'];
}

/**
 * Needed snapshots, parents before children, but for those of chains on one base of which all are there as they should be. A Mount of a LayerChain needs the chain's layers only when `isActing`: a
 * view that is there stays as it is.
 */
export function collectNeeds(
  resources: readonly Resource[],
  chains: ReadonlyMap<ResourceKey, DesiredChain>,
  isActing: (key: ResourceKey) => boolean,
  sealedBases: ReadonlySet<string>,
  situation: Situation,
): Map<string, SnapshotNeed> {
  const needs = new Map<string, SnapshotNeed>();
  const unfinished = new Set<string>();
  for (const chain of chains.values())
    if (!isThere(chain, isSealed(chain, sealedBases), situation)) unfinished.add(baseOf(chain));
  for (const resource of resources) {
    const key = resourceKey(resource);
    const chain = chains.get(key);
    if (chain === undefined || !unfinished.has(baseOf(chain))) continue;
    const borrowed = resource.kind === 'Mount' && resource.spec.chain !== undefined;
    const acting = isActing(key);
    if (borrowed && !acting) continue;
    const repairs = resource.spec.driftPolicy !== 'Report' || acting;
    const seal = isSealed(chain, sealedBases);
    const { vhdFooter } = chain;
    chain.layers.forEach((layer, index) => {
      const id = snapshotId({ chainId: layer.chainId, format: chain.format });
      const known = needs.get(id);
      if (known === undefined) {
        needs.set(id, {
          layer,
          format: chain.format,
          chain: chain.layers,
          depth: index,
          neededBy: key,
          others: 0,
          repairs,
          seal,
          vhdFooter,
        });
      } else {
        known.repairs ||= repairs;
        known.vhdFooter ||= vhdFooter;
        if (!borrowed) known.others++;
      }
    });
  }
  return needs;
}

/** Whether every layer is there, without faults, and all that is asked for. */
function isThere({ layers, format, vhdFooter }: DesiredChain, seal: boolean, situation: Situation): boolean {
  return layers.every(({ chainId }) => {
    const layer = situation.layers.get(snapshotId({ chainId, format }));
    return layer?.faults.length === 0 && suffices(layer, { seal, vhdFooter });
  });
}

/**
 * The base layers, by snapshot ID, of chains that are sealed as a whole. Integrity is all or none in a chain, and
 * chains share their layers from the base up: one that wants the seal, or has it, decides for all on the same base.
 */
export function findSealedBases(chains: Iterable<DesiredChain>, situation: Situation): Set<string> {
  const sealed = new Set<string>();
  for (const chain of chains) {
    const { format, layers } = chain;
    const hasSeal = layers.some(
      ({ chainId }) => situation.layers.get(snapshotId({ chainId, format }))?.rootHash !== undefined,
    );
    if (chain.verified || hasSeal) sealed.add(baseOf(chain));
  }
  return sealed;
}

export function isSealed(chain: DesiredChain, sealedBases: ReadonlySet<string>): boolean {
  return sealedBases.has(baseOf(chain));
}

function baseOf({ format, layers }: DesiredChain): string {
  const base = layers[0];
  return base === undefined ? '' : snapshotId({ chainId: base.chainId, format });
}

/** Whether the layer is going to be built again as another: merged CIMs over it don't fit it any more. */
export function isReplaced(id: string, need: SnapshotNeed, situation: Situation): boolean {
  return assess(id, need, situation)?.verb === 'replace';
}

export function planSnapshots(
  needs: ReadonlyMap<string, SnapshotNeed>,
  situation: Situation,
  readyAfterImage: (image: string) => string[],
): SnapshotPlan {
  const plan: SnapshotPlan = { actions: new Map(), readyAfter: new Map(), notes: [] };
  repairBelowBuilds(needs, situation);
  for (const [id, need] of needs) {
    const parent = parentOf(need);
    const below = parent === undefined ? undefined : plan.readyAfter.get(parent);
    const verdict = assess(id, need, situation);
    if (verdict?.drift && !need.repairs) {
      const what = verdict.reasons.map(({ message }) => message).join('; ');
      plan.notes.push({
        key: need.neededBy,
        message: `drift in layer ${need.layer.chainId}, only reported (driftPolicy: Report): ${what}`,
        drift: true,
      });
    }
    if (verdict === undefined || (verdict.drift && !need.repairs)) {
      plan.readyAfter.set(id, below);
      continue;
    }
    const { layer, format, chain, depth } = need;
    const { chainId, diffId, blob } = layer;
    plan.actions.set(id, {
      id,
      kind: 'Snapshot',
      name: chainId,
      ...verdict,
      bytes: blob.size,
      detail: `${format} layer ${depth + 1} of ${need.neededBy}, ${need.seal ? 'sealed, ' : ''}${need.vhdFooter ? 'with VHD footer, ' : ''}diff ID ${diffId}`,
      dependsOn: [
        ...new Set([
          ...(below === undefined ? [] : [below]),
          ...('image' in layer.from ? readyAfterImage(layer.from.image) : []),
        ]),
      ],
      neededBy: need.neededBy,
      work: {
        do: 'buildLayer',
        request: {
          chainId,
          diffId,
          parents: chain.slice(0, depth).map((each) => each.chainId),
          format,
          blob,
          ...(need.seal ? { seal: true } : {}),
          ...(need.vhdFooter ? { vhdFooter: true } : {}),
        },
      },
    });
    plan.readyAfter.set(id, id);
  }
  return plan;
}

/** Drift is not only reported in a layer that another one is going to be built on. */
function repairBelowBuilds(needs: ReadonlyMap<string, SnapshotNeed>, situation: Situation): void {
  const builtOn = new Set<string>();
  for (const [id, need] of [...needs].reverse()) {
    need.repairs ||= builtOn.has(id);
    const verdict = assess(id, need, situation);
    const isBuilt = verdict !== undefined && (!verdict.drift || need.repairs);
    const parent = parentOf(need);
    if (parent !== undefined && (isBuilt || builtOn.has(id))) builtOn.add(parent);
  }
}

/** The snapshot that it is built on. */
function parentOf({ chain, depth, format }: SnapshotNeed): string | undefined {
  const below = chain[depth - 1];
  return below === undefined ? undefined : snapshotId({ chainId: below.chainId, format });
}

/**
 * What has to happen to a needed layer. One that only misses its parent is whole again once the parent is built anew:
 * the same code writes the same bytes, and other code would have given it the fault `builder-changed`. Where a host's don't, the fault
 * is `parent-rebuilt`.
 */
function assess(
  id: string,
  need: SnapshotNeed,
  situation: Situation,
): { verb: Verb; drift: boolean; reasons: Reason[] } | undefined {
  const layer = situation.layers.get(id);
  // What most are, and what there is to say of it.
  if (layer?.faults.length === 0) return assessFinish(layer, need);
  const record = situation.snapshots.get(id);
  const wasCommitted = record?.state === 'committed' || (!situation.recordsKnown && layer !== undefined);
  const faults = layer?.faults.filter(({ code }) => code !== 'parent-missing') ?? [];
  if (layer !== undefined && faults.length === 0) return assessFinish(layer, need);

  const needed: Reason = {
    code: 'needed-by',
    message: `needed by ${need.neededBy}${need.others === 0 ? '' : ` and ${need.others} more`}`,
  };
  if (wasCommitted) {
    const drift = layer === undefined || faults.some(({ code }) => code !== 'builder-changed');
    return {
      verb: drift ? 'repair' : 'replace',
      drift,
      reasons:
        layer === undefined
          ? [{ code: 'layer-missing', message: 'it was committed and is gone from the host' }]
          : layer.faults.map(({ code, message }) => ({ code, message })),
    };
  }
  if (record !== undefined || layer !== undefined) {
    const interrupted: Reason = { code: 'interrupted', message: 'an earlier run was stopped halfway' };
    return { verb: 'create', drift: false, reasons: [interrupted, needed] };
  }
  return { verb: 'create', drift: false, reasons: [needed] };
}

/** A layer without faults may lack its seal or footer: it never changes once it is committed, so it is built anew. */
function assessFinish(
  layer: ObservedLayer,
  need: SnapshotNeed,
): { verb: Verb; drift: boolean; reasons: Reason[] } | undefined {
  if (suffices(layer, need)) return undefined;
  const reasons: Reason[] = [];
  if (need.seal && layer.rootHash === undefined) {
    const message = `it is not sealed: ${need.neededBy}, or a chain on the same base, wants integrity: Verified`;
    reasons.push({ code: 'seal-changed', message });
  }
  if (need.vhdFooter && layer.vhdFooter !== true)
    reasons.push({ code: 'footer-changed', message: 'it has no VHD footer' });
  return { verb: 'replace', drift: false, reasons };
}

function suffices(layer: ObservedLayer, wish: Pick<SnapshotNeed, 'seal' | 'vhdFooter'>): boolean {
  return (!wish.seal || layer.rootHash !== undefined) && (!wish.vhdFooter || layer.vhdFooter === true);
}
