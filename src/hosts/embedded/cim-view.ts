/**
 * A CIM as a tree of POSIX files: the one description that both the EROFS image and the extraction are made from.
 * A Windows image's root is its `Files` directory. Keys are the CIM's file IDs, so hard links stay hard links.
 */

import type { CimReader } from '../../cim/reader.ts';
import { FileAttribute, type FileId, type FileInfo } from '../../cim/types.ts';
import type { ErofsData, ErofsEntry, ErofsInode, ErofsSource, ErofsTime } from '../../erofs/source.ts';
import { CimletError } from '../../errors.ts';
import { symlinkTarget } from './symlink-target.ts';
import { isPlainName, viewNames } from './view-name.ts';
import { viewXattrs } from './view-xattrs.ts';

const PAGE_SIZE = 4096;
const PAGE_ALIGNED_DATA = 1;
const MIN_DEVICE_DATA = 4096;
/** 100 ns units between 1601-01-01 and 1970-01-01. */
const UNIX_EPOCH = 116_444_736_000_000_000n;
const READ_CHUNK = 256 * 1024;

export interface CimView extends ErofsSource {
  /** Region files that `device` data refers to, in the order of `devices`. */
  deviceFiles: string[];
  inodes: number;
}

/** Called now and then during long loops; throws to stop them. */
export type Checkpoint = () => void;

export function openCimView(
  cim: CimReader,
  options: { uuid: Uint8Array; volumeName: string; checkpoint: Checkpoint },
): CimView {
  const root = viewRoot(cim);
  const tree = surveyTree(cim, root, options.checkpoint);
  const { deviceFiles, devices, deviceOfRegion } = chooseDevices(cim);

  const dataOf = (id: FileId, size: number): ErofsData => {
    if (cim.isSparse(id)) return { kind: 'hole' };
    const extent = cim.extent(id);
    const device = extent === undefined ? undefined : deviceOfRegion.get(extent.region);
    if (
      extent !== undefined &&
      device !== undefined &&
      size >= MIN_DEVICE_DATA &&
      extent.offset % PAGE_SIZE === 0
    )
      return { kind: 'device', device, offset: extent.offset };
    return { kind: 'bytes', read: () => cim.streamChunks(id, undefined, READ_CHUNK) };
  };

  return {
    root,
    deviceFiles,
    devices,
    inodes: tree.inodes,
    uuid: options.uuid,
    volumeName: options.volumeName,
    buildTime: { seconds: 0n, nanoseconds: 0 },
    *entries(key: FileId): Iterable<ErofsEntry> {
      const entries = [...cim.entries(key)];
      const names = viewNames(entries.map(({ name }) => name));
      for (const [index, { id }] of entries.entries())
        yield { name: Buffer.from(names[index] ?? ''), key: id };
    },
    inode(key: FileId): ErofsInode {
      options.checkpoint();
      const info = cim.stat(key);
      const target = info.reparseData === undefined ? undefined : symlinkTarget(info.reparseData);
      const common = {
        mode: modeOf(info, target !== undefined),
        uid: 0,
        gid: 0,
        mtime: posixTime(info.lastWriteTime),
        xattrs: viewXattrs({
          info,
          isSymlink: target !== undefined,
          realNames: tree.oddNames.get(key) ?? [],
          streams: cim.streams(key),
          readStream: ({ name }) => Buffer.concat([...cim.streamChunks(key, name)]),
        }),
      };
      if (target !== undefined) return { ...common, type: 'symlink', target };
      if (info.isDirectory) return { ...common, type: 'directory' };
      return { ...common, type: 'file', size: info.size, data: dataOf(key, info.size) };
    },
  };
}

/** Seconds and nanoseconds since 1970 of a FILETIME. */
function posixTime(fileTime: bigint): ErofsTime {
  const sinceEpoch = fileTime - UNIX_EPOCH;
  const rest = ((sinceEpoch % 10_000_000n) + 10_000_000n) % 10_000_000n;
  return { seconds: (sinceEpoch - rest) / 10_000_000n, nanoseconds: Number(rest) * 100 };
}

function viewRoot(cim: CimReader): FileId {
  const files = cim.lookup('Files');
  return files !== undefined && cim.stat(files).isDirectory ? files : cim.root;
}

function modeOf(info: FileInfo, isSymlink: boolean): number {
  if (isSymlink) return 0o777;
  const writable = (info.attributes & FileAttribute.readOnly) === 0;
  if (info.isDirectory) return writable ? 0o755 : 0o555;
  return writable ? 0o644 : 0o444;
}

/** Walks the tree once: counts inodes, keeps the names the view can't show, and refuses what is no tree. */
function surveyTree(
  cim: CimReader,
  root: FileId,
  checkpoint: Checkpoint,
): { inodes: number; oddNames: Map<FileId, string[]> } {
  const oddNames = new Map<FileId, string[]>();
  const seen = new Set<FileId>([root]);
  const pending: FileId[] = [root];
  for (let directory = pending.pop(); directory !== undefined; directory = pending.pop()) {
    checkpoint();
    for (const { name, id } of cim.entries(directory)) {
      if (!isPlainName(name)) addTo(oddNames, id, name);
      const known = seen.has(id);
      seen.add(id);
      if (!isPlainDirectory(cim, id)) continue;
      if (known)
        throw new CimletError(
          'corrupt',
          `show CIM: directory ${JSON.stringify(name)} (file ${id}) has two parents`,
        );
      pending.push(id);
    }
  }
  return { inodes: seen.size, oddNames };
}

function addTo<K, V>(lists: Map<K, V[]>, key: K, value: V): void {
  const list = lists.get(key);
  if (list === undefined) lists.set(key, [value]);
  else list.push(value);
}

/** A directory with reparse data that makes it a link is shown as the link, without what lies in it. */
function isPlainDirectory(cim: CimReader, id: FileId): boolean {
  const info = cim.stat(id);
  return (
    info.isDirectory && (info.reparseData === undefined || symlinkTarget(info.reparseData) === undefined)
  );
}

/** The regions the kernel can read file data from: page-aligned ones whose file is padded to whole pages. */
export function chooseDevices(cim: CimReader): {
  deviceFiles: string[];
  devices: { size: number }[];
  deviceOfRegion: Map<number, number>;
} {
  const deviceFiles: string[] = [];
  const devices: { size: number }[] = [];
  const deviceOfRegion = new Map<number, number>();
  for (const [region, { path, type, size }] of cim.regions.entries()) {
    if (type !== PAGE_ALIGNED_DATA) continue;
    if (size % PAGE_SIZE !== 0) continue;
    deviceOfRegion.set(region, devices.length);
    deviceFiles.push(path);
    devices.push({ size });
  }
  return { deviceFiles, devices, deviceOfRegion };
}
