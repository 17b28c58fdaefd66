/** What the API lists, and `get` and `describe` show: resources and snapshots, each with its status. */

import type { Kind } from '../manifests/resources.ts';
import type { ResourceStatus, SnapshotStatus, Status } from '../reconciler/status.ts';

export type Section = Kind | 'Snapshot';

export const SECTIONS: readonly Section[] = ['Image', 'LayerChain', 'Mount', 'Snapshot'];

const PATHS: Record<Section, string> = {
  Image: '/api/v1/images',
  LayerChain: '/api/v1/chains',
  Mount: '/api/v1/mounts',
  Snapshot: '/api/v1/snapshots',
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
export type Item = ResourceItem | SnapshotItem;

export interface Items {
  resources: ResourceItem[];
  snapshots: SnapshotItem[];
}

export function itemsOf({ resources, snapshots }: Status): Items {
  return { resources: resources.map(resourceItem), snapshots: snapshots.map(snapshotItem) };
}

function resourceItem(resource: ResourceStatus) {
  const { kind, name, spec, generation, appliedRevision, dependencies, facts, drift, mounted } = resource;
  const { conditions, history, vhdFooter, createdAt, updatedAt } = resource;
  return {
    kind,
    name,
    spec,
    status: {
      ...summariseResource(resource),
      generation,
      lastAppliedRevision: appliedRevision,
      conditions,
      history,
      dependencies,
      ...facts,
      vhdFooter,
      drift,
      mounted,
      createdAt,
      updatedAt,
    },
  };
}

/** One word and one sentence for all conditions: what stalls says most, then what is going on, then what is ready. */
function summariseResource({ conditions }: ResourceStatus): Summary {
  const find = (type: string) => conditions.find((each) => each.type === type);
  const ready = find('Ready');
  const telling = ['Stalled', 'Reconciling'].map(find).find((each) => each?.status === 'True') ?? ready;
  return {
    ready: ready?.status ?? 'Unknown',
    reason: telling?.reason ?? 'Pending',
    message: telling?.message ?? 'recorded, not applied yet',
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
