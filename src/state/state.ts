/**
 * The state database of a root: intent is recorded before the host is touched, the fact after, so that whoever comes
 * after a crash knows what was being made and for whom. What is really there is the host's to say.
 */

import { join } from 'node:path';
import { CimletError } from '../errors.ts';
import type { CommittedLayer, LayerRef, MountedView, VolumeGuid } from '../hosts/host.ts';
import type { ResourceKey } from '../manifests/resources.ts';
import { type Database, openForReading, openForWriting, type Row, type Value } from './database.ts';
import type {
  Condition,
  EventRecord,
  MountIntent,
  MountRecord,
  ResourceFacts,
  ResourceIntent,
  ResourceRecord,
  SnapshotIntent,
  SnapshotRecord,
  StateRecords,
  Suspension,
} from './records.ts';

/** More events than this are forgotten, oldest first. */
const EVENTS_KEPT = 5000;
/** How often the cap is enforced, in events. */
const EVENTS_TRIM_EVERY = 200;

export interface State {
  records(): StateRecords;
  resource(key: ResourceKey): ResourceRecord | undefined;

  /** Records what a resource asks for. Its generation grows when the spec is another one; facts stay as they are. */
  intendResource(intent: ResourceIntent): ResourceRecord;
  /** Records that the intended spec was applied in full. */
  recordApplied(key: ResourceKey, facts: ResourceFacts): void;
  /** Records facts that changed with the host, not with the spec. */
  recordFacts(key: ResourceKey, facts: ResourceFacts): void;
  setConditions(key: ResourceKey, conditions: readonly Condition[]): void;
  forgetResource(key: ResourceKey): void;

  intendSnapshot(intent: SnapshotIntent): void;
  recordSnapshot(layer: CommittedLayer): void;
  intendSnapshotRemoval(ref: LayerRef): void;
  forgetSnapshot(ref: LayerRef): void;

  intendMount(intent: MountIntent): void;
  recordMount(view: MountedView): void;
  intendDismount(volumeGuid: VolumeGuid): void;
  forgetMount(volumeGuid: VolumeGuid): void;

  suspensions(): Suspension[];
  /** Replaces one that is there. */
  suspend(suspension: Omit<Suspension, 'since'>): void;
  /** Returns whether it was suspended. */
  resume(key: ResourceKey): boolean;

  /** The same event again only counts up. */
  recordEvent(event: Pick<EventRecord, 'key' | 'type' | 'reason' | 'message'>): void;
  /** Latest first. */
  events(key?: string): EventRecord[];

  /** Runs `body` as one transaction; nested ones join the outer. */
  transaction<T>(body: () => T): T;
  close(): void;
}

/**
 * Opens the state of `root`. `readOnly` writes nothing at all in the root and sees an empty state where there is none;
 * it sees the moment of opening. Throws `corrupt` for a damaged database.
 */
export function openState(root: string, options: { readOnly: boolean }): State {
  const file = join(root, 'state.db');
  const db = options.readOnly ? openForReading(file) : openForWriting(file);
  return createState(db);
}

