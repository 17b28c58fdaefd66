/** What was written over a chain of Linux layers, as the tar of the layer that it becomes (OCI image-spec, layer.md). Runs in the worker. */

import { readlinkSync } from 'node:fs';
import { xattrRecords } from '../../layers/linux-xattrs.ts';
import { getXattr } from '../../native/linux/xattr.ts';
import { type TarEntry, TarWriter } from '../../tar/tar-writer.ts';
import { readFileChunks } from './upper-file.ts';
import { isOpaque, lookAtUpper, ownXattrs, readUpper, type UpperEntry } from './upper-tree.ts';

/**
 * Yields an uncompressed layer tar, in the order of the names' bytes: whiteouts, directories that hide what is below them, hard links, owners,
 * extended attributes, devices. Sockets are left out, as tar does, and counted in a warning.
 */
export function* exportLinuxUpper(upper: Buffer, warn: (message: string) => void): Generator<Uint8Array> {
  const chunks: Uint8Array[] = [];
  const tar = new TarWriter((bytes) => chunks.push(bytes), { text: 'bytes' });
  const written = new Map<bigint, string>();
  let sockets = 0;

  function* writeDirectory(path: Buffer, name: string): Generator<void> {
    tar.entry({ ...entryOf(lookAtUpper(path), `${name}/`), type: 'directory' });
    if (isOpaque(path) && name !== '.') tar.file({ name: `${name}/.wh..wh..opq` }, new Uint8Array());
    yield;
    for (const entry of readUpper(path)) {
      const child = entry.name.toString('latin1');
      yield* writeNamed(entry, name === '.' ? child : `${name}/${child}`, name === '.' ? '' : `${name}/`);
    }
  }

  function* writeNamed(entry: UpperEntry, name: string, above: string): Generator<void> {
    const { nlink, ino, size, rdev } = entry.stats;
    if (entry.kind === 'directory') return yield* writeDirectory(entry.path, name);
    if (entry.kind === 'socket') {
      sockets++;
      return;
    }
    if (entry.kind === 'whiteout') {
      tar.file({ name: `${above}.wh.${entry.name.toString('latin1')}` }, new Uint8Array());
      yield;
      return;
    }
    const target = nlink > 1n ? written.get(ino) : undefined;
    if (target !== undefined) {
      tar.entry({ name, type: 'hard-link', linkName: target });
      yield;
      return;
    }
    if (nlink > 1n) written.set(ino, name);
    const common = entryOf(entry, name);
    if (entry.kind === 'file') {
      tar.entry({ ...common, type: 'file', size: Number(size) });
      for (const chunk of readFileChunks(entry.path)) {
        tar.data(chunk);
        yield;
      }
    } else if (entry.kind === 'symlink')
      tar.entry({ ...common, type: 'symlink', linkName: readlinkSync(entry.path, 'latin1') });
    else if (entry.kind === 'fifo') tar.entry({ ...common, type: 'fifo' });
    else {
      const type = entry.stats.isBlockDevice() ? 'block-device' : 'character-device';
      tar.entry({ ...common, type, device: deviceOf(rdev) });
    }
    yield;
  }

  for (const _ of writeDirectory(upper, '.')) yield* chunks.splice(0);
  tar.finish();
  yield* chunks.splice(0);
  if (sockets > 0) warn(`${sockets} sockets were left out`);
}

function entryOf(
  { path, stats }: Omit<UpperEntry, 'name'>,
  name: string,
): Omit<TarEntry, 'type'> & { name: string } {
  const xattrs = ownXattrs(path).flatMap((xattr) => {
    const value = getXattr(path, xattr);
    return value === undefined ? [] : [{ name: xattr.toString('latin1'), value: Buffer.from(value) }];
  });
  return {
    name,
    mode: Number(stats.mode & 0o7777n),
    uid: Number(stats.uid),
    gid: Number(stats.gid),
    mtime: stats.mtimeNs,
    records: xattrRecords(xattrs, name),
  };
}

/** As glibc packs them (gnu_dev_major, gnu_dev_minor). */
function deviceOf(rdev: bigint): { major: number; minor: number } {
  return {
    major: Number(((rdev >> 8n) & 0xfffn) | ((rdev >> 32n) & 0xfffff000n)),
    minor: Number((rdev & 0xffn) | ((rdev >> 12n) & 0xffffff00n)),
  };
}
