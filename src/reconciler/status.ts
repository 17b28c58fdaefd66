/** What `get` and `describe` show: records merged with what the host shows now. */

import type { HostState, ObservedLayer, ObservedMerge, ObservedMount } from '../hosts/host.ts';
import { mountVolumeGuid } from '../hosts/identity.ts';
import type { ResourceKey } from '../manifests/resources.ts';
import type {
  Condition,
  ResourceRecord,
  SnapshotRecord,
  StateRecords,
  Suspension,
} from '../state/records.ts';
import { nextConditions } from './conditions.ts';
import { keyOfRecord } from './plan-removals.ts';
import { indexLayers, indexMerges, mergeId, snapshotId } from './situation.ts';
import { type SuspensionNote, suspensionOfSpec } from './suspension.ts';

export interface ResourceStatus extends ResourceRecord {
  key: ResourceKey;
  /** What the host shows otherwise than recorded; empty when it agrees. */
  drift: string[];
  /** A Mount's view as it is now. */
  mounted?: ObservedMount | undefined;
  /** Present when it is left as it is on purpose, whatever its manifest says. */
  suspended?: SuspensionNote | undefined;
  /** Present and true when what its chain is shown through, the merged CIM or the only layer, ends with a VHD footer. */
  vhdFooter?: true | undefined;
}

export interface SnapshotStatus {
  chainId: SnapshotRecord['chainId'];
  format: SnapshotRecord['format'];
  diffId: SnapshotRecord['diffId'];
  parent?: SnapshotRecord['parent'];
  /** `intended` and `removing` were interrupted; `missing` was committed; `unrecorded` is on the host only. */
  state: SnapshotRecord['state'] | 'missing' | 'damaged' | 'unrecorded';
  bytes: number;
  files?: number | undefined;
  builder?: string | undefined;
  /** Of its seal. */
  rootHash?: string | undefined;
  vhdFooter?: boolean | undefined;
  faults: ObservedLayer['faults'];
  neededBy?: ResourceKey | undefined;
  /** That somebody committed it by (`cimlet snapshot commit`). */
  name?: string | undefined;
  createdAt?: string | undefined;
  committedAt?: string | undefined;
}

export interface Status {
  host: HostState;
  resources: ResourceStatus[];
  snapshots: SnapshotStatus[];
}

export interface StatusOptions {
  suspensions?: readonly Suspension[] | undefined;
  /** An agent is at work, and repairs what drifted. */
  isFollowed?: boolean | undefined;
}

/** Pure. `now`: ISO 8601, for conditions that turned with what was observed. */
export function mergeStatus(
  records: StateRecords,
  observed: HostState,
  now: string,
  { suspensions = [], isFollowed = false }: StatusOptions = {},
): Status {
  const suspended = new Map<string, Suspension>(suspensions.map((each) => [each.key, each]));
  const layers = indexLayers(observed.layers);
  const merges = indexMerges(observed);
  const mounts = new Map(observed.mounts.map((mount) => [mount.volumeGuid, mount]));
  const resources = records.resources.map((record): ResourceStatus => {
    const mounted = record.kind === 'Mount' ? mounts.get(mountVolumeGuid(record.name)) : undefined;
    const drift = findDrift(record, layers, merges, mounted);
    return {
      ...record,
      key: keyOfRecord(record),
      drift,
      mounted,
      suspended: suspensionOf(record, suspended),
      vhdFooter: hasFooter(record, layers, merges) ? true : undefined,
      conditions: withDrift(record, drift, { now, isFollowed }),
    };
  });
  const recorded = new Set(records.snapshots.map(snapshotId));
  const names = namesOfLayers(records.names);
  const snapshots = [
    ...records.snapshots.map((record) => statusOfRecord(record, layers.get(snapshotId(record)))),
    ...observed.layers
      .filter((layer) => !recorded.has(snapshotId(layer)))
      .map((layer) => statusOfUnrecorded(layer, names.get(snapshotId(layer)))),
  ];
  return { host: observed, resources, snapshots };
}

function suspensionOf(
  record: ResourceRecord,
  suspended: ReadonlyMap<string, Suspension>,
): SuspensionNote | undefined {
  const note = suspended.get(keyOfRecord(record)) ?? suspensionOfSpec(record.spec);
  if (note === undefined) return undefined;
  const { reason, by, since }: SuspensionNote = note;
  return { reason, by, since };
}

