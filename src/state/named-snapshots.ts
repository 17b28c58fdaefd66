/** The tree of snapshots that somebody gave a name. What each holds is the host's. */

import type { ChainId, LayerFormat, ScratchOptions } from '../hosts/host.ts';
import type { Database, Row, Value } from './database.ts';

export interface NamedSnapshot {
  name: string;
  kind: 'active' | 'view' | 'committed';
  /** Name of a committed one, or the chain ID of a layer that nobody gave a name. */
  parent?: string | undefined;
  format: LayerFormat;
  /** Layers below, base first; with its own on top once it is committed. */
  chain: ChainId[];
  scratch?: ScratchOptions | undefined;
  labels: Record<string, string>;
  /** Anything but `ready` was intended, and may be half done. */
  state: 'preparing' | 'committing' | 'ready' | 'removing';
  /** Of what is being committed: name of the active one that it is made of. */
  source?: string | undefined;
  /** ISO 8601. */
  createdAt: string;
  updatedAt: string;
}

export type NamedSnapshotIntent = Omit<NamedSnapshot, 'createdAt' | 'updatedAt'>;

export interface NamedSnapshots {
  get(name: string): NamedSnapshot | undefined;
  /** In the order of their names. */
  all(): NamedSnapshot[];
  children(name: string): string[];
  /** Adds one, or replaces what is there but the time it was made. */
  put(snapshot: NamedSnapshotIntent): void;
  forget(name: string): void;
}

export function createNamedSnapshots(db: Database): NamedSnapshots {
  const now = () => new Date().toISOString();
  return {
    get: (name) => db.all('SELECT * FROM named_snapshots WHERE name = ?', name).map(snapshotOf)[0],
    all: () => db.all('SELECT * FROM named_snapshots ORDER BY name').map(snapshotOf),
    children: (name) =>
      db
        .all('SELECT name FROM named_snapshots WHERE parent = ? ORDER BY name', name)
        .map((row) => String(row.name)),
    put: ({ name, kind, parent, format, chain, scratch, labels, state, source }) =>
      db.run(
        `INSERT INTO named_snapshots
           (name, kind, parent, format, chain, scratch, labels, state, source, created_at, updated_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (name) DO UPDATE SET
           kind = excluded.kind, parent = excluded.parent, format = excluded.format, chain = excluded.chain,
           scratch = excluded.scratch, labels = excluded.labels, state = excluded.state,
           source = excluded.source, updated_at = excluded.updated_at`,
        name,
        kind,
        parent ?? null,
        format,
        JSON.stringify(chain),
        scratch === undefined ? null : JSON.stringify(scratch),
        JSON.stringify(labels),
        state,
        source ?? null,
        now(),
        now(),
      ),
    forget: (name) => db.run('DELETE FROM named_snapshots WHERE name = ?', name),
  };
}

function snapshotOf(row: Row): NamedSnapshot {
  const optional = (value: Value | undefined) =>
    value === null || value === undefined ? undefined : String(value);
  const scratch = optional(row.scratch);
  return {
    name: String(row.name),
    kind: row.kind as NamedSnapshot['kind'],
    parent: optional(row.parent),
    format: row.format as LayerFormat,
    chain: JSON.parse(String(row.chain)) as ChainId[],
    scratch: scratch === undefined ? undefined : (JSON.parse(scratch) as ScratchOptions),
    labels: JSON.parse(String(row.labels)) as Record<string, string>,
    state: row.state as NamedSnapshot['state'],
    source: optional(row.source),
    createdAt: String(row.created_at),
    updatedAt: String(row.updated_at),
  };
}
