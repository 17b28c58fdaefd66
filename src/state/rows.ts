/** Rows of the state database as the records they keep. */

import type { ResourceKey } from '../manifests/resources.ts';
import type { Row, Value } from './database.ts';
import type {
  Condition,
  EventRecord,
  MountRecord,
  OutcomeRecord,
  ResourceFacts,
  ResourceRecord,
  SnapshotRecord,
  Suspension,
} from './records.ts';

function optional(value: Value | undefined): string | undefined {
  return value === null || value === undefined ? undefined : String(value);
}

export function resourceOf(row: Row): ResourceRecord {
  return {
    kind: row.kind as ResourceRecord['kind'],
    name: String(row.name),
    sourceId: String(row.source_id),
    spec: JSON.parse(String(row.spec)),
    specDigest: String(row.spec_digest),
    dependencies: JSON.parse(String(row.dependencies)) as ResourceKey[],
    revision: String(row.revision),
    prune: row.prune === 1,
    deletionPolicy: row.deletion_policy as ResourceRecord['deletionPolicy'],
    generation: Number(row.generation),
    appliedDigest: optional(row.applied_digest),
    appliedRevision: optional(row.applied_revision),
    facts: JSON.parse(String(row.facts)) as ResourceFacts,
    conditions: JSON.parse(String(row.conditions)) as Condition[],
    history: JSON.parse(String(row.history)) as OutcomeRecord[],
    createdAt: String(row.created_at),
    updatedAt: String(row.updated_at),
  };
}

export function snapshotOf(row: Row): SnapshotRecord {
  return {
    chainId: row.chain_id as SnapshotRecord['chainId'],
    format: row.format as SnapshotRecord['format'],
    diffId: row.diff_id as SnapshotRecord['diffId'],
    parent: optional(row.parent) as SnapshotRecord['parent'],
    neededBy: optional(row.needed_by) as SnapshotRecord['neededBy'],
    state: row.state as SnapshotRecord['state'],
    bytes: Number(row.bytes),
    builder: optional(row.builder),
    createdAt: String(row.created_at),
    committedAt: optional(row.committed_at),
  };
}

export function mountOf(row: Row): MountRecord {
  return {
    volumeGuid: row.volume_guid as MountRecord['volumeGuid'],
    name: String(row.name),
    path: String(row.path),
    chainId: row.chain_id as MountRecord['chainId'],
    format: row.format as MountRecord['format'],
    view: row.view as MountRecord['view'],
    access: row.access as MountRecord['access'],
    state: row.state as MountRecord['state'],
    since: String(row.since),
  };
}

export function suspensionOf(row: Row): Suspension {
  return {
    key: row.key as Suspension['key'],
    reason: String(row.reason),
    by: String(row.by),
    since: String(row.since),
  };
}

export function eventOf(row: Row): EventRecord {
  return {
    key: String(row.key),
    type: row.type as EventRecord['type'],
    reason: String(row.reason),
    message: String(row.message),
    count: Number(row.count),
    firstTime: String(row.first_time),
    lastTime: String(row.last_time),
  };
}
