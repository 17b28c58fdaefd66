/** What the API lists, and `get` and `describe` show: resources, snapshots and sources, each with its status. */

import type { SourceStatus } from '../agent/source-status.ts';
import type { Kind } from '../manifests/resources.ts';
import type { ResourceStatus, SnapshotStatus, Status } from '../reconciler/status.ts';
import { describeSuspension, type SuspensionNote } from '../reconciler/suspension.ts';
import type { Condition } from '../state/records.ts';

export type Section = Kind | 'Snapshot' | 'Source';

/** What is on the host. Sources are known to an agent only. */
export const SECTIONS: readonly Section[] = ['Image', 'LayerChain', 'Mount', 'Snapshot'];

const PATHS: Record<Section, string> = {
  Image: '/api/v1/images',
  LayerChain: '/api/v1/chains',
  Mount: '/api/v1/mounts',
  Snapshot: '/api/v1/snapshots',
  Source: '/api/v1/sources',
};

/** Where the API lists it. */
export function pathOf(section: Section): string {
  return PATHS[section];
}

export interface Summary {
  ready: 'True' | 'False' | 'Unknown';
  reason: string;
  message: string;
}

export type ResourceItem = ReturnType<typeof resourceItem>;
export type SnapshotItem = ReturnType<typeof snapshotItem>;
export type SourceItem = ReturnType<typeof sourceItem>;
export type Item = ResourceItem | SnapshotItem | SourceItem;

export interface Items {
  resources: ResourceItem[];
  snapshots: SnapshotItem[];
  sources: SourceItem[];
}

export function itemsOf({ resources, snapshots }: Status): Items {
  return { resources: resources.map(resourceItem), snapshots: snapshots.map(snapshotItem), sources: [] };
}

function resourceItem(resource: ResourceStatus) {
  const { kind, name, spec, generation, appliedRevision, dependencies, facts, drift, mounted } = resource;
  const { conditions, history, suspended, vhdFooter, createdAt, updatedAt } = resource;
  const { image, chain, mount } = facts;
  return {
    kind,
    name,
    spec,
    status: {
      ...summarise(resource, 'recorded, not applied yet'),
      suspended,
      generation,
      lastAppliedRevision: appliedRevision,
      conditions,
      history,
      dependencies,
      image,
      chain,
      mount,
      vhdFooter,
      drift,
      mounted,
      createdAt,
      updatedAt,
    },
  };
}

export function sourceItem({ name, conditions, suspended, ...status }: SourceStatus) {
  const summary = summarise({ conditions, suspended }, 'not looked at yet');
  return { kind: 'Source' as const, name, status: { ...summary, suspended, ...status, conditions } };
}

/**
 * One word and one sentence for all conditions: what is left alone on purpose, then what stalls says most, then what is
 * going on, then what is ready. `pending`: the sentence when there are none.
 */
function summarise(
  { conditions, suspended }: { conditions: readonly Condition[]; suspended?: SuspensionNote | undefined },
  pending: string,
): Summary {
  const find = (type: string) => conditions.find((each) => each.type === type);
  const ready = find('Ready');
  const telling = ['Stalled', 'Reconciling'].map(find).find((each) => each?.status === 'True') ?? ready;
  const why = { reason: telling?.reason ?? 'Pending', message: telling?.message ?? pending };
  return {
    ready: ready?.status ?? 'Unknown',
    ...(suspended === undefined ? why : { reason: 'Suspended', message: describeSuspension(suspended) }),
  };
}

const SNAPSHOT_REASONS: Record<SnapshotStatus['state'], string> = {
  committed: 'Committed',
  intended: 'Interrupted',
  removing: 'Removing',
  missing: 'Missing',
  damaged: 'Damaged',
  unrecorded: 'Unrecorded',
};

function snapshotItem(snapshot: SnapshotStatus) {
  return {
    kind: 'Snapshot' as const,
    name: snapshot.chainId,
    status: { ...summariseSnapshot(snapshot), ...snapshot },
  };
}

function summariseSnapshot({ state, faults }: SnapshotStatus): Summary {
  const ready = state === 'committed' ? 'True' : state === 'unrecorded' ? 'Unknown' : 'False';
  return { ready, reason: SNAPSHOT_REASONS[state], message: faults[0]?.message ?? '' };
}
