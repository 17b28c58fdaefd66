/** What `get` and `describe` show: what was applied, held against what the host really has. Pure. */

import type { ChainId, HostState, LayerFormat, ObservedLayer, ObservedMount } from '../hosts/host.ts';
import type { Kind, ResourceKey } from '../manifests/resources.ts';
import type { ResourceRecord, SnapshotRecord, StateRecords } from '../state/records.ts';

export interface ResourceStatus {
  key: ResourceKey;
  kind: Kind;
  name: string;
  ready: 'True' | 'False' | 'Unknown';
  /** Reason of the condition that tells most, or `Drifted`. */
  status: string;
  /** That condition's message, or what moved. */
  message: string;
  record: ResourceRecord;
  mount?: ObservedMount | undefined;
}

export interface SnapshotStatus {
  chainId: ChainId;
  format: LayerFormat;
  ready: 'True' | 'False';
  status: string;
  message: string;
  record?: SnapshotRecord | undefined;
  layer?: ObservedLayer | undefined;
}

export interface Status {
  resources: ResourceStatus[];
  snapshots: SnapshotStatus[];
}

export function deriveStatus(records: StateRecords, observed: HostState): Status {
  const snapshots = snapshotsOf(records, observed);
  const layers = new Map(snapshots.map((each) => [`${each.format} ${each.chainId}`, each]));
  const mounts = new Map(observed.mounts.map((mount) => [mount.volumeGuid, mount]));
  const resources = records.resources.map((record): ResourceStatus => {
    const mount = record.facts.mount && mounts.get(record.facts.mount.volumeGuid);
    const moved = findDrift(record, layers, mount);
    const base = { key: `${record.kind}/${record.name}` as const, kind: record.kind, name: record.name };
    if (moved !== undefined) {
      return { ...base, ready: 'False', status: 'Drifted', message: moved, record, mount };
    }
    return { ...base, ...summarise(record), record, mount };
  });
  return { resources, snapshots };
}

function summarise(record: ResourceRecord): Pick<ResourceStatus, 'ready' | 'status' | 'message'> {
  const find = (type: string) => record.conditions.find((each) => each.type === type);
  const ready = find('Ready');
  const telling = ['Stalled', 'Reconciling'].map(find).find((each) => each?.status === 'True') ?? ready;
  return {
    ready: ready?.status ?? 'Unknown',
    status: telling?.reason ?? 'Pending',
    message: telling?.message ?? 'recorded, not applied yet',
  };
}

/** Drift is only looked for in what was applied in full: anything else says itself why it isn't ready. */
function findDrift(
  record: ResourceRecord,
  layers: ReadonlyMap<string, SnapshotStatus>,
  mount: ObservedMount | undefined,
): string | undefined {
  const isReady = record.conditions.some(({ type, status }) => type === 'Ready' && status === 'True');
  if (!isReady) return undefined;
  const { chain } = record.facts;
  const broken = chain?.chainIds
    .map((chainId) => layers.get(`${chain.format} ${chainId}`) ?? chainId)
    .find((each) => typeof each === 'string' || each.ready === 'False');
  if (typeof broken === 'string') return `layer ${broken} is gone`;
  if (broken !== undefined) return `layer ${broken.chainId}: ${broken.message}`;
  if (record.facts.mount === undefined) return undefined;
  if (mount === undefined) return `nothing is mounted at ${record.facts.mount.path}`;
  if (mount.state === 'mounted') return undefined;
  return mount.message ?? `the mount at ${mount.path} is ${mount.state}`;
}

function snapshotsOf(records: StateRecords, observed: HostState): SnapshotStatus[] {
  const keyOf = (each: { format: string; chainId: string }) => `${each.format} ${each.chainId}`;
  const recorded = new Map(records.snapshots.map((record) => [keyOf(record), record]));
  const present = observed.layers.map((layer): SnapshotStatus => {
    const { chainId, format } = layer;
    const record = recorded.get(keyOf(layer));
    recorded.delete(keyOf(layer));
    const [fault] = layer.faults;
    if (fault !== undefined) {
      return { chainId, format, ready: 'False', status: 'Broken', message: fault.message, record, layer };
    }
    const status = record === undefined ? 'Unrecorded' : 'Committed';
    return { chainId, format, ready: 'True', status, message: '', record, layer };
  });
  const absent = [...recorded.values()].map((record): SnapshotStatus => {
    const { chainId, format, state } = record;
    const wanted = state === 'committed';
    const message = wanted ? 'committed, but the host does not have it' : `interrupted (${state})`;
    return { chainId, format, ready: 'False', status: wanted ? 'Missing' : 'Interrupted', message, record };
  });
  return [...present, ...absent];
}
