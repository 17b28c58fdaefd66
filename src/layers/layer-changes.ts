/** What a layer's CIM adds to and takes away from those below, in the order in which writing it again gives the same CIM. */

import { ReachedDirectories } from '../cim/reached-directories.ts';
import type { CimReader } from '../cim/reader.ts';
import type { FileId } from '../cim/types.ts';
import { LAYOUT_PATH } from './base-layer.ts';
import { CONFIG, HIVES, isDeferredFile, timeless } from './hives.ts';
import { foldName } from './layer-tree.ts';
import { RestatedDirectories } from './restated-directories.ts';

export type LayerChange =
  /** A file, directory or link with all its metadata; directories that lower layers have keep their entries. */
  | { kind: 'entry'; path: string; id: FileId }
  /** `target` is a path of this layer or, where this layer has none, of lower ones. */
  | { kind: 'hard-link'; path: string; target: string }
  | { kind: 'whiteout' | 'opaque'; path: string };

/** Where in the sequence a change belongs: after everything of a lower order; by rank within one. */
interface Placed {
  order: number;
  rank: number;
  change: LayerChange;
}

const Rank = { whiteoutBefore: 0, entry: 1, opaque: 2, freshLink: 3, replacingLink: 4 } as const;

interface Name {
  path: string;
  /** Order of the directory it is in. */
  order: number;
  /** Something else is there in the parent. */
  replaces: boolean;
}

interface Listing {
  path: string;
  id: FileId;
  /** The same directory in the parent. */
  inherited: boolean;
  order: number;
}

/**
 * The changes of a CIM against the one it was forked from; all that is in it without `parent`, tombstones and merge
 * links of a block CIM included. What an import adds by itself (`layout`, `Hives/*_BASE`) is left out.
 */
export function listChanges(cim: CimReader, parent?: CimReader): LayerChange[] {
  return new ChangeLister(cim, parent).list();
}

class ChangeLister {
  readonly #cim: CimReader;
  readonly #parent: CimReader | undefined;
  /** File IDs up to this one are the parent's. */
  readonly #inheritedIds: number;
  readonly #names = new Map<FileId, Name[]>();
  readonly #placed: Placed[] = [];
  readonly #whiteouts: string[] = [];
  readonly #restated: RestatedDirectories;

  constructor(cim: CimReader, parent: CimReader | undefined) {
    this.#cim = cim;
    this.#parent = parent;
    this.#inheritedIds = parent?.fileCount ?? 0;
    this.#restated = new RestatedDirectories(cim, parent);
  }

