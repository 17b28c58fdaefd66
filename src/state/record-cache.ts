/**
 * What is recorded, kept in memory: thousands of rows, asked for several times a round, of which a round changes few. Only
 * rows that were written since are read again.
 */

import type { ResourceKey } from '../manifests/resources.ts';
import type { Database, Row, Value } from './database.ts';
import type { NamedSnapshots } from './named-snapshots.ts';
import type { ResourceRecord, StateRecords } from './records.ts';
import { mountOf, resourceOf, snapshotOf } from './rows.ts';

/** A table whose rows are kept, and how one of them is named. */
interface Table<T> {
  all: string;
  one: string;
  recordOf: (row: Row) => T;
  keyOf: (record: T) => readonly string[];
  /** What `all` orders by. */
  orderOf: (record: T) => readonly string[];
}

const RESOURCES: Table<ResourceRecord> = {
  all: 'SELECT * FROM resources ORDER BY kind, name',
  one: 'SELECT * FROM resources WHERE kind = ? AND name = ?',
  recordOf: resourceOf,
  keyOf: ({ kind, name }) => [kind, name],
  orderOf: ({ kind, name }) => [kind, name],
};
const SNAPSHOTS: Table<StateRecords['snapshots'][number]> = {
  all: 'SELECT * FROM snapshots ORDER BY chain_id, format',
  one: 'SELECT * FROM snapshots WHERE chain_id = ? AND format = ?',
  recordOf: snapshotOf,
  keyOf: ({ chainId, format }) => [chainId, format],
  orderOf: ({ chainId, format }) => [chainId, format],
};
const MOUNTS: Table<StateRecords['mounts'][number]> = {
  all: 'SELECT * FROM mounts ORDER BY name',
  one: 'SELECT * FROM mounts WHERE volume_guid = ?',
  recordOf: mountOf,
  keyOf: ({ volumeGuid }) => [volumeGuid],
  orderOf: ({ name }) => [name],
};

/** Rows that a write may change: those with these keys, or, without a key, none that is kept here. */
export type Written =
  | {
      resources: readonly (readonly [kind: string, name: string])[];
      /** What it makes of each, where that can be told: spares reading them again. */
      change?: (record: ResourceRecord) => ResourceRecord;
    }
  | { snapshot: readonly [chainId: string, format: string] }
  | { mount: readonly [volumeGuid: string] }
  | 'other';

export class RecordCache {
  readonly #db: Database;
  readonly #names: NamedSnapshots;
  readonly #resources: KeptRows<ResourceRecord>;
  readonly #snapshots: KeptRows<StateRecords['snapshots'][number]>;
  readonly #mounts: KeptRows<StateRecords['mounts'][number]>;
  /** Of the database when all that is kept was right, but for rows that are known to be out of date. */
  #changes: number | undefined;
  #records: StateRecords | undefined;

  constructor(db: Database, names: NamedSnapshots) {
    this.#db = db;
    this.#names = names;
    this.#resources = new KeptRows(db, RESOURCES);
    this.#snapshots = new KeptRows(db, SNAPSHOTS);
    this.#mounts = new KeptRows(db, MOUNTS);
  }

  /** What is returned never changes. */
  records(): StateRecords {
    this.#checkWrites();
    if (this.#records !== undefined) return this.#records;
    const records = {
      resources: this.#resources.all(),
      snapshots: this.#snapshots.all(),
      mounts: this.#mounts.all(),
      names: this.#names.all(),
    };
    if (!this.#db.isTransaction) this.#records = records;
    return records;
  }

  resource(key: ResourceKey): ResourceRecord | undefined {
    this.#checkWrites();
    const slash = key.indexOf('/');
    return this.#resources.one([key.slice(0, slash), key.slice(slash + 1)]);
  }

  /** Runs a statement that changes no other rows than these of the tables kept here. */
  write(written: Written, sql: string, ...values: Value[]): void {
    this.#checkWrites();
    this.#db.run(sql, ...values);
    this.#changes = this.#db.changes();
    if (written === 'other') return;
    this.#records = undefined;
    if ('resources' in written)
      for (const key of written.resources) this.#resources.touch(key, written.change);
    else if ('snapshot' in written) this.#snapshots.touch(written.snapshot);
    else this.#mounts.touch(written.mount);
  }

  /** Forgets everything when somebody has written past this. */
  #checkWrites(): void {
    const changes = this.#db.changes();
    if (changes === this.#changes) return;
    this.#changes = changes;
    this.#records = undefined;
    for (const rows of [this.#resources, this.#snapshots, this.#mounts]) rows.forget();
  }
}

/** The rows of one table, in its order. */
class KeptRows<T> {
  readonly #db: Database;
  readonly #table: Table<T>;
  #kept: Map<string, T> | undefined;
  /** What is kept, as long as none of it is written. */
  #list: readonly T[] | undefined;
  /** Keys of rows that were written since they were read. */
  readonly #stale = new Map<string, readonly string[]>();

  constructor(db: Database, table: Table<T>) {
    this.#db = db;
    this.#table = table;
  }

  forget(): void {
    this.#kept = undefined;
    this.#list = undefined;
    this.#stale.clear();
  }

  /** This row was written; `change` tells what it is now. */
  touch(key: readonly string[], change?: (record: T) => T): void {
    const name = nameOf(key);
    this.#list = undefined;
    const record = this.#stale.has(name) ? undefined : this.#kept?.get(name);
    if (record !== undefined && change !== undefined && !this.#db.isTransaction)
      this.#kept?.set(name, change(record));
    else if (this.#kept !== undefined) this.#stale.set(name, key);
  }

  one(key: readonly string[]): T | undefined {
    const name = nameOf(key);
    if (this.#kept !== undefined && !this.#stale.has(name)) return this.#kept.get(name);
    return this.#read(key);
  }

  /** The very same list when no row was written since. */
  all(): readonly T[] {
    // What a transaction has written may still be taken back.
    if (this.#db.isTransaction && (this.#kept === undefined || this.#stale.size > 0))
      return [...this.#readAll().values()];
    this.#kept ??= this.#readAll();
    if (this.#stale.size > 0) this.#kept = this.#refreshed(this.#kept);
    this.#stale.clear();
    this.#list ??= [...this.#kept.values()];
    return this.#list;
  }

  #refreshed(kept: Map<string, T>): Map<string, T> {
    let isOrdered = true;
    for (const [name, key] of this.#stale) {
      const record = this.#read(key);
      if (record === undefined) kept.delete(name);
      else {
        isOrdered &&= kept.has(name);
        kept.set(name, record);
      }
    }
    const { orderOf } = this.#table;
    return isOrdered ? kept : new Map([...kept].sort(([, a], [, b]) => compareAll(orderOf(a), orderOf(b))));
  }

  #readAll(): Map<string, T> {
    const { all, recordOf, keyOf } = this.#table;
    return new Map(
      this.#db.all(all).map((row) => {
        const record = recordOf(row);
        return [nameOf(keyOf(record)), record];
      }),
    );
  }

  #read(key: readonly string[]): T | undefined {
    const { one, recordOf } = this.#table;
    return this.#db.all(one, ...key).map(recordOf)[0];
  }
}

function compareAll(a: readonly string[], b: readonly string[]): number {
  const index = a.findIndex((part, at) => part !== b[at]);
  return index < 0 ? 0 : (a[index] ?? '') < (b[index] ?? '') ? -1 : 1;
}

function nameOf(key: readonly string[]): string {
  return key.join('/');
}
