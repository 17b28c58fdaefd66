/** Trees as plain objects: given to the EROFS writer as a source, and compared with what the kernel shows. */

import {
  closeSync,
  ftruncateSync,
  lstatSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { expect } from 'vitest';
import type { ErofsDevice, ErofsInode, ErofsSource, ErofsTime, ErofsXattr } from '../../src/erofs/source.ts';
import { getXattr, listXattrs } from '../../src/native/linux/xattr.ts';

interface Common {
  mode?: number;
  uid?: number;
  gid?: number;
  mtime?: ErofsTime;
  xattrs?: ErofsXattr[];
}

export type Directory = Common & { type: 'directory'; children: Record<string, Node> };
export type File = Common & {
  type: 'file';
  bytes: Buffer;
  /** Absent: the bytes are in the image. */
  at?: { device: number; offset: number } | 'hole' | undefined;
};
export type Symlink = Common & { type: 'symlink'; target: string };
/** The same object under two names is one inode with two links. */
export type Node = Directory | File | Symlink;

export const directory = (children: Record<string, Node> = {}, common: Common = {}): Directory => ({
  type: 'directory',
  children,
  ...common,
});
export const file = (bytes: Buffer | string = '', common: Common & Pick<File, 'at'> = {}): File => ({
  type: 'file',
  bytes: Buffer.from(bytes),
  ...common,
});
export const symlink = (target: string, common: Common = {}): Symlink => ({
  type: 'symlink',
  target,
  ...common,
});

export const DEFAULTS = {
  mode: 0o755,
  uid: 0,
  gid: 0,
  mtime: { seconds: 1_700_000_000n, nanoseconds: 123_456_700 },
  xattrs: [],
} satisfies Required<Common>;

/** `reversed` lists directories backwards: the image must not depend on it. */
export function sourceOf(
  root: Directory,
  devices: ErofsDevice[] = [],
  { reversed = false } = {},
): ErofsSource {
  const keys = new Map<Node, number>();
  const nodes = new Map<number, Node>();
  const keyOf = (node: Node): number => {
    let key = keys.get(node);
    if (key === undefined) {
      // Keys are the caller's own: neither dense nor in order.
      key = 1_000_003 - keys.size * 7;
      keys.set(node, key);
      nodes.set(key, node);
    }
    return key;
  };
  return {
    root: keyOf(root),
    inode: (key) => inodeOf(nodes.get(key)!),
    *entries(key) {
      const entries = Object.entries((nodes.get(key) as Directory).children);
      for (const [name, node] of reversed ? entries.reverse() : entries)
        yield { name: Buffer.from(name), key: keyOf(node) };
    },
    devices,
    uuid: Buffer.from('00112233445566778899aabbccddeeff', 'hex'),
    buildTime: { seconds: 1_600_000_000n, nanoseconds: 0 },
    volumeName: 'test',
  };
}

function inodeOf(node: Node): ErofsInode {
  const common = { ...DEFAULTS, ...node };
  if (node.type === 'directory') return { ...common, type: 'directory' };
  if (node.type === 'symlink') return { ...common, type: 'symlink', target: Buffer.from(node.target) };
  const { bytes, at } = node;
  if (at === 'hole') return { ...common, type: 'file', size: bytes.length, data: { kind: 'hole' } };
  if (at !== undefined)
    return { ...common, type: 'file', size: bytes.length, data: { kind: 'device', ...at } };
  return { ...common, type: 'file', size: bytes.length, data: { kind: 'bytes', read: () => bytes } };
}

/** Makes the device files that hold the tree's external data, each of at least `size` bytes, sparse. */
export function writeDevices(root: Directory, paths: readonly string[], size = 4096): ErofsDevice[] {
  const fds = paths.map((path) => openSync(path, 'w'));
  const sizes = paths.map(() => size);
  const visit = (node: Node): void => {
    if (node.type === 'directory') for (const child of Object.values(node.children)) visit(child);
    if (node.type !== 'file' || node.at === undefined || node.at === 'hole') return;
    const { device, offset } = node.at;
    writeSync(fds[device]!, node.bytes, 0, node.bytes.length, offset);
    sizes[device] = Math.max(sizes[device]!, Math.ceil((offset + node.bytes.length) / 4096) * 4096);
  };
  visit(root);
  for (const [index, fd] of fds.entries()) {
    ftruncateSync(fd, sizes[index]!);
    closeSync(fd);
  }
  return sizes.map((size) => ({ size }));
}

/** `view`: `everything` the kernel shows, or only what an extraction by fsck.erofs keeps (no xattrs, no links). */
export function expectTree(
  path: string,
  root: Directory,
  view: 'everything' | 'extracted' = 'everything',
): void {
  const links = new Map<Node, { inode: bigint; nlink: bigint; names: number }>();
  const visit = (at: string, node: Node): void => {
    const common = { ...DEFAULTS, ...node };
    const stats = lstatSync(at, { bigint: true });
    expect({
      at,
      type: stats.isDirectory() ? 'directory' : stats.isSymbolicLink() ? 'symlink' : 'file',
      mode: node.type === 'symlink' ? common.mode : Number(stats.mode & 0o7777n),
      owner: [Number(stats.uid), Number(stats.gid)],
      mtime: stats.mtimeNs,
    }).toEqual({
      at,
      type: node.type,
      mode: common.mode,
      owner: [common.uid, common.gid],
      mtime: common.mtime.seconds * 1_000_000_000n + BigInt(common.mtime.nanoseconds),
    });
    if (node.type === 'symlink') expect(readlinkSync(at)).toBe(node.target);
    if (node.type === 'file') {
      expect(stats.size).toBe(BigInt(node.bytes.length));
      expect(readFileSync(at).equals(node.bytes), `contents of ${at}`).toBe(true);
    }
    if (view === 'everything') {
      expect(xattrsAt(at), `xattrs of ${at}`).toEqual(
        Object.fromEntries(
          common.xattrs.map(({ name, value }) => [name, Buffer.from(value).toString('hex')]),
        ),
      );
      const known = links.get(node);
      if (known === undefined) links.set(node, { inode: stats.ino, nlink: stats.nlink, names: 1 });
      else {
        expect(stats.ino).toBe(known.inode);
        known.names++;
      }
    }
    if (node.type !== 'directory') return;
    const names = readdirSync(at).sort();
    expect(names).toEqual(Object.keys(node.children).sort());
    for (const [name, child] of Object.entries(node.children)) visit(join(at, name), child);
  };
  visit(path, root);
  for (const [node, { nlink, names }] of links) {
    const directories =
      node.type === 'directory'
        ? Object.values(node.children).filter(({ type }) => type === 'directory')
        : [];
    expect(nlink).toBe(BigInt(node.type === 'directory' ? 2 + directories.length : names));
  }
  expect(new Set([...links.values()].map(({ inode }) => inode)).size).toBe(links.size);
}

function xattrsAt(path: string): Record<string, string> {
  return Object.fromEntries(
    listXattrs(path).map((name) => [String(name), Buffer.from(getXattr(path, name)!).toString('hex')]),
  );
}
