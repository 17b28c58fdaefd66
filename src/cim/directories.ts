/** The directory tree of an image being written: the parent's, except the directories that were loaded to change them. */

import type { Link } from './link-table.ts';
import type { CimReader } from './reader.ts';
import type { DirectoryEntry, FileId } from './types.ts';
import { upcaseName } from './upcase.ts';

export class Directories {
  readonly #parent: CimReader | undefined;
  readonly #upcase: Uint16Array;
  /** New and changed directories; entries by upcased name. */
  readonly #loaded = new Map<FileId, Map<string, DirectoryEntry>>();

  constructor(parent: CimReader | undefined, upcase: Uint16Array) {
    this.#parent = parent;
    this.#upcase = upcase;
  }

  /** A directory that was just created. */
  addEmpty(id: FileId): void {
    this.#loaded.set(id, new Map());
  }

  find(directory: FileId, name: string): FileId | undefined {
    const entries = this.#loaded.get(directory);
    return entries === undefined
      ? this.#parent?.find(directory, name)
      : entries.get(upcaseName(this.#upcase, name))?.id;
  }

  /** Adds an entry or replaces the one of that name, whose spelling becomes the new one. */
  set(directory: FileId, name: string, id: FileId): void {
    this.#load(directory).set(upcaseName(this.#upcase, name), { name, id });
  }

  /** Removes an entry, and forgets what was loaded below it. */
  remove(directory: FileId, name: string): void {
    const entries = this.#load(directory);
    const key = upcaseName(this.#upcase, name);
    const removed = entries.get(key);
    entries.delete(key);
    const stack = removed ? [removed.id] : [];
    for (let id = stack.pop(); id !== undefined; id = stack.pop()) {
      for (const child of this.#loaded.get(id)?.values() ?? []) stack.push(child.id);
      this.#loaded.delete(id);
    }
  }

  /** A directory's entries in the order of their upcased names. */
  list(directory: FileId): DirectoryEntry[] {
    const entries = this.#loaded.get(directory);
    if (entries === undefined) return [...(this.#parent?.entries(directory) ?? [])];
    return [...entries].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, entry]) => entry);
  }

  /** The directories to write, by ID. */
  *changed(): Generator<{ id: FileId; links: Link<FileId>[] }> {
    for (const id of [...this.#loaded.keys()].sort((a, b) => a - b)) {
      const entries = this.#loaded.get(id) ?? new Map<string, DirectoryEntry>();
      yield {
        id,
        links: Array.from(entries, ([key, entry]) => ({ key, name: entry.name, value: entry.id })),
      };
    }
  }

  #load(directory: FileId): Map<string, DirectoryEntry> {
    let entries = this.#loaded.get(directory);
    if (entries === undefined) {
      entries = new Map();
      for (const entry of this.#parent?.entries(directory) ?? [])
        entries.set(upcaseName(this.#upcase, entry.name), entry);
      this.#loaded.set(directory, entries);
    }
    return entries;
  }
}
