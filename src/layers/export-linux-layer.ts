/** A Linux layer's disk back as the tar it can be made from again. Source: OCI image-spec layer.md. */

import { CimletError } from '../errors.ts';
import { ModeType } from '../ext4/format.ts';
import { typeOf } from '../ext4/inode.ts';
import type { Ext4File, Ext4Reader } from '../ext4/reader.ts';
import type { Xattr } from '../ext4/xattrs.ts';
import { type TarEntry, TarWriter } from '../tar/tar-writer.ts';
import { OVERLAY_PREFIX, xattrRecords } from './linux-xattrs.ts';

const OPAQUE = 'trusted.overlay.opaque';
const LOST_AND_FOUND = 'lost+found';
const ROOT = 2;
/** By which it says that a file is elsewhere; LCOW's guests have these features off. */
const ELSEWHERE = [`${OVERLAY_PREFIX}redirect`, `${OVERLAY_PREFIX}metacopy`];

/**
 * Yields an uncompressed layer tar, directories before what is in them, names in the order of their bytes. What the image says by overlayfs'
 * means (device 0:0, an attribute) are whiteouts there. Throws as the reader does.
 */
export function exportLinuxLayer(files: Ext4Reader): Generator<Uint8Array> {
  const xattrs = (file: Ext4File) => files.xattrs(file).filter(({ name }) => name !== OPAQUE);
  return exportBelow(files, files.inode(ROOT), xattrs);
}

/**
 * The same of what overlayfs wrote to an upper directory; without one, nothing was written. Throws `failed-precondition` for what is
 * somewhere else than it is shown.
 */
export function exportLinuxUpper(files: Ext4Reader, upper: Ext4File | undefined): Generator<Uint8Array> {
  const xattrs = (file: Ext4File) => {
    const all = files.xattrs(file);
    const elsewhere = all.find(({ name }) => ELSEWHERE.includes(name));
    if (elsewhere === undefined) return all.filter(({ name }) => !name.startsWith(OVERLAY_PREFIX));
    throw new CimletError(
      'failed-precondition',
      `inode ${file.number} has attribute ${elsewhere.name}: its content is elsewhere`,
      {
        hint: 'mount overlays with redirect_dir=nofollow,metacopy=off',
      },
    );
  };
  return exportBelow(files, upper, xattrs);
}

function* exportBelow(
  files: Ext4Reader,
  top: Ext4File | undefined,
  xattrsOf: (file: Ext4File) => Xattr[],
): Generator<Uint8Array> {
  const chunks: Uint8Array[] = [];
  const tar = new TarWriter((bytes) => chunks.push(bytes), { text: 'bytes' });
  const written = new Map<number, string>();

  function* write(path: string, name: string, file: Ext4File): Generator<void> {
    const type = typeOf(file.mode);
    const { major, minor } = files.device(file);
    if (type === ModeType.characterDevice && major === 0 && minor === 0) {
      const above = path.slice(0, path.length - name.length);
      tar.file({ name: `${above}.wh.${name}` }, new Uint8Array());
      return;
    }
    const common = entryOf(file, path, xattrsOf(file));
    if (type === ModeType.directory) {
      const isRoot = path === '';
      tar.entry({ ...common, name: isRoot ? './' : `${path}/`, type: 'directory' });
      if (files.xattrs(file).some((xattr) => xattr.name === OPAQUE) && !isRoot)
        tar.file({ name: `${path}/.wh..wh..opq` }, new Uint8Array());
      return;
    }
    const target = file.links > 1 ? written.get(file.number) : undefined;
    if (target !== undefined) {
      tar.entry({ name: path, type: 'hard-link', linkName: target });
      return;
    }
    if (file.links > 1) written.set(file.number, path);
    if (type === ModeType.file) {
      tar.entry({ ...common, type: 'file', size: file.size });
      for (const chunk of files.chunks(file)) {
        tar.data(chunk);
        yield;
      }
    } else if (type === ModeType.symlink)
      tar.entry({ ...common, type: 'symlink', linkName: files.target(file) });
    else if (type === ModeType.fifo) tar.entry({ ...common, type: 'fifo' });
    else if (type === ModeType.blockDevice || type === ModeType.characterDevice)
      tar.entry({
        ...common,
        type: type === ModeType.blockDevice ? 'block-device' : 'character-device',
        device: { major, minor },
      });
  }

  const all = function* (): Generator<void> {
    if (top === undefined) return;
    yield* write('', '', top);
    for (const { path, name, file } of files.walk(top)) {
      if (path !== LOST_AND_FOUND || top.number !== ROOT) yield* write(path, name, file);
      yield;
    }
  };
  for (const _ of all()) yield* chunks.splice(0);
  tar.finish();
  yield* chunks.splice(0);
}

function entryOf(file: Ext4File, name: string, xattrs: readonly Xattr[]): Omit<TarEntry, 'type'> {
  return {
    name,
    mode: file.mode & 0o7777,
    uid: file.uid,
    gid: file.gid,
    mtime: file.mtime,
    records: xattrRecords(xattrs, name),
  };
}
