/**
 * The regions an image adds, and the objects in them: each object is written once, and not at all when an
 * ancestor has it. Three regions, always, so that a region's number is the base plus its type: metadata, data on whole
 * pages (4,096 bytes and more), small data on 8 bytes.
 */

import { dirname, join } from 'node:path';
import { readWhole } from './byte-source.ts';
import {
  objectIdFileName,
  PAGE_SIZE,
  REGION_HEADER_SIZE,
  REGION_TYPES,
  type RegionOffset,
  RegionType,
  SMALL_ALIGNMENT,
} from './format.ts';
import { type CimFile, fileSize } from './image.ts';
import type { ImageTarget } from './image-target.ts';
import { digestOf, ObjectIdFile, ObjectIndex } from './object-ids.ts';
import type { CimReader } from './reader.ts';
import type { RegionWriter } from './region-writer.ts';

export class ObjectStore {
  /** Room for the small stream that is being written; there is one at a time. */
  readonly scratch = Buffer.alloc(PAGE_SIZE);
  readonly #target: ImageTarget;
  readonly #base: number;
  readonly #regions: RegionWriter[];
  readonly #indexes = new Map(REGION_TYPES.map((type) => [type, new ObjectIndex()] as const));
  readonly #parent: CimReader | undefined;
  /** Object IDs of the ancestors by region type. */
  readonly #inherited: InheritedObjects[][];

  /** The numbers of the new regions follow those of the parent. Takes over `target`. */
  constructor(target: ImageTarget, parent: CimReader | undefined) {
    this.#target = target;
    this.#parent = parent;
    this.#base = parent?.regions.length ?? 0;
    this.#inherited = REGION_TYPES.map((type) => (parent ? loadObjectIds(parent, type) : []));
    try {
      this.#regions = REGION_TYPES.map((type) => target.openRegion(type));
    } catch (error) {
      target.discard();
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
    const own = this.#indexes.get(type)?.find(digest, length);
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
    this.#indexes.get(type)?.add(digest, length, offset);
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

  /** Makes everything durable, the image's header last; returns the image's files by their final names. */
  finish(image: Buffer): CimFile[] {
    return this.#target.finish(this.#indexes, image);
  }

  /** Closes and removes everything. */
  discard(): void {
    this.#target.discard();
  }

  /** Looks at an ancestor's bytes before they are relied on: where they are damaged, a fork keeps its own. */
  #isIntact(objects: InheritedObjects, offset: number, length: number, digest: Buffer): boolean {
    if (objects.intact.has(offset)) return true;
    const at = { region: objects.region, offset };
    if (offset < REGION_HEADER_SIZE || offset + length > objects.size) return false;
    if (!this.#parent?.digest(at, length).equals(digest)) return false;
    objects.intact.add(offset);
    return true;
  }

  #write(type: RegionType, data: Uint8Array): number {
    const region = this.region(type);
    const offset = region.align(type === RegionType.data ? PAGE_SIZE : SMALL_ALIGNMENT);
    region.append(data);
    return offset;
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
function loadObjectIds(parent: CimReader, type: RegionType): InheritedObjects[] {
  const directory = dirname(parent.path);
  const found: InheritedObjects[] = [];
  parent.regions.forEach(({ guid, index, size, type: regionType }, region) => {
    if (regionType !== type) return;
    const path = join(directory, objectIdFileName(guid, index));
    if (fileSize(path) === undefined) return;
    const ids = new ObjectIdFile(path, readWhole(path));
    found.push({ region, size, ids, intact: new Set() });
  });
  // The nearest ancestor is the likeliest to have it.
  return found.reverse();
}
