/** ext4 images in tests: made of tars, checked by e2fsck, mounted by the kernel, described so that trees can be compared. */

import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Ext4Options, Ext4Writer } from '../../src/ext4/writer.ts';
import { importLinuxLayer, type LinuxImportResult } from '../../src/layers/linux-layer.ts';
import { unmountBelow } from '../support/mounts.ts';
import { hasTool, isRoot, requireOrSkip } from '../support/requirements.ts';
import { run } from '../tar/tar-helpers.ts';

export const hasE2fsprogs = requireOrSkip('e2fsprogs', hasTool('e2fsck') && hasTool('mke2fs'));
export const canMount =
  requireOrSkip('root', isRoot) && requireOrSkip('mount and attr', hasTool('mount') && hasTool('getfattr'));

/** A directory of a test's own; nothing stays mounted below it. */
export class Workshop {
  readonly path = realpathSync(mkdtempSync(join(tmpdir(), 'cimlet-ext4-')));
  #targets = 0;

  at(...names: string[]): string {
    return join(this.path, ...names);
  }

  /** A new directory. */
  directory(): string {
    const target = this.at(`directory-${this.#targets++}`);
    mkdirSync(target);
    return target;
  }

  /** Mounts an image through the kernel and says where. */
  mount(image: string, options = 'ro'): string {
    const target = this.directory();
    execFileSync('mount', ['-t', 'ext4', '-o', `loop,${options}`, image, target]);
    return target;
  }

  extract(tar: string): string {
    const target = this.directory();
    const all = ['--xattrs', '--xattrs-include=*', '--numeric-owner', '-p'];
    execFileSync('tar', [...all, '-xf', tar, '-C', target]);
    return target;
  }

  close(): void {
    unmountBelow(this.path);
    rmSync(this.path, { recursive: true });
  }
}

/** Bytes that are not all zeros anywhere. */
export function pattern(length: number, seed = 1): Buffer {
  return Buffer.from(Uint8Array.from({ length }, (_, index) => 1 + ((index * 7 + seed * 13) % 255)));
}

/** A tree with one of everything that a layer can hold. */
export function makeTree(root: string): void {
  const at = (name: string) => `${root}/${name}`;
  for (const size of [0, 1, 59, 60, 61, 136, 137, 511, 512, 4095, 4096, 4097, 300_000])
    writeFileSync(at(`size-${size}`), pattern(size, size));
  mkdirSync(at('directory/below'), { recursive: true });
  symlinkSync('directory/below', at('short'));
  symlinkSync('x'.repeat(59), at('link-59'));
  symlinkSync('x'.repeat(60), at('link-60'));
  symlinkSync('y/'.repeat(2047), at('link-long'));
  writeFileSync(at('n'.repeat(255)), 'long name');
  writeFileSync(Buffer.concat([Buffer.from(`${root}/bytes-`), Buffer.from([0xff, 0x0a, 0xe4])]), 'bytes');
  linkSync(at('size-4097'), at('directory/below/other-name'));
  linkSync(at('short'), at('directory/link-to-a-link'));
  execFileSync('mknod', [at('character'), 'c', '5', '1']);
  execFileSync('mknod', [at('block'), 'b', '259', '70000']);
  execFileSync('mknod', [at('whiteout'), 'c', '0', '0']);
  execFileSync('mkfifo', [at('fifo')]);
  execFileSync('chown', ['70000:4000000000', at('size-1')]);
  execFileSync('chmod', ['4711', at('size-1')]);
  execFileSync('chmod', ['1777', at('directory')]);
  const set = (name: string, value: Buffer, file: string) =>
    execFileSync('setfattr', ['-h', '-n', name, '-v', `0x${value.toString('hex')}`, at(file)]);
  set('user.small', Buffer.from([0xff, 0, 0x80, 0x0a]), 'size-0');
  set('user.of-a-directory', Buffer.from('value'), 'directory');
  set('user.medium', pattern(200), 'size-60');
  set('user.large', pattern(3500), 'size-60');
  set('trusted.a', pattern(10), 'size-60');
  set('security.capability', Buffer.from('0100000200200000000000000000000000000000', 'hex'), 'size-61');
  set('trusted.link', Buffer.from('on a symlink'), 'short');
  // user::rw-, user:1000:rw-, group::r--, mask::rw-, other::r--
  const acl = '0200000001000600ffffffff02000600e803000004000400ffffffff10000600ffffffff20000400ffffffff';
  set('system.posix_acl_access', Buffer.from(acl, 'hex'), 'size-511');
  set('system.posix_acl_default', Buffer.from(acl, 'hex'), 'directory');
  execFileSync('touch', ['-d', '1905-05-05 05:05:05.123456789 UTC', at('size-512')]);
  execFileSync('touch', ['-d', '1969-12-31 23:59:59.999999999 UTC', at('size-4095')]);
  execFileSync('touch', ['-d', '2040-01-01 00:00:00.000000001 UTC', at('size-4096')]);
  execFileSync('touch', ['-d', '2110-01-01 00:00:00.5 UTC', at('size-137')]);
  execFileSync('touch', ['-h', '-d', '2446-05-10 22:38:55.999999999 UTC', at('short')]);
}

