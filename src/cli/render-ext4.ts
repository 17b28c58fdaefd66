/** Files of ext4 images, as people and machines read them. */

import { ModeType } from '../ext4/format.ts';
import { typeOf } from '../ext4/inode.ts';
import type { Ext4File, Ext4Reader } from '../ext4/reader.ts';
import { padStart, printable } from './text.ts';

const TYPES: Record<number, readonly [letter: string, name: string]> = {
  [ModeType.fifo]: ['p', 'fifo'],
  [ModeType.characterDevice]: ['c', 'character-device'],
  [ModeType.directory]: ['d', 'directory'],
  [ModeType.blockDevice]: ['b', 'block-device'],
  [ModeType.file]: ['-', 'file'],
  [ModeType.symlink]: ['l', 'symlink'],
  [ModeType.socket]: ['s', 'socket'],
};

export function isDirectory({ mode }: Ext4File): boolean {
  return typeOf(mode) === ModeType.directory;
}

/** Names in images are bytes, of which most are UTF-8. */
export function toText(bytes: string): string {
  return Buffer.from(bytes, 'latin1').toString();
}

export function toBytes(text: string): string {
  return Buffer.from(text).toString('latin1');
}

/** As `ls -l` prints it. */
export function longLine(files: Ext4Reader, name: string, file: Ext4File): string {
  const { links, uid, gid, mtime } = file;
  const owner = `${padStart(String(uid), 5)} ${padStart(String(gid), 5)}`;
  const target = typeOf(file.mode) === ModeType.symlink ? ` -> ${printable(toText(files.target(file)))}` : '';
  return `${modeText(file.mode)} ${padStart(String(links), 3)} ${owner} ${padStart(sizeText(files, file), 10)} ${formatTime(mtime)} ${name}${target}`;
}

function sizeText(files: Ext4Reader, file: Ext4File): string {
  const device = deviceOf(files, file);
  return device === undefined ? String(file.size) : `${device.major},${device.minor}`;
}

function deviceOf(files: Ext4Reader, file: Ext4File): { major: number; minor: number } | undefined {
  const type = typeOf(file.mode);
  return type === ModeType.blockDevice || type === ModeType.characterDevice ? files.device(file) : undefined;
}

/** `drwxr-xr-x` */
function modeText(mode: number): string {
  const [letter] = TYPES[typeOf(mode)] ?? ['?'];
  const bits = [6, 3, 0].map((shift, index) => {
    const triple = (mode >> shift) & 7;
    const special = (mode & (0o4000 >> index)) !== 0;
    const executable = (triple & 1) !== 0;
    const letters = index === 2 ? 'tT' : 'sS';
    const last = special ? letters[executable ? 0 : 1] : executable ? 'x' : '-';
    return `${triple & 4 ? 'r' : '-'}${triple & 2 ? 'w' : '-'}${last}`;
  });
  return letter + bits.join('');
}

/** To the second, in UTC. */
function formatTime(time: bigint): string {
  return new Date(Number(time / 1_000_000n)).toISOString().replace(/\.\d+Z$/, 'Z');
}

/** Everything about a file but its bytes; values of attributes as hexadecimal. */
export function dataOf(files: Ext4Reader, name: string, file: Ext4File) {
  return {
    name,
    inode: file.number,
    type: TYPES[typeOf(file.mode)]?.[1] ?? 'unknown',
    mode: (file.mode & 0o7777).toString(8).padStart(4, '0'),
    uid: file.uid,
    gid: file.gid,
    size: file.size,
    links: file.links,
    modified: file.mtime,
    target: typeOf(file.mode) === ModeType.symlink ? toText(files.target(file)) : undefined,
    device: deviceOf(files, file),
    xattrs: Object.fromEntries(
      files.xattrs(file).map((xattr) => [toText(xattr.name), xattr.value.toString('hex')]),
    ),
  };
}
