/** Paths of an image that is being written, as the kernel would resolve them with the image, over the layers below, as its root. */

import { quote, refuse } from './faults.ts';
import { EntryType, MAX_NAME, MAX_PATH, ROOT_INODE } from './format.ts';
import type { Ext4Attributes } from './inode-builder.ts';
import { NO_ENTRY } from './name-table.ts';
import { type Tree, WHITEOUT } from './tree.ts';

/** As the kernel. */
const MAX_SYMLINKS = 40;

/** What layers below have at a path, none of whose names but the last may be a symlink; undefined where they have none, or hide it. */
export interface LowerLayers {
  /** A directory, by itself. */
  directory(path: string): Ext4Attributes | undefined;
  /** Where a symlink leads, as a byte string. */
  symlink(path: string): string | undefined;
  /** What is in the root, as byte strings; names may come again, and may be hidden. */
  rootNames(): Iterable<string>;
}

export const NO_LAYERS: LowerLayers = {
  directory: () => undefined,
  symlink: () => undefined,
  rootNames: () => [],
};

interface Inodes {
  readonly tree: Tree;
  targetOf(inode: number): string;
  implyDirectory(parent: number, name: string, below: Ext4Attributes | undefined): number;
}

/** A directory on the way. */
interface Step {
  name: string;
  /** Of names without symlinks. */
  path: string;
  /** Undefined where the image has none, or not yet. */
  inode: number | undefined;
  /** What layers below have in it isn't seen. */
  isOpaque: boolean;
}

export class PathResolver {
  readonly #inodes: Inodes;
  readonly #lower: LowerLayers;
  /** The directory looked for last: entries of one directory mostly follow one another. */
  #lastPath = '';
  #lastDirectory = ROOT_INODE;

  constructor(inodes: Inodes, lower: LowerLayers) {
    this.#inodes = inodes;
    this.#lower = lower;
  }

  /** To be called when a name gets another inode. */
  forget(): void {
    this.#lastPath = '';
    this.#lastDirectory = ROOT_INODE;
  }

  /** The directory that a path's last name is in, made if need be, and that name. */
  locate(path: string): [directory: number, name: string] {
    checkPath(path);
    const slash = path.lastIndexOf('/');
    const name = path.slice(slash + 1);
    checkName(name);
    return [this.directory(path.slice(0, Math.max(0, slash))), name];
  }

  /** The directory at a path, made if need be. */
  directory(path: string): number {
    if (path === this.#lastPath) return this.#lastDirectory;
    checkPath(path);
    const { trail, isOwn } = this.#walk(path);
    const directory = this.#make(trail);
    // A symlink below leads there only until this image has that name itself.
    if (isOwn) [this.#lastPath, this.#lastDirectory] = [path, directory];
    return directory;
  }

  /** The inode of a path, not following its last name; undefined when the image doesn't have it. */
  find(path: string): number | undefined {
    if (path === '') return ROOT_INODE;
    checkPath(path);
    const slash = path.lastIndexOf('/');
    const parent = path.slice(0, Math.max(0, slash));
    const directory =
      parent === this.#lastPath ? this.#lastDirectory : this.#end(this.#walk(parent).trail).inode;
    if (directory === undefined) return undefined;
    return this.#entry(directory, path.slice(slash + 1));
  }

  /**
   * Follows all of a path, through symlinks of the image and of the layers below. What nobody has is as good as a directory. `isOwn`: no symlink
   * below was followed.
   */
  #walk(wanted: string): { trail: Step[]; isOwn: boolean } {
    const { tree } = this.#inodes;
    const trail: Step[] = [];
    let isOwn = true;
    let symlinks = 0;
    /** What is left of the path, and what symlinks on it put before: the next name last. */
    const names = namesOf(wanted);
    for (let name = names.pop(); name !== undefined; name = names.pop()) {
      if (name === '..') {
        trail.pop();
        continue;
      }
      const here = this.#end(trail);
      const path = here.path === '' ? name : `${here.path}/${name}`;
      // Symlinks may lead further down than a path is long.
      checkPath(path);
      const inode = here.inode === undefined ? undefined : this.#entry(here.inode, name);
      const kind = inode === undefined ? undefined : tree.kindOf(inode);
      const target = this.#targetOf(inode, here, path);
      if (target !== undefined) {
        if (++symlinks > MAX_SYMLINKS)
          throw refuse(`its path goes through more than ${MAX_SYMLINKS} symlinks: they lead in a circle`);
        isOwn &&= inode !== undefined;
        if (target.startsWith('/')) trail.length = 0;
        names.push(...namesOf(target));
      } else if (inode !== undefined && kind === EntryType.directory)
        trail.push({ name, path, inode, isOpaque: here.isOpaque || tree.isOpaque(inode) });
      else if (kind === undefined || kind === WHITEOUT)
        trail.push({ name, path, inode: undefined, isOpaque: here.isOpaque || kind === WHITEOUT });
      else throw refuse(`${quote(name)} on its path is no directory`);
    }
    return { trail, isOwn };
  }

  /** Where a name leads that is a symlink, in the image or, where that doesn't have the name, below. */
  #targetOf(inode: number | undefined, above: Step, path: string): string | undefined {
    if (inode !== undefined)
      return this.#inodes.tree.kindOf(inode) === EntryType.symlink ? this.#inodes.targetOf(inode) : undefined;
    return above.isOpaque ? undefined : this.#lower.symlink(path);
  }

  /** The last directory of a trail; those that aren't there are as they are below, else as the one above. */
  #make(trail: readonly Step[]): number {
    let directory = ROOT_INODE;
    for (const { name, path, inode, isOpaque } of trail) {
      if (inode !== undefined) {
        directory = inode;
        continue;
      }
      checkName(name);
      const below = isOpaque ? undefined : this.#lower.directory(path);
      directory = this.#inodes.implyDirectory(directory, name, below);
    }
    return directory;
  }

  /** Where a trail has come to. */
  #end(trail: readonly Step[]): Step {
    const isOpaque = this.#inodes.tree.isOpaque(ROOT_INODE);
    return trail.at(-1) ?? { name: '', path: '', inode: ROOT_INODE, isOpaque };
  }

  #entry(directory: number, name: string): number | undefined {
    const { names } = this.#inodes.tree;
    const entry = names.find(directory, name);
    return entry === NO_ENTRY ? undefined : names.inodeOf(entry);
  }
}

function namesOf(path: string): string[] {
  return path
    .split('/')
    .filter((name) => name !== '' && name !== '.')
    .reverse();
}

/** Nobody could open it by a longer one; and each step of a path takes work in its length. */
function checkPath(path: string): void {
  if (path.length > MAX_PATH)
    throw refuse(`a path of ${path.length} bytes; at most ${MAX_PATH} are possible`);
}

function checkName(name: string): void {
  if (name.length > MAX_NAME)
    throw refuse(`a name of ${name.length} bytes; at most ${MAX_NAME} are possible`);
  if (name === '' || name === '.' || name === '..' || name.includes('/') || name.includes('\0'))
    throw refuse(`${quote(name)} is no name for a file`);
}
