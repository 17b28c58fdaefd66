/**
 * The state database of a root: intent is recorded before the host is touched, the fact after, so that whoever comes
 * after a crash knows what was being made and for whom. What is really there is the host's to say.
 */

import { join } from 'node:path';
import { CimletError } from '../errors.ts';
import type { CommittedLayer, LayerRef, MountedView, VolumeGuid } from '../hosts/host.ts';
import type { ResourceKey } from '../manifests/resources.ts';
import { type Database, openForReading, openForWriting, type Value } from './database.ts';
import { createEvents, type Events } from './events.ts';
import { createNamedSnapshots, type NamedSnapshots } from './named-snapshots.ts';
import { RecordCache } from './record-cache.ts';
import type {
  Condition,
  MountIntent,
  OutcomeRecord,
  ResourceFacts,
  ResourceIntent,
  ResourceRecord,
  SnapshotIntent,
  StateRecords,
  Suspension,
} from './records.ts';
import { suspensionOf } from './rows.ts';

export interface State extends Events {
  records(): StateRecords;
  resource(key: ResourceKey): ResourceRecord | undefined;

  /** Records what a resource asks for. Its generation grows when the spec is another one; facts stay as they are. */
  intendResource(intent: ResourceIntent): ResourceRecord;
  /** Records that the intended spec was applied in full. */
  recordApplied(key: ResourceKey, facts: ResourceFacts): void;
  /** Records facts that changed with the host, not with the spec. */
  recordFacts(key: ResourceKey, facts: ResourceFacts): void;
  setConditions(key: ResourceKey, conditions: readonly Condition[]): void;
  setHistory(key: ResourceKey, history: readonly OutcomeRecord[]): void;
  /** Records that a revision declares these again as they were applied, however many they are. */
  recordUnchanged(keys: readonly ResourceKey[], revision: string): void;
  forgetResource(key: ResourceKey): void;
  /** Keeps the configuration that an Image was applied with, a JSON document, for as long as the resource is known. */
  keepImageConfig(name: string, config: string): void;
  /** Undefined where none was kept. */
  imageConfig(name: string): string | undefined;

  intendSnapshot(intent: SnapshotIntent): void;
  recordSnapshot(layer: CommittedLayer): void;
  intendSnapshotRemoval(ref: LayerRef): void;
  forgetSnapshot(ref: LayerRef): void;

  intendMount(intent: MountIntent): void;
  recordMount(view: MountedView): void;
  intendDismount(volumeGuid: VolumeGuid): void;
  forgetMount(volumeGuid: VolumeGuid): void;

  /** Snapshots that somebody gave a name, as a tree. */
  readonly names: NamedSnapshots;

  suspensions(): Suspension[];
  /** Replaces one that is there, and records that as an event. */
  suspend(suspension: Omit<Suspension, 'since'>): void;
  /** Returns whether it was suspended; then that is an event. */
  resume(key: Suspension['key'], by: string): boolean;

  /** Whether the database was found damaged since it was opened: nothing more can be recorded. */
  readonly isDamaged: boolean;
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
  const names = createNamedSnapshots(db);
  const cache = new RecordCache(db, names);
  const write = cache.write.bind(cache);
  const writeResource = (key: ResourceKey, sql: string, ...values: Value[]) =>
    write({ resources: [splitKey(key)] }, sql, ...values);
  const writeSnapshot = (ref: LayerRef, sql: string, ...values: Value[]) =>
    write({ snapshot: [ref.chainId, ref.format] }, sql, ...values);
  const writeMount = (volumeGuid: VolumeGuid, sql: string, ...values: Value[]) =>
    write({ mount: [volumeGuid] }, sql, ...values);
  const resource: State['resource'] = (key) => cache.resource(key);
  const events = createEvents(db, (sql, ...values) => write('other', sql, ...values));