/** Makes an image of a tar given in pieces. */
export async function makeImage(
  tar: AsyncIterable<Uint8Array>,
  image: string,
  options: Ext4Options = {},
): Promise<LinuxImportResult & { size: number; inodes: number }> {
  const writer = new Ext4Writer(image, options);
  try {
    const result = await importLinuxLayer(tar, writer);
    return { ...result, ...writer.finish() };
  } finally {
    writer.close();
  }
}

/** Throws with what e2fsck says unless it finds nothing at all. */
export function e2fsck(image: string): void {
  const { status, stdout, stderr } = spawnSync('e2fsck', ['-fn', image], { encoding: 'utf8' });
  if (status !== 0 || /\?/.test(stdout)) throw new Error(`e2fsck: ${status}\n${stdout}\n${stderr}`);
}

export interface Described {
  mode: string;
  owner: string;
  size: string;
  mtime: string;
  device: string;
  /** Names of the same file, this one too. */
  names: string[];
  content: string;
  xattrs: string[];
}

/** Everything below a directory, and itself as '', but what lost+found would differ in. Paths are byte strings. */
export function describeTree(root: string): Map<string, Described> {
  const result = new Map<string, Described>();
  const names = new Map<string, string[]>();
  const inodes = new Map<string, string>();
  const visit = (path: string): void => {
    const full = Buffer.concat([Buffer.from(`${root}/`), Buffer.from(path, 'latin1')]);
    const stat = lstatSync(full, { bigint: true });
    // An overlay's layers number their inodes each for itself.
    const inode = `${stat.dev} ${stat.ino}`;
    inodes.set(path, inode);
    names.set(inode, [...(names.get(inode) ?? []), path]);
    const sized = stat.isFile() || stat.isSymbolicLink();
    result.set(path, {
      mode: stat.mode.toString(8),
      owner: `${stat.uid}:${stat.gid}`,
      size: sized ? String(stat.size) : '',
      mtime: String(stat.mtimeNs),
      device: String(stat.rdev),
      names: [],
      content: stat.isFile() ? createHash('sha256').update(readFileSync(full)).digest('hex') : '',
      xattrs: [],
    });
    if (stat.isSymbolicLink()) result.get(path)!.content = readlinkSync(full, 'latin1');
    if (!stat.isDirectory()) return;
    for (const name of readdirSync(full, { encoding: 'latin1' }).sort())
      if (name !== 'lost+found') visit(path === '' ? name : `${path}/${name}`);
  };
  visit('');
  for (const [path, ino] of inodes) result.get(path)!.names = names.get(ino)!;
  for (const [path, xattrs] of readXattrs(root)) {
    const described = result.get(path);
    if (described !== undefined) described.xattrs = xattrs;
  }
  return result;
}

function readXattrs(root: string): Map<string, string[]> {
  const dump = run('getfattr', ['-R', '-P', '-h', '-d', '-m', '-', '-e', 'hex', '.'], { cwd: root });
  const result = new Map<string, string[]>();
  for (const block of dump.toString('latin1').split('\n\n')) {
    const [head = '', ...lines] = block.trim().split('\n');
    const path = head
      .replace(/^# file: /, '')
      .replace(/\\(\d{3})/g, (_match, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
    if (head !== '') result.set(path === '.' ? '' : path, lines.sort());
  }
  return result;
}
