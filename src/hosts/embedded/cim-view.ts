/**
 * A CIM as a tree of POSIX files: the one description that both the EROFS image and the extraction are made from.
 * A Windows image's root is its `Files` directory. Keys are the CIM's file IDs, so hard links stay hard links.
 */

import { RegionType } from '../../cim/format.ts';
import type { CimReader } from '../../cim/reader.ts';
import { FileAttribute, type FileId, type FileInfo } from '../../cim/types.ts';
import type { ErofsData, ErofsEntry, ErofsInode, ErofsSource, ErofsTime } from '../../erofs/source.ts';
import { CimletError } from '../../errors.ts';
import { symlinkTarget } from './symlink-target.ts';
import { isPlainName, viewNames } from './view-name.ts';
import { viewXattrs } from './view-xattrs.ts';

const PAGE_SIZE = 4096;
const MIN_DEVICE_DATA = 4096;
/** 100 ns units between 1601-01-01 and 1970-01-01. */
const UNIX_EPOCH = 116_444_736_000_000_000n;
const READ_CHUNK = 256 * 1024;

export interface CimView extends ErofsSource {
  inodes: number;
}

/** Files of the CIM from which the kernel reads data itself. */
export interface ViewDevices {
  files: string[];
  /** In the order of `files`. */
  devices: { size: number }[];
  /** By number of the region: which device it is in, and where. */
  regions: ReadonlyMap<number, { device: number; base: number }>;
}

/** Called now and then during long loops; throws to stop them. */
export type Checkpoint = () => void;

/** Without `devices`, all data is read through the CIM. */
export function openCimView(
  cim: CimReader,
  options: { uuid: Uint8Array; volumeName: string; checkpoint: Checkpoint; devices?: ViewDevices },
): CimView {
  const root = viewRoot(cim);
  const tree = surveyTree(cim, root, options.checkpoint);
  const { devices = [], regions } = options.devices ?? {};

  const dataOf = (id: FileId, size: number): ErofsData => {
    if (cim.isSparse(id)) return { kind: 'hole' };
    const extent = size < MIN_DEVICE_DATA ? undefined : cim.extent(id);
    const place = extent && regions?.get(extent.region);
    if (extent !== undefined && place !== undefined && extent.offset % PAGE_SIZE === 0)
      return { kind: 'device', device: place.device, offset: place.base + extent.offset };
    return { kind: 'bytes', read: () => cim.streamChunks(id, undefined, READ_CHUNK) };
  };

  return {
    root,
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

/** A Windows image's root is its `Files` directory; of any other CIM it is the root. */
function viewRoot(cim: CimReader): FileId {
  return cim.lookup(viewRootPath(cim)) ?? cim.root;
}

/** Path of what a view shows as its root. */
export function viewRootPath(cim: CimReader): string {
  const files = cim.lookup('Files');
  return files !== undefined && cim.stat(files).isDirectory ? 'Files' : '';
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

/**
 * What the kernel can read file data from: the files that hold page-aligned regions of whole pages, each once. (A file
 * that isn't padded to whole pages gives errors at its end.)
 */
export function chooseDevices(cim: CimReader): ViewDevices {
  const numbers = new Map<string, number>();
  const devices: { size: number }[] = [];
  const regions = new Map<number, { device: number; base: number }>();
  for (const [region, { path, base, type, size }] of cim.regions.entries()) {
    if (type !== RegionType.data || size % PAGE_SIZE !== 0) continue;
    const device = numbers.get(path) ?? devices.length;
    numbers.set(path, device);
    devices[device] = { size: Math.max(devices[device]?.size ?? 0, base + size) };
    regions.set(region, { device, base });
  }
  return { files: [...numbers.keys()], devices, regions };
}
