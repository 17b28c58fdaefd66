/**
 * Writes a block CIM: one layer alone, in a container. What it takes away from the layers below, and names that it gives to their files, are
 * entries of it; `mergeBlockCims` acts on them. How calls must come is in image-writer.ts.
 */

import { CimletError } from '../errors.ts';
import { type ContainerPlace, ContainerTarget } from './container-target.ts';
import { isGuid, RegionType } from './format.ts';
import { imageFileName } from './image.ts';
import { ImageWriter } from './image-writer.ts';
import { checkName } from './names.ts';
import { ObjectStore } from './object-store.ts';

export type BlockCimWriterOptions = ContainerPlace & {
  /** `x` for `x.cim` in the container. */
  name: string;
  /** Lower case with dashes; unique among all that will ever be merged. */
  regionGuid: string;
  /** Adds to the container that is there, in place, instead of starting a new one. */
  append?: boolean | undefined;
};

/**
 * Starts a block CIM. A new container `file` is written under a temporary name; `publishContainer` gives it the final one. A `device` holds no
 * container any more until the CIM is finished. With `append` the container stays what it was until then.
 */
export function createBlockCimWriter(options: BlockCimWriterOptions): BlockCimWriter {
  const { name, regionGuid, append = false } = options;
  const operation = `create CIM ${options.file ?? options.device}/${imageFileName(name)}`;
  checkName(operation, name);
  if (!isGuid(regionGuid))
    throw new CimletError('corrupt', `${operation}: "${regionGuid}" is no GUID in lower case with dashes`);
  const target = new ContainerTarget(options, { name, append, inPlace: RegionType.data });
  return new BlockCimWriter({
    name,
    regionGuid,
    parent: undefined,
    store: new ObjectStore(target, undefined),
  });
}

/** Use `createBlockCimWriter`. */
export class BlockCimWriter extends ImageWriter {
  /**
   * Hides whatever lower layers hold at `path` and below it. The parent directory must exist in this image. A directory that is at `path`, or
   * comes there later, keeps its entries and is opaque; a file or link hides what is below it anyway.
   */
  tombstone(path: string): void {
    this.hideLower(path);
  }

  /**
   * Makes `path` another name of the file that the layers below this one show at `target`; whether there is one is decided when they are
   * merged. Replaces a file at `path`; the parent directory must exist in this image. `already-exists` where a directory is.
   */
  createMergeLink(path: string, target: string): void {
    this.linkLower(path, target);
  }
}
