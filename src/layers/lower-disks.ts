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
  readonly #remembered = new Map<string, Found | undefined>();

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
    if (found === undefined || typeOf(found.file.mode) !== ModeType.directory) return undefined;
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
    if (this.#remembered.has(path)) return this.#remembered.get(path);
    const found = this.#walk(path === '' ? [] : path.split('/'));
    if (this.#remembered.size === REMEMBERED) this.#remembered.clear();
    this.#remembered.set(path, found);
    return found;
  }

  #walk(names: readonly string[]): Found | undefined {
    for (const { files } of this.#disks) {
      let file: Ext4File | undefined = files.inode(ROOT_INODE);
      let isOpaque = false;
      for (const name of names) {
        // Any other file hides what the layers below it have.
        if (typeOf(file.mode) !== ModeType.directory) return undefined;
        isOpaque ||= files.xattrs(file).some((xattr) => xattr.name === OPAQUE);
        file = files.child(file, name);
        if (file === undefined) break;
      }
      if (file !== undefined) return { files, file };
      if (isOpaque) return undefined;
    }
    return undefined;
  }
}
