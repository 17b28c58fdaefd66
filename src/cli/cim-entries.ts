/** Files and directories of an image: looked up, as data, and as lines. */

import type { CimReader } from '../cim/reader.ts';
import type { DirectoryEntry, FileInfo, LayerMark } from '../cim/types.ts';
import { CimletError } from '../errors.ts';
import {
  attributeNames,
  attributesOf,
  formatFileTime,
  formatMode,
  formatReparseTag,
  reparseTarget,
} from './render-cim.ts';
import { formatBytes, padStart, plural, printable } from './text.ts';

export interface Entry {
  path: string;
  name: string;
  info: FileInfo;
}

export function find(reader: CimReader, file: string, path: string): Entry {
  const clean = path
    .split(/[\\/]+/)
    .filter(Boolean)
    .join('/');
  const id = clean === '' ? reader.root : reader.lookup(clean);
  if (id === undefined) throw new CimletError('not-found', `${file} holds no ${path}`);
  return { path: clean, name: clean.slice(clean.lastIndexOf('/') + 1), info: reader.stat(id) };
}

export function* childrenOf(reader: CimReader, parent: Entry): Iterable<Entry> {
  for (const { name, id } of reader.entries(parent.info.id) as Iterable<DirectoryEntry>) {
    yield { path: parent.path === '' ? name : `${parent.path}/${name}`, name, info: reader.stat(id) };
  }
}

export function* walk(reader: CimReader, top: Entry): Iterable<Entry> {
  const prefix = top.path === '' ? '' : `${top.path}/`;
  for (const { name, id, path } of reader.walk(top.info.id)) {
    yield { path: prefix + path, name, info: reader.stat(id) };
  }
}

/** Everything about a file but its bytes; binary parts as hexadecimal. */
export function dataOf({ path, name, info }: Entry) {
  const hex = (bytes: Uint8Array | undefined) => bytes && Buffer.from(bytes).toString('hex');
  return {
    path,
    name,
    id: info.id,
    type: info.isDirectory ? 'directory' : 'file',
    size: info.size,
    attributes: attributesOf(info),
    attributeNames: attributeNames(info),
    creationTime: formatFileTime(info.creationTime),
    lastWriteTime: formatFileTime(info.lastWriteTime),
    changeTime: formatFileTime(info.changeTime),
    lastAccessTime: formatFileTime(info.lastAccessTime),
    mark: info.mark === undefined ? undefined : describeMark(info.mark),
    reparseTag: info.reparseTag === 0 ? undefined : formatReparseTag(info.reparseTag),
    target: reparseTarget(info),
    reparseData: hex(info.reparseData),
    securityDescriptor: hex(info.securityDescriptor),
    extendedAttributes: hex(info.extendedAttributes),
  };
}

type FileData = ReturnType<typeof dataOf>;

export function statLines(data: FileData & { streams: { name: string; size: number }[] }): string[] {
  const facts: [string, string | undefined][] = [
    ['Path', data.path === '' ? '/' : data.path],
    ['File ID', `0x${data.id.toString(16)}`],
    ['Type', data.type],
    ['Size', `${data.size} (${formatBytes(data.size)})`],
    ['Attributes', `0x${data.attributes.toString(16)} ${data.attributeNames.join(' ')}`.trimEnd()],
    ['Created', data.creationTime],
    ['Written', data.lastWriteTime],
    ['Changed', data.changeTime],
    ['Accessed', data.lastAccessTime],
    ['Mark', data.mark],
    ['Reparse tag', data.reparseTag],
    ['Target', data.target],
    ['Security descriptor', data.securityDescriptor],
    ['Extended attributes', data.extendedAttributes],
    ...data.streams.map(({ name, size }): [string, string] => ['Stream', `${name} (${formatBytes(size)})`]),
  ];
  return facts.flatMap(([label, value]) => (value ? [`${label}:`.padEnd(21) + printable(value)] : []));
}

export function nameOf({ name, info }: Entry): string {
  return `${printable(name)}${info.isDirectory ? '/' : ''}`;
}

export function longLines(entries: readonly Entry[]): string[] {
  const sizeWidth = entries.reduce((most, { info }) => Math.max(most, String(info.size).length), 1);
  return entries.map((entry) => {
    const { info } = entry;
    const size = padStart(info.isDirectory ? '-' : String(info.size), sizeWidth);
    return `${formatMode(info)}  ${size}  ${formatFileTime(info.lastWriteTime)}  ${nameOf(entry)}${arrowOf(info)}`;
  });
}

function arrowOf(info: FileInfo): string {
  const target = reparseTarget(info);
  const arrow = target === undefined ? '' : ` -> ${printable(target)}`;
  return info.mark === undefined ? arrow : `${arrow} (${printable(describeMark(info.mark))})`;
}

/** What an entry of a block CIM does to the layers below it. */
function describeMark(mark: LayerMark): string {
  return mark.kind === 'merge-link' ? `merge link to ${mark.target}` : mark.kind;
}

export function* treeLines(reader: CimReader, top: Entry): Iterable<string> {
  const entries = [...walk(reader, top)];
  const last = lastOfTheirDirectory(entries);
  const depthOfTop = top.path === '' ? 0 : depthOf(top.path) + 1;
  const bars: string[] = [];
  let directories = 0;
  yield top.path === '' ? '/' : nameOf(top);
  for (const [index, entry] of entries.entries()) {
    const depth = depthOf(entry.path) - depthOfTop;
    bars.length = depth;
    yield `${bars.join('')}${last[index] ? '└── ' : '├── '}${nameOf(entry)}${arrowOf(entry.info)}`;
    bars.push(last[index] ? '    ' : '│   ');
    if (entry.info.isDirectory) directories++;
  }
  yield '';
  yield `${plural(directories, 'directory', 'directories')}, ${plural(entries.length - directories, 'file')}`;
}

function depthOf(path: string): number {
  return path.split('/').length - 1;
}

/** For entries in the order of a walk: is there none after it in its directory? */
function lastOfTheirDirectory(entries: readonly Entry[]): boolean[] {
  const seen: boolean[] = [];
  return entries
    .toReversed()
    .map(({ path }) => {
      const depth = depthOf(path);
      const isLast = seen[depth] !== true;
      seen.length = depth;
      seen[depth] = true;
      return isLast;
    })
    .toReversed();
}
