/** Where a new image's bytes go: files of a directory here, parts of a container in container-target.ts. */

import { closeSync, fsyncSync, ftruncateSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { removeFile, syncDirectory, writeDurable } from './durable-files.ts';
import { attempt } from './faults.ts';
import {
  encodeRegionHeader,
  objectIdFileName,
  REGION_TYPES,
  type RegionType,
  regionFileName,
} from './format.ts';
import type { CimFile } from './image.ts';
import type { ObjectIndex } from './object-ids.ts';
import { RegionWriter } from './region-writer.ts';

export const TEMPORARY_PREFIX = 'tmp-';

export interface ImageTarget {
  /** Starts a region, once for each type that the image has. */
  openRegion(type: RegionType): RegionWriter;
  /** Makes regions, object IDs (by type) and the image's header durable; returns the image's files by their final names. */
  finish(indexes: ReadonlyMap<RegionType, ObjectIndex>, image: Buffer): CimFile[];
  /** Closes and removes what was written so far. */
  discard(): void;
}

/** Region files, object ID files and a `.cim`, all under temporary names. */
export class DirectoryTarget implements ImageTarget {
  readonly #directory: string;
  readonly #image: string;
  readonly #guid: string;
  readonly #regions = new Map<RegionType, { descriptor: number; writer: RegionWriter }>();

  /** `image` is the final name of the `.cim`. */
  constructor(directory: string, image: string, guid: string) {
    this.#directory = directory;
    this.#image = image;
    this.#guid = guid;
  }

  /** Creates the file, or empties what a dead run left there. */
  openRegion(type: RegionType): RegionWriter {
    const path = this.#temporary(regionFileName(this.#guid, type));
    const descriptor = attempt(`create ${path}`, () => openSync(path, 'w+'));
    const writer = new RegionWriter(
      { path, descriptor, base: 0 },
      encodeRegionHeader({ index: type, type }),
      { writeBack: true },
    );
    this.#regions.set(type, { descriptor, writer });
    return writer;
  }

  finish(indexes: ReadonlyMap<RegionType, ObjectIndex>, image: Buffer): CimFile[] {
    const files: CimFile[] = [];
    for (const [type, { descriptor, writer }] of this.#regions) {
      const name = regionFileName(this.#guid, type);
      const size = writer.finish();
      attempt(`write ${this.#temporary(name)}`, () => {
        ftruncateSync(descriptor, size);
        fsyncSync(descriptor);
      });
      this.#close(type, descriptor);
      files.push({ name, size });
    }
    for (const [type, index] of indexes)
      files.push(this.#write(objectIdFileName(this.#guid, type), index.encode({ index: type, type })));
    files.unshift(this.#write(this.#image, image));
    syncDirectory(this.#directory);
    return files;
  }

  discard(): void {
    for (const [type, { descriptor }] of this.#regions) this.#close(type, descriptor);
    for (const type of REGION_TYPES) {
      removeFile(this.#temporary(regionFileName(this.#guid, type)));
      removeFile(this.#temporary(objectIdFileName(this.#guid, type)));
    }
    removeFile(this.#temporary(this.#image));
  }

  #close(type: RegionType, descriptor: number): void {
    this.#regions.delete(type);
    closeSync(descriptor);
  }

  #write(name: string, bytes: Buffer): CimFile {
    writeDurable(this.#temporary(name), bytes);
    return { name, size: bytes.length };
  }

  #temporary(name: string): string {
    return join(this.#directory, TEMPORARY_PREFIX + name);
  }
}