  list(): LayerChange[] {
    const added = this.#findAdded();
    const reached = new ReachedDirectories(this.#cim);
    const pending: Listing[] = [
      { path: '', id: this.#cim.root, inherited: this.#parent !== undefined, order: 0 },
    ];
    for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
      reached.add(next.id, next.path);
      pending.push(...this.#compare(next, added));
    }
    for (const [id, names] of this.#names) this.#placeFile(id, names);
    this.#placed.sort((a, b) => a.order - b.order || a.rank - b.rank || byPath(a.change, b.change));
    const changes = this.#restated.insertInto(this.#placed.map(({ change }) => change));
    return [
      ...this.#withTargets(changes),
      ...this.#whiteouts.sort().map((path) => ({ kind: 'whiteout' as const, path })),
    ];
  }

  /** Folded paths of what an import adds by itself. */
  #findAdded(): Set<string> {
    const added = new Set<string>();
    const own = (path: string): FileId | undefined => {
      const id = this.#cim.lookup(path);
      return id === undefined || id <= this.#inheritedIds ? undefined : id;
    };
    const isBase = own(LAYOUT_PATH) !== undefined;
    if (isBase) added.add(foldName(LAYOUT_PATH));
    for (const { file, name } of HIVES) {
      const base = own(`Hives/${name}_BASE`);
      if (base === undefined) continue;
      const isAdded = isBase ? base === own(`${CONFIG}/${file}`) : own(`Hives/${name}_DELTA`) !== undefined;
      if (isAdded) added.add(foldName(`Hives/${name}_BASE`));
    }
    const hives = isBase ? own('Hives') : undefined;
    if (hives !== undefined && this.#isImplied(hives, added)) added.add(foldName('Hives'));
    return added;
  }

  /** True for a directory as a base layer gets it: without times, and nothing in it but what an import adds. */
  #isImplied(id: FileId, added: ReadonlySet<string>): boolean {
    const info = this.#cim.stat(id);
    const { attributes, creationTime, lastWriteTime, changeTime, lastAccessTime } = info;
    if (attributes !== timeless('directory').attributes) return false;
    if (creationTime !== 0n || lastWriteTime !== 0n || changeTime !== 0n || lastAccessTime !== 0n)
      return false;
    return [...this.#cim.entries(id)].every(({ name }) => added.has(foldName(`Hives/${name}`)));
  }

  /** Finds the changes within one directory; returns the directories to go on with. */
  #compare(directory: Listing, added: ReadonlySet<string>): Listing[] {
    const { path: prefix, id: directoryId, order } = directory;
    const below: Listing[] = [];
    const lower = new Map<string, { name: string; id: FileId }>();
    if (directory.inherited) {
      for (const entry of this.#parent?.entries(directoryId) ?? []) lower.set(foldName(entry.name), entry);
    }
    let explained = false;
    for (const { name, id } of this.#cim.entries(directoryId)) {
      const path = prefix === '' ? name : `${prefix}/${name}`;
      const folded = foldName(name);
      const there = lower.get(folded);
      lower.delete(folded);
      if (there?.id === id) {
        if (!this.#isPlainDirectory(id)) continue;
        below.push({ path, id, inherited: true, order: 0 });
        if (this.#restated.consider(path, id, directoryId, there.name !== name)) explained = true;
        continue;
      }
      explained = true;
      if (added.has(foldName(path))) continue;
      if (!this.#isPlainDirectory(id)) {
        const names = this.#names.get(id) ?? [];
        names.push({ path, order, replaces: there !== undefined });
        this.#names.set(id, names);
        continue;
      }
      const own = Math.max(order, id);
      if (there !== undefined && this.#parent?.isDirectory(there.id)) {
        this.#place(own, Rank.whiteoutBefore, { kind: 'whiteout', path });
      }
      this.#place(own, Rank.entry, { kind: 'entry', path, id });
      if (this.#cim.stat(id).mark?.kind === 'opaque') this.#place(own, Rank.opaque, { kind: 'opaque', path });
      below.push({ path, id, inherited: false, order: own });
    }
    for (const { name } of lower.values()) this.#whiteouts.push(prefix === '' ? name : `${prefix}/${name}`);
    if (directory.inherited) this.#restated.explain(directoryId, explained || lower.size > 0);
    return below;
  }

  /** One of a file's names becomes the file, the others links to it. */
  #placeFile(id: FileId, names: readonly Name[]): void {
    const mark = this.#cim.stat(id).mark;
    if (id <= this.#inheritedIds || mark?.kind === 'merge-link') {
      const target = mark?.kind === 'merge-link' ? mark.target : '';
      for (const { path, order, replaces } of names) {
        const rank = replaces ? Rank.replacingLink : Rank.freshLink;
        const isMark = mark !== undefined;
        this.#place(isMark ? Math.max(order, id) : order, isMark ? Rank.entry : rank, {
          kind: 'hard-link',
          path,
          target,
        });
      }
      return;
    }
    const [first, ...others] = [...names].sort(
      (a, b) =>
        Number(isDeferredFile(b.path)) - Number(isDeferredFile(a.path)) ||
        Math.max(a.order, id) - Math.max(b.order, id),
    );
    if (first === undefined) return;
    const own = Math.max(first.order, id);
    if (mark?.kind === 'tombstone') {
      for (const { path, order } of names)
        this.#place(Math.max(order, id), Rank.entry, { kind: 'whiteout', path });
      return;
    }
    this.#place(own, Rank.entry, { kind: 'entry', path: first.path, id });
    for (const { path, order } of others) {
      this.#place(Math.max(own, order), Rank.freshLink, { kind: 'hard-link', path, target: first.path });
    }
  }

  #place(order: number, rank: number, change: LayerChange): void {
    this.#placed.push({ order, rank, change });
  }

  /**
   * Gives links to files of lower layers a path that still is such a file when the link comes; a link for which there is
   * none any more becomes a file of its own.
   */
  #withTargets(changes: readonly LayerChange[]): LayerChange[] {
    if (!changes.some((change) => change.kind === 'hard-link' && change.target === '')) return [...changes];
    const inherited = this.#inheritedPaths();
    /** The first name this layer gave to an inherited file: it stays. */
    const own = new Map<FileId, string>();
    const replaced = new Set<string>();
    const survives = (path: string): boolean => {
      const folded = foldName(path);
      for (let slash = folded.indexOf('/'); slash >= 0; slash = folded.indexOf('/', slash + 1)) {
        if (replaced.has(folded.slice(0, slash))) return false;
      }
      return !replaced.has(folded);
    };
    return changes.map((change): LayerChange => {
      // A directory that lower layers have is only added to.
      const isRestated = change.kind === 'entry' && change.id <= this.#inheritedIds;
      const isLowerLink = change.kind === 'hard-link' && change.target === '';
      const id = isLowerLink ? this.#cim.lookup(change.path) : undefined;
      const target = id === undefined ? undefined : (own.get(id) ?? inherited.get(id)?.find(survives));
      if (!isRestated && change.kind !== 'opaque') replaced.add(foldName(change.path));
      if (id === undefined) return change;
      if (!own.has(id)) own.set(id, change.path);
      return target === undefined
        ? { kind: 'entry', path: change.path, id }
        : { kind: 'hard-link', path: change.path, target };
    });
  }

  /** The parent's paths of the inherited files that got new names. */
  #inheritedPaths(): Map<FileId, string[]> {
    const paths = new Map<FileId, string[]>();
    for (const id of this.#names.keys()) if (id <= this.#inheritedIds) paths.set(id, []);
    for (const { id, path } of this.#parent?.walk() ?? []) paths.get(id)?.push(path);
    return paths;
  }

  #isPlainDirectory(id: FileId): boolean {
    return this.#cim.isDirectory(id) && this.#cim.stat(id).reparseTag === 0;
  }
}

function byPath(a: LayerChange, b: LayerChange): number {
  return a.path < b.path ? -1 : a.path > b.path ? 1 : 0;
}
