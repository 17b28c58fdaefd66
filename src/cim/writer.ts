/**
 * Writes a forked CIM: an image alone, or as a fork of another in the same directory. A fork begins as what its parent is.
 * How calls must come is in image-writer.ts.
 */

import { join } from 'node:path';
import { CimletError } from '../errors.ts';
import { isGuid, MAX_REGIONS, REGION_TYPES } from './format.ts';
import { imageFileName } from './image.ts';
import { DirectoryTarget } from './image-target.ts';
import { ImageWriter } from './image-writer.ts';
import { checkName } from './names.ts';
import { ObjectStore } from './object-store.ts';
import { openCim } from './reader.ts';

export type { FinishedCim } from './image-writer.ts';

export interface CimWriterOptions {
  directory: string;
  /** `x` for `x.cim`. */
  name: string;
  /** Names the region and object ID files; lower case with dashes, unique in the directory. */
  regionGuid: string;
  /** Name of the image in the same directory to fork from. */
  parent?: string | undefined;
}

/** Starts an image: creates its region files under temporary names (`tmp-…`), replacing leftovers. */
export function createCimWriter(options: CimWriterOptions): CimWriter {
  const { directory, name, regionGuid, parent: parentName } = options;
  const operation = `create CIM ${join(directory, imageFileName(name))}`;
  checkName(operation, name);
  if (!isGuid(regionGuid))
    throw new CimletError('corrupt', `${operation}: "${regionGuid}" is no GUID in lower case with dashes`);
  const parent = parentName === undefined ? undefined : openCim(join(directory, imageFileName(parentName)));
  try {
    const ancestors = parent === undefined ? [] : [...parent.header.parents, parent.header.own];
    if (ancestors.some((set) => set.guid === regionGuid) || parentName === name)
      throw new CimletError(
        'failed-precondition',
        `${operation}: an ancestor has the same name or region GUID`,
      );
    if ((parent?.regions.length ?? 0) + REGION_TYPES.length > MAX_REGIONS)
      throw new CimletError('failed-precondition', `${operation}: the chain has too many region files`);
    const target = new DirectoryTarget(directory, imageFileName(name), regionGuid);
    try {
      return new CimWriter({ name, regionGuid, parent, store: new ObjectStore(target, parent) });
    } catch (error) {
      target.discard();
      throw error;
    }
  } catch (error) {
    parent?.close();
    throw error;
  }
}

/** Use `createCimWriter`. */
export class CimWriter extends ImageWriter {
  /** Removes a file's name, or a directory with all below it; false when there is none. */
  deletePath(path: string): boolean {
    return this.removePath(path);
  }
}
