/** Looks through a whole disk image for what is wrong with it. */

import { classify, isErrorCode } from '../errors.ts';
import { Disk } from './disk.ts';
import { type Ext4Fault, faultOf, quote } from './faults.ts';
import { ModeType } from './format.ts';
import { typeOf } from './inode.ts';
import { verifyVerity } from './verity-tree.ts';

export interface CheckOptions {
  /** What dm-verity's root hash must be, 64 hexadecimal digits. */
  rootHash?: string | undefined;
  /** Asked again and again: this doesn't give way to anything else. */
  signal?: Abortable | undefined;
}

export type Abortable = Pick<AbortSignal, 'throwIfAborted'>;

export interface DiskFacts {
  vhdFooter: boolean;
  /** Of dm-verity, 64 hexadecimal digits. */
  rootHash: string | undefined;
}

export interface CheckedDisk {
  faults: Ext4Fault[];
  /** As far as they could be read. */
  facts: DiskFacts;
}

/**
 * Every fault of an image: its footer, the file system with all names, link counts, extents and attributes, and each block that dm-verity
 * covers; none for a sound one. What can't be read because of a fault hides what is behind it. Errors other than `corrupt` are thrown.
 */
export function checkDisk(path: string, { rootHash, signal }: CheckOptions = {}): CheckedDisk {
  const faults: Ext4Fault[] = [];
  const facts: DiskFacts = { vhdFooter: false, rootHash: undefined };
  const collect = (check: () => void): void => {
    try {
      check();
    } catch (error) {
      const fault = faultOf(error);
      if (fault === undefined || !isErrorCode(error, 'corrupt')) throw classify(error, `verify ${path}`);
      faults.push(fault);
    }
  };
  collect(() => {
    const disk = new Disk(path);
    try {
      const { verity, footer } = disk;
      facts.vhdFooter = footer !== undefined;
      facts.rootHash = verity?.rootHash;
      checkEnd(disk, rootHash, faults);
      if (verity !== undefined) collect(() => faults.push(...verifyVerity(disk.file, verity, signal)));
      collect(() => checkFiles(disk, collect, faults, signal));
    } finally {
      disk.close();
    }
  });
  return { faults, facts };
}

function checkEnd(disk: Disk, rootHash: string | undefined, faults: Ext4Fault[]): void {
  const { verity, file, files, size } = disk;
  const end = verity?.end ?? files.size;
  const add = (offset: number, message: string) => faults.push({ file: file.path, offset, message });
  if (size !== end) add(end, `there are ${size - end} bytes that belong to nothing`);
  if (rootHash === undefined || verity?.rootHash === rootHash) return;
  add(files.size, verity === undefined ? 'there is no dm-verity' : `the root hash is ${verity.rootHash}`);
}

function checkFiles(
  { files, file }: Disk,
  collect: (check: () => void) => void,
  faults: Ext4Fault[],
  signal: Abortable | undefined,
): void {
  const links = new Map<number, { wanted: number; found: number; path: string }>();
  for (const { path, file: found } of files.walk(files.inode(2))) {
    signal?.throwIfAborted();
    collect(() => files.xattrs(found));
    const type = typeOf(found.mode);
    if (type === ModeType.symlink) collect(() => files.target(found));
    if (type === ModeType.file || type === ModeType.directory)
      collect(() => {
        for (const _extent of files.extents(found)) signal?.throwIfAborted();
      });
    if (type === ModeType.directory || (found.links === 1 && !links.has(found.number))) continue;
    const counted = links.get(found.number) ?? { wanted: found.links, found: 0, path };
    counted.found++;
    links.set(found.number, counted);
  }
  for (const [inode, { wanted, found, path }] of links)
    if (wanted !== found)
      faults.push({
        file: file.path,
        offset: 0,
        message: `inode ${inode} (${quote(path)}) has ${found} names and says ${wanted}`,
      });
}
