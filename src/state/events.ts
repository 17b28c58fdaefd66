/** The log of what happened, of bounded length, and who was told of it. */

import type { Database, Value } from './database.ts';
import type { EventRecord, News } from './records.ts';
import { eventOf } from './rows.ts';

/** More events than this are forgotten, oldest first. */
const EVENTS_KEPT = 5000;
/** How often the cap is enforced, in events. */
const EVENTS_TRIM_EVERY = 200;
/** An event that happens again after so long is news, in milliseconds. */
const NEWS_AGAIN_MS = 60 * 60_000;

export interface Events {
  /** The same event again only counts up; it is news again when it was an hour ago. */
  recordEvent(event: Pick<EventRecord, 'key' | 'type' | 'reason' | 'message'>): void;
  /** Latest first. */
  events(key?: string): EventRecord[];
  /** What is news since the one with this `seq`, in order. */
  news(after: number, limit: number): News[];
  /** Calls back after an event was recorded, maybe before it is committed. Returns what ends that. */
  onEvent(listener: () => void): () => void;
  /** The `seq` of the event that this receiver of notifications was told last; for a new one, the latest there is. */
  toldTo(receiver: string): number;
  recordTold(receiver: string, seq: number): void;
}

/** `write` runs a statement. */
export function createEvents(db: Database, write: (sql: string, ...values: Value[]) => void): Events {
  const now = () => new Date().toISOString();
  /** The first one trims: a process may end before it has recorded as many. */
  let eventsSinceTrim = EVENTS_TRIM_EVERY - 1;
  const listeners = new Set<() => void>();
  const latest = () => Number(db.all('SELECT max(seq) AS seq FROM events')[0]?.seq ?? 0);

  return {
    recordEvent: (event) => {
      write(
        `INSERT INTO events (key, type, reason, message, count, first_time, last_time, seq)
         VALUES (?, ?, ?, ?, 1, ?, ?, ?)
         ON CONFLICT (key, type, reason, message) DO UPDATE SET count = count + 1, last_time = excluded.last_time,
           seq = CASE WHEN last_time < ? THEN excluded.seq ELSE seq END`,
        event.key,
        event.type,
        event.reason,
        event.message,
        now(),
        now(),
        latest() + 1,
        new Date(Date.now() - NEWS_AGAIN_MS).toISOString(),
      );
      for (const listener of listeners) listener();
      if (++eventsSinceTrim < EVENTS_TRIM_EVERY) return;
      eventsSinceTrim = 0;
      write(
        'DELETE FROM events WHERE id IN (SELECT id FROM events ORDER BY last_time DESC, id DESC LIMIT -1 OFFSET ?)',
        EVENTS_KEPT,
      );
    },
    events: (key) =>
      (key === undefined
        ? db.all('SELECT * FROM events ORDER BY last_time DESC, id DESC')
        : db.all('SELECT * FROM events WHERE key = ? ORDER BY last_time DESC, id DESC', key)
      ).map(eventOf),

    news: (after, limit) =>
      db
        .all('SELECT * FROM events WHERE seq > ? ORDER BY seq LIMIT ?', after, limit)
        .map((row) => ({ ...eventOf(row), seq: Number(row.seq) })),
    onEvent: (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    toldTo: (receiver) => {
      const [row] = db.all('SELECT told FROM receivers WHERE name = ?', receiver);
      return row === undefined ? latest() : Number(row.told);
    },
    recordTold: (receiver, seq) =>
      write('INSERT OR REPLACE INTO receivers (name, told) VALUES (?, ?)', receiver, seq),
  };
}