function createState(db: Database): State {
  const now = () => new Date().toISOString();
  /** The first one trims: a process may end before it has recorded as many. */
  let eventsSinceTrim = EVENTS_TRIM_EVERY - 1;

  const resource = (key: ResourceKey): ResourceRecord | undefined => {
    const row = db.all('SELECT * FROM resources WHERE kind = ? AND name = ?', ...splitKey(key))[0];
    return row === undefined ? undefined : resourceOf(row);
  };

  return {
    resource,
    records: () => ({
      resources: db.all('SELECT * FROM resources ORDER BY kind, name').map(resourceOf),
      snapshots: db.all('SELECT * FROM snapshots ORDER BY chain_id, format').map(snapshotOf),
      mounts: db.all('SELECT * FROM mounts ORDER BY name').map(mountOf),
    }),

    intendResource: (intent) => {
      const { kind, name } = intent;
      db.run(
        `INSERT INTO resources (kind, name, source_id, spec, spec_digest, dependencies, revision, prune,
           deletion_policy, generation, facts, conditions, created_at, updated_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 1, '{}', '[]', ?, ?)
         ON CONFLICT (kind, name) DO UPDATE SET
           generation = generation + (spec_digest <> excluded.spec_digest),
           source_id = excluded.source_id, spec = excluded.spec, spec_digest = excluded.spec_digest,
           dependencies = excluded.dependencies, revision = excluded.revision, prune = excluded.prune,
           deletion_policy = excluded.deletion_policy, updated_at = excluded.updated_at`,
        kind,
        name,
        intent.sourceId,
        JSON.stringify(intent.spec),
        intent.specDigest,
        JSON.stringify(intent.dependencies),
        intent.revision,
        intent.prune ? 1 : 0,
        intent.deletionPolicy,
        now(),
        now(),
      );
      const record = resource(`${kind}/${name}`);
      if (record === undefined) throw new Error(`resource ${kind}/${name} vanished while it was recorded`);
      return record;
    },
    recordApplied: (key, facts) =>
      db.run(
        `UPDATE resources SET applied_digest = spec_digest, applied_revision = revision, facts = ?, updated_at = ?
         WHERE kind = ? AND name = ?`,
        JSON.stringify(facts),
        now(),
        ...splitKey(key),
      ),
    recordFacts: (key, facts) =>
      db.run(
        'UPDATE resources SET facts = ?, updated_at = ? WHERE kind = ? AND name = ?',
        JSON.stringify(facts),
        now(),
        ...splitKey(key),
      ),
    setConditions: (key, conditions) =>
      db.run(
        'UPDATE resources SET conditions = ?, updated_at = ? WHERE kind = ? AND name = ?',
        JSON.stringify(conditions),
        now(),
        ...splitKey(key),
      ),
    forgetResource: (key) => db.run('DELETE FROM resources WHERE kind = ? AND name = ?', ...splitKey(key)),

    intendSnapshot: (intent) =>
      db.run(
        `INSERT INTO snapshots (chain_id, format, parent, diff_id, state, needed_by, bytes, created_at)
         VALUES (?, ?, ?, ?, 'intended', ?, 0, ?)
         ON CONFLICT (chain_id, format) DO UPDATE SET state = 'intended', parent = excluded.parent,
           diff_id = excluded.diff_id, needed_by = excluded.needed_by`,
        intent.chainId,
        intent.format,
        intent.parent ?? null,
        intent.diffId,
        intent.neededBy ?? null,
        now(),
      ),
    recordSnapshot: (layer) =>
      db.run(
        `INSERT INTO snapshots (chain_id, format, parent, diff_id, state, bytes, builder, created_at, committed_at)
         VALUES (?, ?, ?, ?, 'committed', ?, ?, ?, ?)
         ON CONFLICT (chain_id, format) DO UPDATE SET state = 'committed', parent = excluded.parent,
           diff_id = excluded.diff_id, bytes = excluded.bytes, builder = excluded.builder,
           committed_at = excluded.committed_at`,
        layer.chainId,
        layer.format,
        layer.parent ?? null,
        layer.diffId,
        layer.bytes,
        layer.builder,
        now(),
        now(),
      ),
    intendSnapshotRemoval: (ref) =>
      db.run(
        "UPDATE snapshots SET state = 'removing' WHERE chain_id = ? AND format = ?",
        ref.chainId,
        ref.format,
      ),
    forgetSnapshot: (ref) =>
      db.run('DELETE FROM snapshots WHERE chain_id = ? AND format = ?', ref.chainId, ref.format),

    intendMount: (intent) =>
      db.run(
        `INSERT INTO mounts (volume_guid, name, path, chain_id, format, view, access, state, since)
         VALUES (?, ?, ?, ?, ?, ?, ?, 'intended', ?)
         ON CONFLICT (volume_guid) DO UPDATE SET name = excluded.name, path = excluded.path,
           chain_id = excluded.chain_id, format = excluded.format, view = excluded.view, access = excluded.access,
           state = 'intended', since = excluded.since`,
        intent.volumeGuid,
        intent.name,
        intent.path,
        intent.chainId,
        intent.format,
        intent.view,
        intent.access,
        now(),
      ),
    recordMount: (view) =>
      db.run(
        `UPDATE mounts SET path = ?, chain_id = ?, format = ?, view = ?, access = ?, state = 'mounted',
           since = CASE state WHEN 'mounted' THEN since ELSE ? END
         WHERE volume_guid = ?`,
        view.path,
        view.chainId,
        view.format,
        view.view,
        view.access,
        now(),
        view.volumeGuid,
      ),
    intendDismount: (volumeGuid) =>
      db.run("UPDATE mounts SET state = 'removing', since = ? WHERE volume_guid = ?", now(), volumeGuid),
    forgetMount: (volumeGuid) => db.run('DELETE FROM mounts WHERE volume_guid = ?', volumeGuid),

    suspensions: () => db.all('SELECT * FROM suspensions ORDER BY key').map(suspensionOf),
    suspend: ({ key, reason, by }) =>
      db.run(
        'INSERT OR REPLACE INTO suspensions (key, reason, by, since) VALUES (?, ?, ?, ?)',
        key,
        reason,
        by,
        now(),
      ),
    resume: (key) =>
      db.transaction(() => {
        const known = db.all('SELECT key FROM suspensions WHERE key = ?', key).length > 0;
        db.run('DELETE FROM suspensions WHERE key = ?', key);
        return known;
      }),

    recordEvent: (event) => {
      db.run(
        `INSERT INTO events (key, type, reason, message, count, first_time, last_time) VALUES (?, ?, ?, ?, 1, ?, ?)
         ON CONFLICT (key, type, reason, message) DO UPDATE SET count = count + 1, last_time = excluded.last_time`,
        event.key,
        event.type,
        event.reason,
        event.message,
        now(),
        now(),
      );
      if (++eventsSinceTrim < EVENTS_TRIM_EVERY) return;
      eventsSinceTrim = 0;
      db.run(
        'DELETE FROM events WHERE id IN (SELECT id FROM events ORDER BY last_time DESC, id DESC LIMIT -1 OFFSET ?)',
        EVENTS_KEPT,
      );
    },
    events: (key) =>
      (key === undefined
        ? db.all('SELECT * FROM events ORDER BY last_time DESC, id DESC')
        : db.all('SELECT * FROM events WHERE key = ? ORDER BY last_time DESC, id DESC', key)
      ).map(eventOf),

    transaction: db.transaction,
    close: db.close,
  };
}

/** Only a resource that is recorded can be told something. */
export function requireResource(state: State, key: ResourceKey): void {
  if (state.resource(key) !== undefined) return;
  throw new CimletError('not-found', `${key} is not known on this host`, {
    hint: 'cimlet get all lists what is',
  });
}

function splitKey(key: ResourceKey): [string, string] {
  const slash = key.indexOf('/');
  return [key.slice(0, slash), key.slice(slash + 1)];
}

function optional(value: Value | undefined): string | undefined {
  return value === null || value === undefined ? undefined : String(value);
}

function resourceOf(row: Row): ResourceRecord {
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
    createdAt: String(row.created_at),
    updatedAt: String(row.updated_at),
  };
}

function snapshotOf(row: Row): SnapshotRecord {
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

function mountOf(row: Row): MountRecord {
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

function suspensionOf(row: Row): Suspension {
  return {
    key: row.key as ResourceKey,
    reason: String(row.reason),
    by: String(row.by),
    since: String(row.since),
  };
}

function eventOf(row: Row): EventRecord {
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
