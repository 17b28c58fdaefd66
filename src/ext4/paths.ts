/** Paths of an image that is being written, as the kernel would resolve them with the image as its root. */

import { quote, refuse } from './faults.ts';
import { EntryType, MAX_NAME, ROOT_INODE } from './format.ts';
import { NO_ENTRY } from './name-table.ts';
import { type Tree, WHITEOUT } from './tree.ts';

/** As the kernel. */
const MAX_SYMLINKS = 40;

interface Inodes {
  readonly tree: Tree;
  targetOf(inode: number): string;
  implyDirectory(parent: number, name: string, path: string): number;
}

export class PathResolver {
  readonly #inodes: Inodes;
  /** The directory looked for last: entries of one directory mostly follow one another. */
  #lastPath = '';
  #lastDirectory = ROOT_INODE;

  constructor(inodes: Inodes) {
    this.#inodes = inodes;
  }

  /** To be called when a name gets another inode. */
  forget(): void {
    this.#lastPath = '';
    this.#lastDirectory = ROOT_INODE;
  }

  /** The directory that a path's last name is in, made if need be, and that name. */
  locate(path: string): [directory: number, name: string] {
    const slash = path.lastIndexOf('/');
    const name = path.slice(slash + 1);
    checkName(name);
    return [this.directory(path.slice(0, Math.max(0, slash))), name];
  }

  /** The directory at a path, made if need be. */
  directory(path: string): number {
    if (path === this.#lastPath) return this.#lastDirectory;
    const directory = this.#walk(path, true) ?? ROOT_INODE;
    this.#lastPath = path;
    this.#lastDirectory = directory;
    return directory;
  }

  /** The inode of a path, not following its last name; undefined when it isn't there. */
  find(path: string): number | undefined {
    if (path === '') return ROOT_INODE;
    const slash = path.lastIndexOf('/');
    const parent = path.slice(0, Math.max(0, slash));
    const directory = parent === this.#lastPath ? this.#lastDirectory : this.#walk(parent, false);
    if (directory === undefined) return undefined;
    return this.#entry(directory, path.slice(slash + 1));
  }

  /** Follows all of a path. Undefined for what isn't there, unless it is to be made. */
  #walk(path: string, make: boolean): number | undefined {
    const { tree } = this.#inodes;
    let directory = ROOT_INODE;
    let symlinks = 0;
    const trail: string[] = [];
    /** What is left of the path, and what symlinks on it put before: the next name last. */
    const names = namesOf(path);
    for (let name = names.pop(); name !== undefined; name = names.pop()) {
      if (name === '..') {
        trail.pop();
        directory = tree.parentOf(directory);
        continue;
      }
      const inode = this.#entry(directory, name);
      const kind = inode === undefined ? undefined : tree.kindOf(inode);
      if (inode !== undefined && kind === EntryType.directory) {
        trail.push(name);
        directory = inode;
      } else if (inode !== undefined && kind === EntryType.symlink) {
        if (++symlinks > MAX_SYMLINKS)
          throw refuse(`its path goes through more than ${MAX_SYMLINKS} symlinks: they lead in a circle`);
        const target = this.#inodes.targetOf(inode);
        if (target.startsWith('/')) {
          trail.length = 0;
          directory = ROOT_INODE;
        }
        names.push(...namesOf(target));
      } else if (!make) return undefined;
      else if (kind === undefined || kind === WHITEOUT) {
        checkName(name);
        trail.push(name);
        directory = this.#inodes.implyDirectory(directory, name, trail.join('/'));
      } else throw refuse(`${quote(name)} on its path is no directory`);
    }
    return directory;
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

function checkName(name: string): void {
  if (name.length > MAX_NAME)
    throw refuse(`a name of ${name.length} bytes; at most ${MAX_NAME} are possible`);
  if (name === '' || name === '.' || name === '..' || name.includes('/') || name.includes('\0'))
    throw refuse(`${quote(name)} is no name for a file`);
}