  return {
    resource,
    records: () => cache.records(),

    intendResource: (intent) => {
      const { kind, name } = intent;
      writeResource(
        `${kind}/${name}`,
        `INSERT INTO resources (kind, name, source_id, spec, spec_digest, dependencies, revision, prune,
           deletion_policy, generation, facts, conditions, created_at, updated_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 1, '{}', '[]', ?, ?)
         ON CONFLICT (kind, name) DO UPDATE SET
           generation = generation + (spec_digest <> excluded.spec_digest),
           source_id = excluded.source_id, spec = excluded.spec, spec_digest = excluded.spec_digest,
           dependencies = excluded.dependencies, revision = excluded.revision, prune = excluded.prune,
           deletion_policy = excluded.deletion_policy, updated_at = excluded.updated_at
         WHERE (source_id, spec, spec_digest, dependencies, revision, prune, deletion_policy) <>
           (excluded.source_id, excluded.spec, excluded.spec_digest, excluded.dependencies, excluded.revision,
            excluded.prune, excluded.deletion_policy)`,
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
      writeResource(
        key,
        `UPDATE resources SET applied_digest = spec_digest, applied_revision = revision, facts = ?, updated_at = ?
         WHERE kind = ? AND name = ?`,
        JSON.stringify(facts),
        now(),
        ...splitKey(key),
      ),
    recordFacts: (key, facts) =>
      writeResource(
        key,
        'UPDATE resources SET facts = ?, updated_at = ? WHERE kind = ? AND name = ?',
        JSON.stringify(facts),
        now(),
        ...splitKey(key),
      ),
    setConditions: (key, conditions) => {
      const text = JSON.stringify(conditions);
      writeResource(
        key,
        'UPDATE resources SET conditions = ?, updated_at = ? WHERE kind = ? AND name = ? AND conditions <> ?',
        text,
        now(),
        ...splitKey(key),
        text,
      );
    },
    setHistory: (key, history) =>
      writeResource(
        key,
        'UPDATE resources SET history = ? WHERE kind = ? AND name = ?',
        JSON.stringify(history),
        ...splitKey(key),
      ),
    recordUnchanged: (keys, revision) =>
      write(
        {
          resources: keys.map(splitKey),
          change: (record) => ({ ...record, revision, appliedRevision: revision }),
        },
        `UPDATE resources SET revision = ?, applied_revision = ?
         WHERE kind || '/' || name IN (SELECT value FROM json_each(?))`,
        revision,
        revision,
        JSON.stringify(keys),
      ),
    forgetResource: (key) =>
      writeResource(key, 'DELETE FROM resources WHERE kind = ? AND name = ?', ...splitKey(key)),
    keepImageConfig: (name, config) =>
      write('other', 'INSERT OR REPLACE INTO image_configs (name, config) VALUES (?, ?)', name, config),
    imageConfig: (name) => {
      const [row] = db.all('SELECT config FROM image_configs WHERE name = ?', name);
      return row === undefined ? undefined : String(row.config);
    },

    intendSnapshot: (intent) =>
      writeSnapshot(
        intent,
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
      writeSnapshot(
        layer,
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
      writeSnapshot(
        ref,
        "UPDATE snapshots SET state = 'removing' WHERE chain_id = ? AND format = ?",
        ref.chainId,
        ref.format,
      ),
    forgetSnapshot: (ref) =>
      writeSnapshot(ref, 'DELETE FROM snapshots WHERE chain_id = ? AND format = ?', ref.chainId, ref.format),

    intendMount: (intent) =>
      writeMount(
        intent.volumeGuid,
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
      writeMount(
        view.volumeGuid,
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
      writeMount(
        volumeGuid,
        "UPDATE mounts SET state = 'removing', since = ? WHERE volume_guid = ?",
        now(),
        volumeGuid,
      ),
    forgetMount: (volumeGuid) =>
      writeMount(volumeGuid, 'DELETE FROM mounts WHERE volume_guid = ?', volumeGuid),

    names,

    suspensions: () => db.all('SELECT * FROM suspensions ORDER BY key').map(suspensionOf),
    suspend: ({ key, reason, by }) =>
      db.transaction(() => {
        write(
          'other',
          'INSERT OR REPLACE INTO suspensions (key, reason, by, since) VALUES (?, ?, ?, ?)',
          key,
          reason,
          by,
          now(),
        );
        const message = `suspended by ${by}: ${reason}`;
        events.recordEvent({ key, type: 'Normal', reason: 'Suspended', message });
      }),
    resume: (key, by) =>
      db.transaction(() => {
        const known = db.all('SELECT key FROM suspensions WHERE key = ?', key).length > 0;
        write('other', 'DELETE FROM suspensions WHERE key = ?', key);
        if (known)
          events.recordEvent({ key, type: 'Normal', reason: 'Resumed', message: `resumed by ${by}` });
        return known;
      }),

    ...events,

    get isDamaged() {
      return db.isDamaged;
    },
    transaction: db.transaction,
    close: db.close,
  };
}

/** Only a resource that is recorded can be told something. */
export function requireResource(state: State, key: Suspension['key']): void {
  if (state.resource(key as ResourceKey) !== undefined) return;
  throw new CimletError('not-found', `${key} is not known on this host`, {
    hint: 'cimlet get all lists what is',
  });
}

function splitKey(key: ResourceKey): [string, string] {
  const slash = key.indexOf('/');
  return [key.slice(0, slash), key.slice(slash + 1)];
}
