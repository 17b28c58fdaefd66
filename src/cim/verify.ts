/**
 * Checks every structure of an image, whoever wrote it: headers, bounds, alignment, file tables, directories (order, duplicates, names,
 * dangling IDs, cycles), streams, blobs, object IDs with their digests. Files that no directory names are fine.
 */

import { isErrorCode } from '../errors.ts';
import { type CimFault, corruptAt, FaultList, faultOf } from './faults.ts';
import { FILES_PER_TABLE, MAX_PATH_UNITS } from './format.ts';
import { type OpenCimOptions, type OpenImage, openImage } from './open-image.ts';
import { CimReader } from './reader.ts';
import type { FileId } from './types.ts';
import { verifyContainer } from './verify-container.ts';
import { verifyFiles } from './verify-files.ts';
import { verifyRegion } from './verify-objects.ts';

export type { CimFault } from './faults.ts';

/**
 * All faults of an image and of the region files it inherits, or of its container, whose every byte is checked; none for a sound one. Of a
 * merged image's sources the regions are checked, not the rest of their containers. Bad content never throws; what cannot be read at all
 * (`not-found`, `access-denied`) does, and so do wrong sources (`failed-precondition`).
 */
export function verifyCim(path: string, options: OpenCimOptions = {}): CimFault[] {
  const faults = new FaultList();
  const image = faults.collect(() => openChecked(path, options, faults));
  if (image === undefined) return faults.list;
  const { files, container } = image;
  try {
    if (container !== undefined) verifyContainer(container, faults);
    const reader = faults.collect(() => new CimReader(image));
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

function openChecked(path: string, options: OpenCimOptions, faults: FaultList): OpenImage {
  try {
    return openImage(path, options, (fault) => faults.addBroken(fault));
  } catch (error) {
    if (!isErrorCode(error, 'unsupported-host')) throw error;
    throw corruptAt(path, 16, error.message);
  }
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
