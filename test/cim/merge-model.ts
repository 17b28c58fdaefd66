/** Layers and what they show together, as plain objects: applied one by one from the base up, which is not how the merge does it. */

import type { BlockCimWriter } from '../../src/cim/block-writer.ts';
import type { CimReader } from '../../src/cim/reader.ts';
import type { FileId } from '../../src/cim/types.ts';
import { directoryMetadata, putFile, putStream } from './fixture.ts';

export type Step =
  | { do: 'file'; path: string; data: Buffer; streams?: [string, string][] }
  | { do: 'directory'; path: string; time: bigint; link?: boolean }
  /** `pick` chooses among the files there are: in the layer, or below it. */
  | { do: 'hard-link'; path: string; pick: number }
  | { do: 'merge-link'; path: string; pick: number }
  | { do: 'tombstone'; path: string };

export interface FileNode {
  kind: 'file';
  data: Buffer;
  streams: Map<string, string>;
}
export interface DirectoryNode {
  kind: 'directory';
  children: Map<string, { name: string; node: Node }>;
  time: bigint;
  /** Has reparse data. */
  link: boolean;
  opaque: boolean;
}
type Mark = { kind: 'tombstone' } | { kind: 'merge-link'; target: string };
export type Node = FileNode | DirectoryNode | Mark;

const REPARSE = Buffer.from('0c0000a00400000074657374', 'hex');

export function emptyDirectory(time = 0n): DirectoryNode {
  return { kind: 'directory', children: new Map(), time, link: false, opaque: false };
}

function find(root: DirectoryNode, path: string): Node | undefined {
  let node: Node | undefined = root;
  for (const name of path.split('/').filter(Boolean))
    node = node?.kind === 'directory' ? node.children.get(name.toUpperCase())?.node : undefined;
  return node;
}

/** Paths of what are files, links to lower ones included. */
function filesBelow(directory: DirectoryNode, path = ''): string[] {
  return [...directory.children.values()].flatMap(({ name, node }) => {
    if (node.kind === 'directory') return filesBelow(node, `${path}${name}/`);
    return node.kind === 'tombstone' ? [] : [path + name];
  });
}

/** Does a step to a layer, in the model and the writer, directories above made first; steps that can't be done there are left out. */
export function perform(
  layer: DirectoryNode,
  writer: BlockCimWriter,
  lower: DirectoryNode,
  step: Step,
): void {
  const slash = step.path.lastIndexOf('/');
  const above = step.path.slice(0, Math.max(0, slash));
  if (above !== '' && find(layer, above) === undefined)
    perform(layer, writer, lower, { do: 'directory', path: above, time: BigInt(step.path.length) });
  const parent = find(layer, above);
  const name = step.path.slice(slash + 1);
  const key = name.toUpperCase();
  if (parent?.kind !== 'directory') return;
  const there = parent.children.get(key)?.node;
  const put = (node: Node) => parent.children.set(key, { name, node });
  if (step.do === 'file') {
    if (there?.kind === 'directory') return;
    const streams = new Map(step.streams);
    put({ kind: 'file', data: step.data, streams });
    putFile(writer, step.path, step.data);
    for (const [stream, data] of streams) putStream(writer, step.path, stream, data);
  } else if (step.do === 'directory') {
    if (there !== undefined && there.kind !== 'directory' && there.kind !== 'tombstone') return;
    const kept = there?.kind === 'directory' ? there : emptyDirectory();
    kept.time = step.time;
    kept.link = step.link === true;
    kept.opaque ||= there?.kind === 'tombstone';
    put(kept);
    const reparse = step.link ? { reparseData: REPARSE } : {};
    writer.createFile(step.path, directoryMetadata({ lastWriteTime: step.time, ...reparse })).close();
  } else if (step.do === 'hard-link') {
    const files = filesBelow(layer);
    const path = files[step.pick % files.length];
    const target = path === undefined ? undefined : find(layer, path);
    if (there?.kind === 'directory' || path === undefined || target === undefined) return;
    put(target);
    writer.createHardLink(step.path, path);
  } else if (step.do === 'merge-link') {
    const files = filesBelow(lower);
    const target = files[step.pick % files.length];
    if (there?.kind === 'directory' || target === undefined) return;
    put({ kind: 'merge-link', target });
    writer.createMergeLink(step.path, target);
  } else {
    if (there === undefined) put({ kind: 'tombstone' });
    if (there?.kind === 'directory') there.opaque = true;
    writer.tombstone(step.path);
  }
}

/** What the layers below and a layer on top of them show. */
export function overlay(lower: DirectoryNode, layer: DirectoryNode): DirectoryNode {
  const merged = (below: DirectoryNode | undefined, own: DirectoryNode): DirectoryNode => {
    const plain = below !== undefined && !below.link && !own.link && !own.opaque;
    const result: DirectoryNode = { ...own, opaque: false, children: new Map(plain ? below.children : []) };
    for (const [key, { name, node }] of own.children) {
      if (node.kind === 'tombstone') result.children.delete(key);
      else if (node.kind === 'file') result.children.set(key, { name, node });
      else if (node.kind === 'merge-link') {
        const target = find(lower, node.target);
        if (target?.kind !== 'file') throw new Error(`the model has no file ${node.target}`);
        result.children.set(key, { name, node: target });
      } else {
        const there = result.children.get(key)?.node;
        result.children.set(key, {
          name,
          node: merged(there?.kind === 'directory' ? there : undefined, node),
        });
      }
    }
    return result;
  };
  return merged(lower, layer);
}

/** Everything below a directory as text, with a number for each file so that names of one file show. */
export function describeModel(root: DirectoryNode): string[] {
  const numbers = new Map<FileNode, number>();
  const lines: string[] = [];
  const walk = (directory: DirectoryNode, path: string) => {
    for (const [, { name, node }] of [...directory.children].sort(([a], [b]) => (a < b ? -1 : 1))) {
      if (node.kind === 'directory') {
        lines.push(`${path}${name}/ ${node.time}${node.link ? ' link' : ''}`);
        walk(node, `${path}${name}/`);
      } else if (node.kind === 'file') {
        const number = numbers.get(node) ?? numbers.size;
        numbers.set(node, number);
        const streams = [...node.streams].sort().map(([stream, data]) => ` ${stream}=${data}`);
        lines.push(`${path}${name} #${number} ${node.data.toString('latin1')}${streams.join('')}`);
      }
    }
  };
  walk(root, '');
  return lines;
}

/** The same of a CIM. */
export function describeCim(reader: CimReader): string[] {
  const numbers = new Map<FileId, number>();
  return Array.from(reader.walk(), ({ path, id }) => {
    const info = reader.stat(id);
    if (info.isDirectory) return `${path}/ ${info.lastWriteTime}${info.reparseTag ? ' link' : ''}`;
    const number = numbers.get(id) ?? numbers.size;
    numbers.set(id, number);
    const read = (name?: string) => Buffer.concat([...reader.streamChunks(id, name)]).toString('latin1');
    const streams = reader.streams(id).map(({ name }) => ` ${name}=${read(name)}`);
    return `${path} #${number} ${read()}${info.mark ? ` ${info.mark.kind}` : ''}${streams.sort().join('')}`;
  });
}
