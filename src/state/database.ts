/**
 * The one file that knows node:sqlite: opens databases for writing, for reading without leaving a trace, and as a lock,
 * and gives SQLite's result codes (https://sqlite.org/rescode.html) their class.
 */

import { copyFileSync, mkdtempSync, renameSync, rmSync, type Stats, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { pathToFileURL } from 'node:url';
import { CimletError, classify, type ErrorCode, isErrorCode } from '../errors.ts';
import { MIGRATIONS } from './schema.ts';

export type Value = string | number | null;
export type Row = Record<string, Value>;

export interface Database {
  run(sql: string, ...values: Value[]): void;
  all(sql: string, ...values: Value[]): Row[];
  transaction<T>(body: () => T): T;
  /** Grows whenever a row changes: what was read at the same count is what is there. */
  changes(): number;
  /** Whether SQLite found it damaged since it was opened. */
  readonly isDamaged: boolean;
  /** Whether a transaction is under way, which may still be taken back, though not its count. */
  readonly isTransaction: boolean;
  close(): void;
}

const RESULT_CODES: Record<number, ErrorCode> = {
  3: 'access-denied', // PERM
  5: 'busy',
  6: 'busy', // LOCKED
  8: 'access-denied', // READONLY
  10: 'native', // IOERR
  11: 'corrupt',
  13: 'no-space', // FULL
  14: 'access-denied', // CANTOPEN
  23: 'access-denied', // AUTH
  26: 'corrupt', // NOTADB
};

const HINTS: Partial<Record<ErrorCode, string>> = {
  'access-denied': 'choose another --root, or run with the right to write there',
  'no-space': 'free space on that file system, or choose another --root',
};

const READ_ATTEMPTS = 5;

/** Opens `file` for writing (made when missing), in WAL mode, migrated to the newest schema. */
export function openForWriting(file: string): Database {
  return guarded(file, 'open', () => {
    const sqlite = new DatabaseSync(file, { timeout: 5000 });
    try {
      sqlite.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON');
      migrate(sqlite, file);
    } catch (error) {
      sqlite.close();
      throw error;
    }
    return wrap(sqlite, file);
  });
}

/**
 * Opens what `file` holds now for reading and writes nothing beside it: immutable when nobody writes to it, else a
 * private copy of the database and its log. A missing file reads as an empty database.
 */
export function openForReading(file: string): Database {
  if (sizeOf(file) === undefined) return openEmpty(file);
  if (sizeOf(`${file}-wal`) !== undefined) return openCopy(file);
  const database = guarded(file, 'open', () => {
    const url = pathToFileURL(file);
    url.searchParams.set('immutable', '1');
    return wrap(new DatabaseSync(url, { readOnly: true }), file);
  });
  try {
    if (schemaVersion(database) === MIGRATIONS.length) return database;
  } catch (error) {
    database.close();
    throw error;
  }
  database.close();
  return openCopy(file);
}

/** Throws `corrupt` when SQLite finds anything wrong in it. Reads all of it. */
export function checkIntegrity(database: Database, file: string): void {
  const [first] = database.all('PRAGMA quick_check(1)');
  const found = Object.values(first ?? {})[0];
  if (found !== 'ok') throw corrupt(file, String(found));
}

/** Renames a database that is open nowhere, log and all. Returns its new name. */
export function setDatabaseAside(file: string): string {
  const time = new Date().toISOString().replaceAll(/[:.]/g, '-');
  const aside = `${file}.damaged-${time}`;
  for (const suffix of ['', '-wal', '-shm']) {
    if (sizeOf(`${file}${suffix}`) !== undefined) renameSync(`${file}${suffix}`, `${aside}${suffix}`);
  }
  return aside;
}

/** Takes an exclusive lock on `file` that the kernel lets go when this process ends, however it ends; `busy` if held. */
export function openExclusive(file: string): Database {
  return guarded(file, 'lock', () => {
    const sqlite = new DatabaseSync(file, { timeout: 0 });
    try {
      sqlite.exec('PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE');
    } catch (error) {
      sqlite.close();
      throw error;
    }
    return wrap(sqlite, file);
  });
}

function openEmpty(file: string): Database {
  return guarded(file, 'open', () => {
    const sqlite = new DatabaseSync(':memory:');
    migrate(sqlite, file);
    return wrap(sqlite, file);
  });
}

function openCopy(file: string): Database {
  const directory = mkdtempSync(join(tmpdir(), 'cimlet-state-copy-'));
  const remove = () => rmSync(directory, { recursive: true, force: true });
  try {
    const copy = join(directory, basename(file));
    copyConsistently(file, copy);
    const database = openForWriting(copy);
    const { close } = database;
    database.close = () => {
      close();
      remove();
    };
    return database;
  } catch (error) {
    remove();
    if (isErrorCode(error, 'corrupt')) throw corrupt(file, error.message, error);
    throw error;
  }
}

/** A writer may move its log into the database meanwhile; then the two files don't belong together: look again. */
function copyConsistently(file: string, copy: string): void {
  const log = `${file}-wal`;
  for (let attempt = 0; attempt < READ_ATTEMPTS; attempt++) {
    const before = `${fingerprint(file)} ${fingerprint(log)}`;
    copyFile(file, copy);
    if (sizeOf(log) !== undefined) copyFile(log, `${copy}-wal`);
    if (`${fingerprint(file)} ${fingerprint(log)}` === before) return;
    rmSync(`${copy}-wal`, { force: true });
  }
  throw new CimletError('busy', `read state database ${file}: it kept changing while it was read`, {
    hint: 'try again when the agent using this root is less busy',
  });
}

function copyFile(from: string, to: string): void {
  try {
    copyFileSync(from, to);
  } catch (error) {
    // A log that vanishes has just been moved into the database: the caller notices and copies again.
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT')
      throw classify(error, `read state database ${from}`);
  }
}

function fingerprint(file: string): string {
  const stats = statOf(file);
  return stats === undefined ? 'none' : `${stats.ino}:${stats.size}:${stats.mtimeMs}`;
}

function sizeOf(file: string): number | undefined {
  return statOf(file)?.size;
}

function statOf(file: string): Stats | undefined {
  try {
    return statSync(file, { throwIfNoEntry: false });
  } catch (error) {
    throw classify(error, `look at state database ${file}`);
  }
}

function migrate(sqlite: DatabaseSync, file: string): void {
  const found = Number(sqlite.prepare('PRAGMA user_version').get()?.user_version);
  if (found > MIGRATIONS.length) {
    throw new CimletError(
      'failed-precondition',
      `open state database ${file}: its schema version ${found} is newer than ${MIGRATIONS.length}, the newest known here`,
      { hint: 'use the cimlet release that wrote it, or a newer one' },
    );
  }
  for (let version = found; version < MIGRATIONS.length; version++) {
    sqlite.exec(`BEGIN IMMEDIATE; ${MIGRATIONS[version]}; PRAGMA user_version = ${version + 1}; COMMIT`);
  }
}

function schemaVersion(database: Database): number {
  return Number(database.all('PRAGMA user_version')[0]?.user_version);
}

function wrap(sqlite: DatabaseSync, file: string): Database {
  const statements = new Map<string, ReturnType<DatabaseSync['prepare']>>();
  const statement = (sql: string) => {
    let known = statements.get(sql);
    if (known === undefined) {
      known = sqlite.prepare(sql);
      statements.set(sql, known);
    }
    return known;
  };
  let depth = 0;
  let isDamaged = false;
  const watched = <T>(operation: string, body: () => T): T => {
    try {
      return guarded(file, operation, body);
    } catch (error) {
      isDamaged ||= isErrorCode(error, 'corrupt');
      throw error;
    }
  };
  return {
    run: (sql, ...values) => watched('write', () => void statement(sql).run(...values)),
    all: (sql, ...values) => watched('read', () => statement(sql).all(...values) as Row[]),
    transaction: (body) => {
      if (depth > 0) return body();
      watched('write', () => sqlite.exec('BEGIN IMMEDIATE'));
      depth++;
      try {
        const result = body();
        watched('write', () => sqlite.exec('COMMIT'));
        return result;
      } catch (error) {
        if (sqlite.isTransaction) sqlite.exec('ROLLBACK');
        throw error;
      } finally {
        depth--;
      }
    },
    changes: () => Number(statement('SELECT total_changes() AS changes').get()?.changes),
    get isDamaged() {
      return isDamaged;
    },
    get isTransaction() {
      return depth > 0;
    },
    close: () => {
      if (sqlite.isOpen) sqlite.close();
    },
  };
}

function guarded<T>(file: string, operation: string, body: () => T): T {
  try {
    return body();
  } catch (error) {
    const resultCode = (error as { errcode?: unknown }).errcode;
    if (!(error instanceof Error) || typeof resultCode !== 'number') throw error;
    const code = RESULT_CODES[resultCode & 0xff];
    if (code === undefined) throw error;
    if (code === 'corrupt') throw corrupt(file, error.message, error);
    throw new CimletError(code, `${operation} state database ${file}: ${error.message}`, {
      hint: HINTS[code],
      cause: error,
    });
  }
}

function corrupt(file: string, why: string, cause?: Error): CimletError {
  return new CimletError('corrupt', `open state database ${file}: ${why.replace(/^.*: /, '')}`, {
    hint: `move ${file} away and apply again: layers and mounts are found again on the host`,
    cause,
  });
}
