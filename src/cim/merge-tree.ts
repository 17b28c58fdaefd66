/**
 * What block CIMs show together, topmost first, as overlayfs would: a directory's entries are those of all layers that have it, the topmost
 * layer's entry of a name counts, and directories of one name are one down to the first layer that has something else there. A directory
 * with reparse data is a link, so it is merged with nothing. Tombstones hide; an opaque directory hides what is below it; a merge link is the
 * file that the layers below its own show at its target.
 */

import { corrupt } from './faults.ts';
import { FileField, isDirectory, markKind } from './file-record.ts';
import type { CimReader } from './reader.ts';
import type { FileId } from './types.ts';
import { upcaseName, upcaseUnits } from './upcase.ts';

/** A file or directory of one layer. */
export interface Place {
  /** 0 is the topmost. */
  layer: number;
  id: FileId;
}

export interface MergedEntry {
  /** The name, upcased. */
  key: string;
  /** As the topmost layer spells it. */
  name: string;
  /** A file, or a directory with those that are merged below it. */
  places: readonly [Place, ...Place[]];
  isDirectory: boolean;
}

/** An entry whose lower layers may not have been seen yet. */
interface Candidate {
  name: string;
  first: Place;
  others: Place[];
  kind: EntryKind;
  /** Whether what a lower layer has of that name still matters. */
  isOpen: boolean;
}

type EntryKind = 'file' | 'link-directory' | 'directory' | 'opaque' | 'tombstone' | 'merge-link';

/** What merged directories have of a name. */
interface Child {
  directories: Place[];
  /** The layer that has a file or merge link there, and the file; undefined for a merge link that leads nowhere. */
  at?: number;
  file?: Place | undefined;
}

/** A file that merge links lead to. */
interface Target {
  /** The layer from which down it was looked for. */
  from: number;
  /** The first from there down that has its name: links of the layers between find the same. */
  at: number;
  file: Place;
}

/** Targets remembered, which take some 200 bytes each. */
const MAX_TARGETS = 100_000;

export class MergedTree {
  readonly #layers: readonly CimReader[];
  readonly #upcase: Uint16Array;
  /** By layer, the directory that its merge links' targets were last looked for in: links often come by directory. */
  readonly #recent: ({ path: string; directories: readonly Place[] } | undefined)[] = [];
  /** By layer, where merge links end: one may lead to another, down through all layers. */
  readonly #ends: Map<FileId, Place | undefined>[];
  /** By path, some targets found: links of many layers often lead to one file, and each would ask all layers between. */
  readonly #targets = new Map<string, Target>();

  /** Layers topmost first, at least one, which compare names alike. */
  constructor(layers: readonly CimReader[], upcase: Uint16Array) {
    this.#layers = layers;
    this.#upcase = upcase;
    this.#ends = layers.map(() => new Map());
  }

  roots(): Place[] {
    return this.#rootsFrom(0);
  }

  /** What the directories, merged, show; `path` is theirs, for errors. A merge link without a target is `corrupt`. */
  *entries(directories: readonly Place[], path: string): Generator<MergedEntry> {
    for (const [key, candidate] of this.#candidates(directories)) {
      const { name, kind, first, others } = candidate;
      if (kind === 'tombstone') continue;
      const place = kind === 'merge-link' ? this.#followOrFail(first, path, name) : first;
      yield { key, name, places: [place, ...others], isDirectory: kind !== 'file' && kind !== 'merge-link' };
    }
  }

  #candidates(directories: readonly Place[]): Map<string, Candidate> {
    const found = new Map<string, Candidate>();
    for (const { layer, id: directory } of directories) {
      const cim = this.#layer(layer);
      for (const { name, id } of cim.entries(directory)) {
        const key = upcaseName(this.#upcase, name);
        const known = found.get(key);
        if (known?.isOpen === false) continue;
        const kind = entryKind(cim, id);
        if (known === undefined) {
          found.set(key, { name, first: { layer, id }, others: [], kind, isOpen: kind === 'directory' });
          continue;
        }
        if (kind === 'directory' || kind === 'opaque') known.others.push({ layer, id });
        known.isOpen = kind === 'directory';
      }
    }
    return found;
  }

