/**
 * The region files an image adds, and the objects in them: each object is written once, and not at all when an
 * ancestor has it. Three files, always, so that a region's number is the base plus its type: metadata, data on whole
 * pages (4,096 bytes and more), small data on 8 bytes.
 */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { removeFile, writeDurable } from './durable-files.ts';
import { attempt } from './faults.ts';
import {
  encodeRegionHeader,
  objectIdFileName,
  PAGE_SIZE,
  REGION_TYPES,
  type RegionOffset,
  RegionType,
  regionFileName,
  SMALL_ALIGNMENT,
} from './format.ts';
import { type CimFile, fileSize } from './image.ts';
import { digestOf, ObjectIdFile, ObjectIndex } from './object-ids.ts';
import type { CimReader } from './reader.ts';
import type { Region } from './region-files.ts';
import { RegionWriter } from './region-writer.ts';

export const TEMPORARY_PREFIX = 'tmp-';

export class ObjectStore {
  /** Room for the small stream that is being written; there is one at a time. */
  readonly scratch = Buffer.alloc(PAGE_SIZE);
  readonly #directory: string;
  readonly #guid: string;
  readonly #base: number;
  readonly #regions: RegionWriter[] = [];
  readonly #indexes = REGION_TYPES.map(() => new ObjectIndex());
  readonly #parent: CimReader | undefined;
  /** Object IDs of the ancestors by region type. */
  readonly #inherited: InheritedObjects[][];

  /** The numbers of the new regions follow those of the parent. */
  constructor(directory: string, guid: string, parent: CimReader | undefined) {
    const inherited = parent?.regions ?? [];
    this.#parent = parent;
    this.#directory = directory;
    this.#guid = guid;
    this.#base = inherited.length;
    this.#inherited = REGION_TYPES.map((type) => loadObjectIds(directory, inherited, type));
    try {
      for (const type of REGION_TYPES)
        this.#regions.push(
          new RegionWriter(
            this.#temporary(regionFileName(guid, type)),
            encodeRegionHeader({ index: type, type }),
          ),
        );
    } catch (error) {
      this.discard();
      throw error;
    }
  }

  region(type: RegionType): RegionWriter {
    const region = this.#regions[type];
    if (region === undefined) throw new Error(`region ${type} is not open`);
    return region;
  }

  /** A place in a region this store writes, as other objects refer to it. */
  offsetIn(type: RegionType, offset: number): RegionOffset {
    return { region: this.#base + type, offset };
  }

  /** Where an object with this content is, in this image or an ancestor. */
  find(type: RegionType, digest: Buffer, length: number): RegionOffset | undefined {
    const own = this.#indexes[type]?.find(digest, length);
    if (own !== undefined) return this.offsetIn(type, own);
    for (const objects of this.#inherited[type] ?? []) {
      const offset = objects.ids.find(digest, length);
      if (offset !== undefined && this.#isIntact(objects, offset, length, digest))
        return { region: objects.region, offset };
    }
    return undefined;
  }

  /** Remembers an object that was written at `offset`. */
  add(type: RegionType, digest: Buffer, length: number, offset: number): RegionOffset {
    this.#indexes[type]?.add(digest, length, offset);
    return this.offsetIn(type, offset);
  }

  /** Stores a whole object, or finds it. */
  put(type: RegionType, data: Uint8Array): RegionOffset {
    const digest = digestOf(data);
    return (
      this.find(type, digest, data.length) ?? this.add(type, digest, data.length, this.#write(type, data))
    );
  }

  /** Stores metadata that is never looked for again: tables. */
  putTable(data: Uint8Array): RegionOffset {
    return this.offsetIn(RegionType.metadata, this.#write(RegionType.metadata, data));
  }

  /** Reads an object of a region this store writes; undefined when the region is an ancestor's. */
  read(at: RegionOffset, length: number): Buffer | undefined {
    return this.#regions[at.region - this.#base]?.read(at.offset, length);
  }

  /** Makes all files durable under their temporary names; returns them by their final ones. */
  finish(): CimFile[] {
    const files: CimFile[] = [];
    for (const type of REGION_TYPES)
      files.push({ name: regionFileName(this.#guid, type), size: this.region(type).finish() });
    for (const type of REGION_TYPES) {
      const bytes = this.#indexes[type]?.encode({ index: type, type }) ?? Buffer.alloc(0);
      const name = objectIdFileName(this.#guid, type);
      writeDurable(this.#temporary(name), bytes);
      files.push({ name, size: bytes.length });
    }
    return files;
  }

  /** Closes and removes everything. */
  discard(): void {
    for (const region of this.#regions) region.close();
    for (const type of REGION_TYPES) {
      removeFile(this.#temporary(regionFileName(this.#guid, type)));
      removeFile(this.#temporary(objectIdFileName(this.#guid, type)));
    }
  }

  /** Looks at an ancestor's bytes before they are relied on: where they are damaged, a fork keeps its own. */
  #isIntact(objects: InheritedObjects, offset: number, length: number, digest: Buffer): boolean {
    if (objects.intact.has(offset)) return true;
    const at = { region: objects.region, offset };
    if (offset + length > objects.size || !this.#parent?.digest(at, length).equals(digest)) return false;
    objects.intact.add(offset);
    return true;
  }

  #write(type: RegionType, data: Uint8Array): number {
    const region = this.region(type);
    const offset = region.align(type === RegionType.data ? PAGE_SIZE : SMALL_ALIGNMENT);
    region.append(data);
    return offset;
  }

  #temporary(name: string): string {
    return join(this.#directory, TEMPORARY_PREFIX + name);
  }
}

interface InheritedObjects {
  /** Region number. */
  region: number;
  /** Bytes in the region file. */
  size: number;
  ids: ObjectIdFile;
  /** Offsets of objects that were found to have their digest. */
  intact: Set<number>;
}

/** An ancestor without object IDs (they are optional) is one whose objects aren't found. */
function loadObjectIds(directory: string, regions: readonly Region[], type: RegionType) {
  const found: InheritedObjects[] = [];
  regions.forEach(({ guid, index, size, type: regionType }, region) => {
    if (regionType !== type) return;
    const path = join(directory, objectIdFileName(guid, index));
    if (fileSize(path) === undefined) return;
    const ids = new ObjectIdFile(
      path,
      attempt(`read ${path}`, () => readFileSync(path)),
    );
    found.push({ region, size, ids, intact: new Set() });
  });
  // The nearest ancestor is the likeliest to have it.
  return found.reverse();
}
