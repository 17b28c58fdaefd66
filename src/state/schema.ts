/** The state database's schema: one migration per version; `PRAGMA user_version` counts those done. */

export const MIGRATIONS: readonly string[] = [
  `
  CREATE TABLE resources (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    source_id TEXT NOT NULL,
    spec TEXT NOT NULL,
    spec_digest TEXT NOT NULL,
    dependencies TEXT NOT NULL,
    revision TEXT NOT NULL,
    prune INTEGER NOT NULL,
    deletion_policy TEXT NOT NULL,
    generation INTEGER NOT NULL,
    applied_digest TEXT,
    applied_revision TEXT,
    facts TEXT NOT NULL,
    conditions TEXT NOT NULL,
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    PRIMARY KEY (kind, name)
  ) STRICT, WITHOUT ROWID;

  CREATE TABLE snapshots (
    chain_id TEXT NOT NULL,
    format TEXT NOT NULL,
    parent TEXT,
    diff_id TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('intended', 'committed', 'removing')),
    needed_by TEXT,
    bytes INTEGER NOT NULL,
    builder TEXT,
    created_at TEXT NOT NULL,
    committed_at TEXT,
    PRIMARY KEY (chain_id, format)
  ) STRICT, WITHOUT ROWID;

  CREATE TABLE mounts (
    volume_guid TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    path TEXT NOT NULL,
    chain_id TEXT NOT NULL,
    format TEXT NOT NULL,
    view TEXT NOT NULL,
    access TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('intended', 'mounted', 'removing')),
    since TEXT NOT NULL
  ) STRICT, WITHOUT ROWID;

  CREATE TABLE events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL,
    type TEXT NOT NULL,
    reason TEXT NOT NULL,
    message TEXT NOT NULL,
    count INTEGER NOT NULL,
    first_time TEXT NOT NULL,
    last_time TEXT NOT NULL,
    UNIQUE (key, type, reason, message)
  ) STRICT;
  CREATE INDEX events_by_key ON events (key, last_time);
  `,
  `
  CREATE TABLE suspensions (
    key TEXT NOT NULL PRIMARY KEY,
    reason TEXT NOT NULL,
    by TEXT NOT NULL,
    since TEXT NOT NULL
  ) STRICT, WITHOUT ROWID;
  `,
  `
  ALTER TABLE resources ADD COLUMN history TEXT NOT NULL DEFAULT '[]';
  ALTER TABLE events ADD COLUMN seq INTEGER NOT NULL DEFAULT 0;
  UPDATE events SET seq = id;
  CREATE INDEX events_by_seq ON events (seq);
  CREATE TABLE receivers (
    name TEXT NOT NULL PRIMARY KEY,
    told INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID;
  `,
  `
  CREATE TABLE named_snapshots (
    name TEXT NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('active', 'view', 'committed')),
    parent TEXT,
    format TEXT NOT NULL,
    chain TEXT NOT NULL,
    scratch TEXT,
    labels TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('preparing', 'committing', 'ready', 'removing')),
    source TEXT,
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX named_snapshots_by_parent ON named_snapshots (parent);
  `,
  `
  CREATE TABLE image_configs (
    name TEXT NOT NULL PRIMARY KEY,
    config TEXT NOT NULL
  ) STRICT, WITHOUT ROWID;
  CREATE TRIGGER image_config_forgotten AFTER DELETE ON resources WHEN OLD.kind = 'Image'
    BEGIN DELETE FROM image_configs WHERE name = OLD.name; END;
  `,
];
