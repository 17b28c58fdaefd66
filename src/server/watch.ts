/**
 * Lists that can be watched, as server-sent events. Level, not edge: a watched list is read again whenever something may
 * have changed, and what differs from the last look is told. Watchers read at their own pace from a short log that they
 * share; one that falls behind it, or comes back with an ID that it no longer reaches, is told everything anew.
 */

import { randomUUID } from 'node:crypto';

/** The list as it is now, by a key of each item. */
export type ReadList = () => Promise<ReadonlyMap<string, unknown>>;

export type ChangeType = 'added' | 'modified' | 'deleted';

/** What a watcher is told: after `reset` every item is `added`, until `synced`; then one event for each change. */
export type WatchEventType = ChangeType | 'reset' | 'synced';

interface Change {
  type: ChangeType;
  key: string;
  /** JSON. */
  item: string;
}

/** Characters of JSON that the log of a list holds at most. */
const LONGEST_LOG = 2 ** 22;

/** One list. Nothing is read or kept until somebody watches. */
export class WatchedList {
  readonly #read: ReadList;
  /** IDs of another agent, or of this one before it was restarted, mean nothing here. */
  readonly #epoch = randomUUID().slice(0, 8);
  #items = new Map<string, string>();
  /** The changes `#first`, `#first + 1`, ...: the latest ones. */
  #log: Change[] = [];
  #first = 1;
  #logged = 0;
  readonly #sleepers = new Set<() => void>();
  #watchers = 0;

  constructor(read: ReadList) {
    this.#read = read;
  }

  get isWatched(): boolean {
    return this.#watchers > 0;
  }

  /** Somebody watches, until the function that is returned is called, once. Before the first look, so that nothing is missed. */
  enter(): () => void {
    this.#watchers++;
    return () => {
      this.#watchers--;
    };
  }

  /** Looks, and tells what changed since the last look. Throws what reading throws; then nothing has changed. */
  async refresh(): Promise<void> {
    const items = new Map<string, string>();
    for (const [key, item] of await this.#read()) items.set(key, JSON.stringify(item));
    const changes: Change[] = [];
    for (const [key, item] of items) {
      const before = this.#items.get(key);
      if (before !== item) changes.push({ type: before === undefined ? 'added' : 'modified', key, item });
    }
    for (const [key, item] of this.#items) if (!items.has(key)) changes.push({ type: 'deleted', key, item });
    this.#items = items;
    this.#append(changes);
    if (changes.length > 0) this.wake();
  }

  /** Watchers with no news send a sign of life. */
  wake(): void {
    for (const wake of [...this.#sleepers]) wake();
  }

  /**
   * The stream for one watcher, from the list as it was last read; from after `lastEventId` when that is still known.
   * `isWanted` chooses by key. Ends when the signal aborts.
   */
  async *follow(
    options: { lastEventId?: string | undefined; isWanted?: ((key: string) => boolean) | undefined },
    signal: AbortSignal,
  ): AsyncGenerator<string> {
    const { lastEventId, isWanted = () => true } = options;
    let next = this.#after(lastEventId);
    // Who asked knows now that it has begun, news or not.
    yield ': watching\n\n';
    while (!signal.aborted) {
      if (next === undefined || next < this.#first) {
        const start = this.#end;
        const items = [...this.#items];
        yield format('reset', '{}');
        for (const [key, item] of items) if (isWanted(key)) yield format('added', item);
        yield format('synced', '{}', this.#id(start - 1));
        next = start;
        continue;
      }
      const change = this.#log[next - this.#first];
      if (change === undefined) {
        await this.#sleep(signal);
        if (next === this.#end) yield ': still here\n\n';
        continue;
      }
      if (isWanted(change.key)) yield format(change.type, change.item, this.#id(next));
      next++;
    }
  }

  /** Number of the change that comes next. */
  get #end(): number {
    return this.#first + this.#log.length;
  }

  #id(number: number): string {
    return `${this.#epoch}-${number}`;
  }

  /** Number of the change after the one with this ID; undefined when that isn't known. */
  #after(id: string | undefined): number | undefined {
    const [epoch, digits = ''] = id?.split('-') ?? [];
    if (epoch !== this.#epoch || !/^\d{1,15}$/.test(digits)) return undefined;
    const next = Number(digits) + 1;
    return next <= this.#end ? next : undefined;
  }

  #append(changes: readonly Change[]): void {
    this.#log.push(...changes);
    for (const { item } of changes) this.#logged += item.length;
    let dropped = 0;
    while (this.#logged > LONGEST_LOG) this.#logged -= this.#log[dropped++]?.item.length ?? 0;
    this.#log = this.#log.slice(dropped);
    this.#first += dropped;
  }

  #sleep(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const wake = () => {
        this.#sleepers.delete(wake);
        signal.removeEventListener('abort', wake);
        resolve();
      };
      this.#sleepers.add(wake);
      signal.addEventListener('abort', wake, { once: true });
      if (signal.aborted) wake();
    });
  }
}

function format(type: WatchEventType, data: string, id?: string): string {
  return `${id === undefined ? '' : `id: ${id}\n`}event: ${type}\ndata: ${data}\n\n`;
}