  #followOrFail(link: Place, path: string, name: string): Place {
    const place = this.#follow(link);
    if (place !== undefined) return place;
    const cim = this.#layer(link.layer);
    const { mark } = cim.stat(link.id);
    const target = mark?.kind === 'merge-link' ? mark.target : '';
    throw corrupt(
      cim.faultAt(
        link.id,
        `merge link ${path}${name}: the layers below have no file ${JSON.stringify(target)}`,
      ),
    );
  }

  /** The file that the layers below a merge link's show at its target. */
  #follow(link: Place): Place | undefined {
    const ends = this.#ends[link.layer];
    if (ends?.has(link.id)) return ends.get(link.id);
    const end = this.#findTarget(link);
    ends?.set(link.id, end);
    return end;
  }

  #findTarget(link: Place): Place | undefined {
    const { mark } = this.#layer(link.layer).stat(link.id);
    if (mark?.kind !== 'merge-link') return undefined;
    const { target } = mark;
    const from = link.layer + 1;
    const known = this.#targets.get(target);
    if (known !== undefined && known.from <= from && from <= known.at) return known.file;
    const slash = target.lastIndexOf('/');
    const directories = this.#directoriesAt(target.slice(0, Math.max(0, slash)), from);
    const { at, file } = this.#child(directories, target.slice(slash + 1));
    if (at !== undefined && file !== undefined) {
      if (this.#targets.size >= MAX_TARGETS) this.#targets.clear();
      this.#targets.set(target, { from, at, file });
    }
    return file;
  }

  /** The directories that are merged at a path in the layers from `layer` down. */
  #directoriesAt(path: string, layer: number): readonly Place[] {
    const recent = this.#recent[layer];
    if (recent?.path === path) return recent.directories;
    let directories: readonly Place[] = this.#rootsFrom(layer);
    for (const name of path === '' ? [] : path.split('/'))
      directories = this.#child(directories, name).directories;
    this.#recent[layer] = { path, directories };
    return directories;
  }

  #child(directories: readonly Place[], name: string): Child {
    const units = upcaseUnits(this.#upcase, name);
    const found: Place[] = [];
    for (const { layer, id: directory } of directories) {
      const cim = this.#layer(layer);
      const id = cim.findUpcased(directory, units);
      if (id === undefined) continue;
      const kind = entryKind(cim, id);
      if (kind === 'directory' || kind === 'opaque') {
        found.push({ layer, id });
        if (kind === 'opaque') break;
        continue;
      }
      if (found.length > 0 || kind === 'tombstone') break;
      if (kind === 'link-directory') return { directories: [{ layer, id }] };
      const file = kind === 'file' ? { layer, id } : this.#follow({ layer, id });
      return { directories: [], at: layer, file };
    }
    return { directories: found };
  }

  #rootsFrom(layer: number): Place[] {
    return this.#layers.slice(layer).map((cim, i) => ({ layer: layer + i, id: cim.root }));
  }

  #layer(layer: number): CimReader {
    const cim = this.#layers[layer];
    if (cim === undefined) throw new Error(`layer ${layer} is not open`);
    return cim;
  }
}

function entryKind(cim: CimReader, id: FileId): EntryKind {
  const slot = cim.slot(id);
  const mark = markKind(slot);
  if (mark === 'tombstone' || mark === 'merge-link') return mark;
  if (!isDirectory(slot)) return 'file';
  if (slot.table.readUInt32LE(slot.position + FileField.reparseTag) !== 0) return 'link-directory';
  return mark === 'opaque' ? 'opaque' : 'directory';
}