function findDrift(
  record: ResourceRecord,
  layers: ReadonlyMap<string, ObservedLayer>,
  merges: ReadonlyMap<string, ObservedMerge>,
  mounted: ObservedMount | undefined,
): string[] {
  if (record.appliedDigest === undefined) return [];
  const drift: string[] = [];
  const { chain, mount } = record.facts;
  for (const chainId of chain?.chainIds ?? []) {
    if (chain === undefined) continue;
    const layer = layers.get(snapshotId({ chainId, format: chain.format }));
    if (layer === undefined) drift.push(`layer ${chainId} is gone`);
    for (const fault of layer?.faults ?? []) drift.push(`layer ${chainId}: ${fault.message}`);
  }
  const top = chain?.chainIds.at(-1);
  if (chain?.merged === true && top !== undefined) {
    const merge = merges.get(mergeId({ chainId: top, format: chain.format }));
    if (merge === undefined) drift.push(`the merged CIM on ${top} is gone`);
    for (const { code, message } of merge?.faults ?? [])
      if (code !== 'source-missing') drift.push(`the merged CIM on ${top}: ${message}`);
  }
  if (mount === undefined) return drift;
  if (mounted === undefined || mounted.state === 'missing')
    drift.push(`${mount.path} is not mounted any more`);
  else if (mounted.state === 'covered')
    drift.push(mounted.message ?? `something is mounted over ${mount.path}`);
  else if (mounted.chainId !== top) drift.push(`${mount.path} shows ${mounted.chainId}`);
  return drift;
}

function hasFooter(
  { facts: { chain } }: ResourceRecord,
  layers: ReadonlyMap<string, ObservedLayer>,
  merges: ReadonlyMap<string, ObservedMerge>,
): boolean {
  const chainId = chain?.chainIds.at(-1);
  if (chain === undefined || chainId === undefined) return false;
  const top = { chainId, format: chain.format };
  const shown = chain.merged === true ? merges.get(mergeId(top)) : layers.get(snapshotId(top));
  return shown?.vhdFooter === true;
}

function withDrift(
  record: ResourceRecord,
  drift: readonly string[],
  { now, isFollowed }: { now: string; isFollowed: boolean },
): Condition[] {
  const isReady = record.conditions.some(({ type, status }) => type === 'Ready' && status === 'True');
  if (drift.length === 0 || !isReady) return record.conditions;
  const { driftPolicy } = record.spec as { driftPolicy?: unknown };
  const isRepaired = isFollowed && driftPolicy !== 'Report';
  const remedy =
    driftPolicy === 'Report'
      ? 'only reported: driftPolicy is Report'
      : `${isFollowed ? 'the agent' : 'apply'} repairs it`;
  const message = `${drift.join('; ')} (${remedy})`;
  return nextConditions(
    record.conditions,
    { state: isRepaired ? 'reconciling' : 'stalled', reason: 'Drifted', message },
    record.generation,
    now,
  );
}

function statusOfRecord(record: SnapshotRecord, layer: ObservedLayer | undefined): SnapshotStatus {
  const faults = layer?.faults ?? [];
  const settled = layer === undefined ? 'missing' : faults.length > 0 ? 'damaged' : 'committed';
  return {
    ...record,
    state: record.state === 'committed' ? settled : record.state,
    bytes: layer?.bytes ?? record.bytes,
    files: layer?.files,
    rootHash: layer?.rootHash,
    vhdFooter: layer?.vhdFooter,
    faults,
  };
}

/** What somebody called the layers that they committed; of several names the first. */
function namesOfLayers(named: StateRecords['names']): ReadonlyMap<string, string> {
  const names = new Map<string, string>();
  for (const { name, kind, state, chain, format } of named) {
    const chainId = chain.at(-1);
    if (kind !== 'committed' || state !== 'ready' || chainId === undefined) continue;
    const id = snapshotId({ chainId, format });
    if (!names.has(id)) names.set(id, name);
  }
  return names;
}

/** Of no resource's making: a snapshot that somebody committed and gave a name, or a stranger. */
function statusOfUnrecorded(layer: ObservedLayer, name: string | undefined): SnapshotStatus {
  const { chainId, format, diffId, parent, bytes, files, builder, rootHash, vhdFooter, faults } = layer;
  const facts = { chainId, format, diffId, parent, bytes, files, builder, rootHash, vhdFooter, faults };
  if (name === undefined) return { ...facts, state: 'unrecorded' };
  return { ...facts, name, state: faults.length > 0 ? 'damaged' : 'committed' };
}
