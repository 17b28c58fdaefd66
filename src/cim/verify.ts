/**
 * Checks every structure of an image, whoever wrote it: headers, bounds, alignment, file tables, directories (order, duplicates, names,
 * dangling IDs, cycles), streams, blobs, object IDs with their digests. Files that no directory names are fine.
 */

import { isErrorCode } from '../errors.ts';
import { type CimFault, corruptAt, FaultList, faultOf } from './faults.ts';
import { FILES_PER_TABLE, type ImageHeader, MAX_PATH_UNITS, requireVersion } from './format.ts';
import { readImageHeader } from './image.ts';
import { CimReader } from './reader.ts';
import { RegionFiles } from './region-files.ts';
import type { FileId } from './types.ts';
import { verifyFiles } from './verify-files.ts';
import { verifyRegion } from './verify-objects.ts';

export type { CimFault } from './faults.ts';

/**
 * All faults of an image and of the region files it inherits; none for a sound one. Bad content never throws; a `.cim` that cannot
 * be read at all (`not-found`, `access-denied`) does.
 */
export function verifyCim(path: string): CimFault[] {
  const faults = new FaultList();
  const header = faults.collect(() => readCheckedHeader(path));
  if (header === undefined) return faults.list;
  const files = RegionFiles.open(path, [...header.parents, header.own], (fault) => faults.addBroken(fault));
  try {
    const reader = faults.collect(() => new CimReader(path, header, files));
    files.regions.forEach((region, number) => {
      verifyRegion(region, number, files, faults);
    });
    if (reader !== undefined) {
      verifyFiles(reader, files, faults);
      verifyTree(reader, faults);
    }
    return faults.list;
  } finally {
    files.close();
  }
}

function readCheckedHeader(path: string): ImageHeader {
  const header = readImageHeader(path);
  try {
    requireVersion(path, header.version);
  } catch (error) {
    if (!isErrorCode(error, 'unsupported-host')) throw error;
    throw corruptAt(path, 16, error.message);
  }
  return header;
}

/** The tree from the root: every ID exists, and every directory has one parent. */
function verifyTree(reader: CimReader, faults: FaultList): void {
  const exists = (id: FileId): boolean =>
    (id - 1) % FILES_PER_TABLE < (reader.tables[Math.floor((id - 1) / FILES_PER_TABLE)]?.count ?? 0);
  const { root } = reader;
  if (!exists(root) || !faults.collect(() => reader.isDirectory(root))) {
    faults.add(reader.faultAt(root, `the root, file ${root}, is no directory`));
    return;
  }
  const seen = new Set([root]);
  const stack = [{ id: root, length: 0 }];
  for (let top = stack.pop(); top !== undefined; top = stack.pop()) {
    const { id: directory, length } = top;
    // What is wrong with the table itself is said where the directory's entry is checked.
    const table = quietly(() => reader.entryTable(directory));
    for (let i = 0; i < (table?.count ?? 0); i++) {
      if (table === undefined) break;
      const id = table.bytes.readUInt32LE(table.valuePosition(i));
      if (!exists(id)) {
        faults.add(
          table.faultAt(i, `an entry of directory ${directory} names file ${id}, which does not exist`),
        );
        continue;
      }
      const longer = length + 1 + (quietly(() => table.name(i))?.length ?? 0);
      if (longer - 1 > MAX_PATH_UNITS)
        faults.add(table.faultAt(i, `a path has more than ${MAX_PATH_UNITS} UTF-16 units`));
      if (!quietly(() => reader.isDirectory(id))) continue;
      if (seen.has(id)) faults.add(table.faultAt(i, `directory ${id} is reached twice`));
      else stack.push({ id, length: longer });
      seen.add(id);
    }
  }
}

/** Undefined for a malformed structure that another check has reported. */
function quietly<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    if (faultOf(error) === undefined) throw error;
    return undefined;
  }
}
