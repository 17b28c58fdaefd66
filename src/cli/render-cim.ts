/** What a CIM holds, as text and as plain data: attributes, times, reparse points. */

import { FileAttribute, type FileInfo } from '../cim/types.ts';

/** 100 ns units between 1601-01-01 and 1970-01-01. */
const UNIX_EPOCH = 116_444_736_000_000_000n;
const TICKS_PER_MS = 10_000n;

/** ISO 8601 with all seven digits a FILETIME has; `-` for zero, which means "not set". */
export function formatFileTime(time: bigint): string {
  if (time === 0n) return '-';
  const ticks = time - UNIX_EPOCH;
  const remainder = ((ticks % 10_000_000n) + 10_000_000n) % 10_000_000n;
  const milliseconds = Number((ticks - remainder) / TICKS_PER_MS);
  const date = new Date(milliseconds);
  // Beyond the year 275760 there is no Date; the number still tells.
  if (Number.isNaN(date.getTime())) return `FILETIME ${time}`;
  return `${date.toISOString().slice(0, -5)}.${String(remainder).padStart(7, '0')}Z`;
}

const MODE: [number, string][] = [
  [FileAttribute.directory, 'd'],
  [FileAttribute.archive, 'a'],
  [FileAttribute.readOnly, 'r'],
  [FileAttribute.hidden, 'h'],
  [FileAttribute.system, 's'],
  [FileAttribute.reparsePoint, 'l'],
];

/** `da-h--`: the mode column of PowerShell's Get-ChildItem. */
export function formatMode(info: FileInfo): string {
  const attributes = attributesOf(info);
  return MODE.map(([bit, letter]) => (attributes & bit ? letter : '-')).join('');
}

/** Stored bits, and those that follow from what the file is. */
export function attributesOf(info: FileInfo): number {
  return (
    info.attributes |
    (info.isDirectory ? FileAttribute.directory : 0) |
    (info.reparseTag === 0 ? 0 : FileAttribute.reparsePoint)
  );
}

export function attributeNames(info: FileInfo): string[] {
  const attributes = attributesOf(info);
  return Object.entries(FileAttribute)
    .filter(([, bit]) => attributes & bit)
    .map(([name]) => name);
}

const SYMLINK = 0xa000000c;
const MOUNT_POINT = 0xa0000003;
const TAG_NAMES: Record<number, string> = { [SYMLINK]: 'symlink', [MOUNT_POINT]: 'mount point' };

export function formatReparseTag(tag: number): string {
  const hex = `0x${tag.toString(16).padStart(8, '0')}`;
  const name = TAG_NAMES[tag];
  return name === undefined ? hex : `${name} (${hex})`;
}

/**
 * The target a symbolic link or mount point shows to people: its print name, or its substitute name where that is
 * empty. undefined for other tags and for data that doesn't add up. Layout: REPARSE_DATA_BUFFER (ntifs.h).
 */
export function reparseTarget(info: FileInfo): string | undefined {
  const data = info.reparseData;
  if (data === undefined || (info.reparseTag !== SYMLINK && info.reparseTag !== MOUNT_POINT))
    return undefined;
  const names = info.reparseTag === SYMLINK ? 20 : 16;
  if (data.length < names) return undefined;
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const nameAt = (field: number) => {
    const start = names + view.getUint16(field, true);
    const end = start + view.getUint16(field + 2, true);
    return end > data.length ? undefined : new TextDecoder('utf-16le').decode(data.subarray(start, end));
  };
  return nameAt(12) || nameAt(8) || undefined;
}
