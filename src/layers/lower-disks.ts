/** Directories of the Linux layers below, as an overlay of their disks shows them. */

import { Disk } from '../ext4/disk.ts';
import { ModeType } from '../ext4/format.ts';
import { typeOf } from '../ext4/inode.ts';
import type { Ext4Attributes } from '../ext4/inode-builder.ts';
import type { Ext4File } from '../ext4/reader.ts';

const OPAQUE = 'trusted.overlay.opaque';

export class LowerDisks {
  readonly #disks: Disk[] = [];

  /** Topmost first. Throws as `Disk` does. `close` must be called, whatever happens. */
  constructor(paths: readonly string[]) {
    try {
      for (const path of paths) this.#disks.push(new Disk(path));
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** What a directory is, by itself; undefined where the layers have none, hide it, or have another file there. Symlinks aren't followed. */
  directory(path: string): Ext4Attributes | undefined {
    const names = path === '' ? [] : path.split('/');
    for (const { files } of this.#disks) {
      let file: Ext4File | undefined = files.inode(2);
      let isOpaque = false;
      for (const [index] of names.entries()) {
        isOpaque ||= files.xattrs(file).some(({ name }) => name === OPAQUE);
        file = files.find(names.slice(0, index + 1).join('/'));
        if (file === undefined || typeOf(file.mode) !== ModeType.directory) break;
      }
      if (file === undefined) {
        if (isOpaque) return undefined;
        continue;
      }
      if (typeOf(file.mode) !== ModeType.directory) return undefined;
      const { mode, uid, gid, mtime, atime, ctime } = file;
      const xattrs = files.xattrs(file).filter(({ name }) => name !== OPAQUE);
      return { mode: mode & 0o7777, uid, gid, mtime, atime, ctime, xattrs };
    }
    return undefined;
  }

  close(): void {
    for (const disk of this.#disks.splice(0)) disk.close();
  }
}
