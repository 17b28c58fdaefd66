/** What the images that this host writes are called where cimfs wants a container and a name in it. */

import { basename, dirname } from 'node:path';
import type { CimImagePath } from '../../native/windows/cimfs.ts';

/** Of the image in a block layer's container, and of that in a merged CIM's. */
export const LAYER_IMAGE = 'layer.cim';
export const MERGED_IMAGE = 'merged.cim';

/** A forked image, by its `.cim` file. */
export function forkedImage(file: string): CimImagePath {
  return { container: dirname(file), name: basename(file) };
}

/** How a merge names a source. */
export function sourcePath({ container, name }: CimImagePath): string {
  return `${container}\\${name}`;
}

/** Of the merged CIM of a layer's parents, which is there while that is unpacked. */
export const LOWER_FILE = 'parents.bcim';
export const LOWER_IMAGE = 'parents.cim';

/** Whether a file name in the folder of forked images is one that cimfs or this host gives there. */
export function isForkedFile(name: string): boolean {
  return /^(?:[0-9a-f]{64}|[0-9a-f]{128})-\d+\.cim$|^(?:region|objectid)_[0-9a-f-]{36}_\d+$|^tmp-spool-[0-9a-f-]{36}$/i.test(
    name,
  );
}
