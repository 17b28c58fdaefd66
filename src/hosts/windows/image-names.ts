/**
 * What an image that is being written holds. Cimfs can't be asked, so what the layer does is kept here, over the layers
 * below as they are mounted. Paths as in LayerWriter. About 150 bytes for each name the layer adds or deletes.
 */

import type { DirectoryEntry, FileInfo } from '../../cim/types.ts';
import { foldName } from '../../layers/layer-tree.ts';
import type { LowerView } from '../../layers/lower-view.ts';

interface Name {
  /** As the layer spells it. */
  name: string;
  /** Undefined for a directory of the layers below that something was added to or deleted from. */
  own: FileInfo | 'deleted' | undefined;
  /** Whether the layers below show through under this directory. */
  showsLower: boolean;
  children: Map<string, Name> | undefined;
}

export class ImageNames {
  readonly #lower: LowerView | undefined;
  readonly #root: Name = { name: '', own: undefined, showsLower: true, children: undefined };

  constructor(lower: LowerView | undefined) {
    this.#lower = lower;
  }

  stat(path: string): FileInfo | undefined {
    const { name, showsLower } = this.#walk(path);
    if (name?.own === 'deleted') return undefined;
    return name?.own ?? (showsLower ? this.#lower?.stat(path) : undefined);
  }

  entries(path: string): DirectoryEntry[] {
    const { name, showsLower } = this.#walk(path);
    const found: DirectoryEntry[] = [];
    for (const child of name?.children?.values() ?? [])
      if (child.own !== 'deleted' && child.own !== undefined) found.push({ name: child.name, id: 0 });
    const seesLower = name === undefined ? showsLower : name.own !== 'deleted' && name.showsLower;
    for (const lower of seesLower ? (this.#lower?.entries(path) ?? []) : []) {
      const own = name?.children?.get(foldName(lower.name))?.own;
      if (own === undefined) found.push({ name: lower.name, id: 0 });
    }
    return found;
  }

  /** A file takes the place of whatever was there; a directory keeps what is below it. */
  add(path: string, info: FileInfo): void {
    const before = this.stat(path);
    const name = this.#make(path);
    const stays = info.isDirectory && before?.isDirectory === true && before.reparseTag === 0;
    if (!stays) name.children = undefined;
    name.showsLower = stays && name.showsLower;
    name.own = info;
  }

  /** False when there is nothing. */
  delete(path: string): boolean {
    if (this.stat(path) === undefined) return false;
    const name = this.#make(path);
    name.own = 'deleted';
    name.showsLower = false;
    name.children = undefined;
    return true;
  }

  /** What is recorded at a path, and whether the layers below are seen there where nothing is. */
  #walk(path: string): { name: Name | undefined; showsLower: boolean } {
    let name: Name | undefined = this.#root;
    let showsLower = true;
    for (const part of partsOf(path)) {
      showsLower = name.showsLower;
      name = name.children?.get(foldName(part));
      if (name === undefined) return { name, showsLower };
    }
    return { name, showsLower };
  }

  #make(path: string): Name {
    let name = this.#root;
    for (const part of partsOf(path)) {
      name.children ??= new Map();
      let child = name.children.get(foldName(part));
      if (child === undefined) {
        child = { name: part, own: undefined, showsLower: name.showsLower, children: undefined };
        name.children.set(foldName(part), child);
      }
      name = child;
    }
    return name;
  }
}

function partsOf(path: string): string[] {
  return path === '' ? [] : path.split('/');
}
