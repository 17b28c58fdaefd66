/** The Linux layers below a new one, as an overlay of their disks shows them. */

import { Disk } from '../ext4/disk.ts';
import { ModeType, ROOT_INODE } from '../ext4/format.ts';
import { typeOf } from '../ext4/inode.ts';
import type { Ext4Attributes } from '../ext4/inode-builder.ts';
import type { LowerLayers } from '../ext4/paths.ts';
import type { Ext4File, Ext4Reader } from '../ext4/reader.ts';

const OPAQUE = 'trusted.overlay.opaque';
/** Paths that are remembered: entries below one symlink all ask for it. */
const REMEMBERED = 1024;

interface Found {
  files: Ext4Reader;
  file: Ext4File;
}

export class LowerDisks implements LowerLayers {
  readonly #disks: Disk[] = [];
  readonly #remembered = new Map<string, readonly Found[]>();

  /** Topmost first. Throws as `Disk` does. `close` must be called, whatever happens. */
  constructor(paths: readonly string[]) {
    try {
      for (const path of paths) this.#disks.push(new Disk(path));
    } catch (error) {
      this.close();
      throw error;
    }
  }

  directory(path: string): Ext4Attributes | undefined {
    const found = this.#find(path);
    if (found === undefined || !isDirectory(found.file)) return undefined;
    const { mode, uid, gid, mtime, atime, ctime } = found.file;
    const xattrs = found.files.xattrs(found.file).filter(({ name }) => name !== OPAQUE);
    return { mode: mode & 0o7777, uid, gid, mtime, atime, ctime, xattrs };
  }

  symlink(path: string): string | undefined {
    const found = this.#find(path);
    if (found === undefined || typeOf(found.file.mode) !== ModeType.symlink) return undefined;
    return found.files.target(found.file);
  }

  *rootNames(): Generator<string> {
    for (const { files } of this.#disks)
      for (const { name } of files.entries(files.inode(ROOT_INODE))) yield name;
  }

  close(): void {
    for (const disk of this.#disks.splice(0)) disk.close();
  }

  #find(path: string): Found | undefined {
    return this.#visible(path)[0];
  }

  /** What layers have at a path, topmost first, without those that others hide. Found from the directory above, so that deep paths cost no more than their names. */
  #visible(path: string): readonly Found[] {
    const missing: string[] = [];
    let above = path;
    for (; above !== '' && !this.#remembered.has(above); above = parentOf(above)) missing.push(above);
    let found = this.#remembered.get(above) ?? this.#remember('', this.#roots());
    for (const each of missing.reverse()) found = this.#remember(each, childrenOf(found, each));
    return found;
  }

  #remember(path: string, files: Iterable<Found>): readonly Found[] {
    const found: Found[] = [];
    for (const each of files) {
      found.push(each);
      if (hidesBelow(each)) break;
    }
    if (this.#remembered.size === REMEMBERED) this.#remembered.clear();
    this.#remembered.set(path, found);
    return found;
  }

  *#roots(): Generator<Found> {
    for (const { files } of this.#disks) yield { files, file: files.inode(ROOT_INODE) };
  }
}

function* childrenOf(directories: readonly Found[], path: string): Generator<Found> {
  const name = path.slice(path.lastIndexOf('/') + 1);
  for (const { files, file } of directories) {
    const child = isDirectory(file) ? files.child(file, name) : undefined;
    if (child !== undefined) yield { files, file: child };
  }
}

function parentOf(path: string): string {
  return path.slice(0, Math.max(0, path.lastIndexOf('/')));
}

/** So does any file but a directory. */
function hidesBelow({ files, file }: Found): boolean {
  return !isDirectory(file) || files.xattrs(file).some(({ name }) => name === OPAQUE);
}

function isDirectory({ mode }: Ext4File): boolean {
  return typeOf(mode) === ModeType.directory;
}
