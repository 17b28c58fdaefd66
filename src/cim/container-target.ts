/**
 * Writes a CIM as parts of a container. One region is streamed in place, the others into nameless files beside the container (they hold what
 * is small), and follow it at the end. The header is written last: until then there is no container, or it is what it was.
 */

import { createHash } from 'node:crypto';
import {
  closeSync,
  fsyncSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  readSync,
  rmdirSync,
  unlinkSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { CimletError } from '../errors.ts';
import { openContainer } from './container.ts';
import {
  type ContainedCim,
  type ContainerDirectory,
  type ContainerPart,
  encodeContainerDirectory,
  encodeContainerHeader,
  PartKind,
  type Span,
  sha256,
} from './container-format.ts';
import { removeFile, syncDirectory, writeFully } from './durable-files.ts';
import { attempt } from './faults.ts';
import { alignUp, encodeRegionHeader, PAGE_SIZE, RegionType } from './format.ts';
import { type CimFile, imageFileName } from './image.ts';
import { type ImageTarget, TEMPORARY_PREFIX } from './image-target.ts';
import type { ObjectIndex } from './object-ids.ts';
import { RegionWriter } from './region-writer.ts';
import { readVhdFooter } from './vhd-footer.ts';

const COPY_CHUNK = 1024 * 1024;

/** The file or block device that a container is. */
export type ContainerPlace = { file: string; device?: undefined } | { device: string; file?: undefined };

export interface ContainerTargetOptions {
  /** Name of the CIM, without `.cim`. */
  name: string;
  /** Adds to the container that is there, in place. */
  append: boolean;
  /** The region that is streamed into the container itself. */
  inPlace: RegionType;
  /** Bytes of a further part, the source list of a merged CIM. */
  sources?: Buffer;
}

/** Where a new container file is written before it gets its name. */
function temporaryContainer(file: string): string {
  return join(dirname(file), TEMPORARY_PREFIX + basename(file));
}

interface OpenedRegion {
  type: RegionType;
  index: number;
  /** Absent for the one in place. */
  spill: number | undefined;
  writer: RegionWriter;
}

export class ContainerTarget implements ImageTarget {
  readonly #place: ContainerPlace;
  readonly #options: ContainerTargetOptions;
  readonly #path: string;
  readonly #descriptor: number;
  readonly #before: ContainerDirectory;
  readonly #oldEnd: number | undefined;
  readonly #regions: OpenedRegion[] = [];
  #position: number;
  #open = true;

  constructor(place: ContainerPlace, options: ContainerTargetOptions) {
    this.#place = place;
    this.#options = options;
    const target = place.file ?? place.device;
    this.#path = place.file === undefined || options.append ? target : temporaryContainer(place.file);
    const before = options.append ? readBefore(this.#path, imageFileName(options.name)) : undefined;
    this.#before = before?.directory ?? { cims: [], retired: [] };
    this.#oldEnd = before?.end;
    // The page behind the old content stays empty: a seal would be there, and a dead run's leftovers are none.
    this.#position = before === undefined ? PAGE_SIZE : before.end + PAGE_SIZE;
    const flags = place.file !== undefined && !options.append ? 'w+' : 'r+';
    this.#descriptor = attempt(`create ${this.#path}`, () => openSync(this.#path, flags));
    try {
      this.#prepare();
    } catch (error) {
      closeSync(this.#descriptor);
      throw error;
    }
  }

  openRegion(type: RegionType): RegionWriter {
    const inPlace = type === this.#options.inPlace;
    const index = this.#regions.length;
    const spill = inPlace ? undefined : openSpill(this.#place.file);
    const writer = new RegionWriter(
      {
        path: this.#path,
        descriptor: spill ?? this.#descriptor,
        base: inPlace ? this.#position : 0,
      },
      encodeRegionHeader({ index, type }),
      { writeBack: inPlace && this.#place.file !== undefined },
    );
    this.#regions.push({ type, index, spill, writer });
    return writer;
  }

  finish(indexes: ReadonlyMap<RegionType, ObjectIndex>, image: Buffer): CimFile[] {
    const parts = this.#finishRegions();
    for (const { type, index } of this.#regions) {
      const ids = indexes.get(type)?.encode({ index, type });
      if (ids !== undefined) parts.push(this.#append(PartKind.objectId, type, index, ids));
    }
    parts.push(this.#append(PartKind.image, 0, 0, image));
    if (this.#options.sources !== undefined)
      parts.push(this.#append(PartKind.sources, 0, 0, this.#options.sources));
    const cim: ContainedCim = { name: imageFileName(this.#options.name), parts };
    const { cims, retired } = this.#before;
    const bytes = encodeContainerDirectory({ cims: [...cims, cim], retired });
    const directory: Span = { offset: this.#position, length: bytes.length, digest: sha256(bytes) };
    this.#write(bytes);
    this.#publish(directory);
    this.#close();
    const file = this.#place.file ?? this.#place.device ?? '';
    if (this.#place.file !== undefined) syncDirectory(dirname(file));
    return [{ name: basename(file), size: this.#position }];
  }

  discard(): void {
    if (!this.#open) return;
    if (this.#place.file !== undefined && this.#oldEnd !== undefined) {
      const end = this.#oldEnd;
      attempt(`restore ${this.#path}`, () => ftruncateSync(this.#descriptor, end));
    }
    this.#close();
    if (this.#place.file !== undefined && this.#oldEnd === undefined) removeFile(this.#path);
  }

  /** Makes what is there no container any more, or leaves the old one with nothing behind it. */
  #prepare(): void {
    attempt(`write ${this.#path}`, () => {
      if (this.#oldEnd === undefined) writeFully(this.#descriptor, ZEROS, 0);
      else if (this.#place.file !== undefined) ftruncateSync(this.#descriptor, this.#oldEnd);
      else writeFully(this.#descriptor, ZEROS, this.#oldEnd);
      if (this.#place.device !== undefined) fsyncSync(this.#descriptor);
    });
  }

  /** Puts the spilled regions behind the one in place; data first, as it is largest. */
  #finishRegions(): ContainerPart[] {
    const inPlace = this.#regions.find(({ spill }) => spill === undefined);
    const spilled = this.#regions.filter(({ spill }) => spill !== undefined).reverse();
    const parts: ContainerPart[] = [];
    for (const region of inPlace === undefined ? spilled : [inPlace, ...spilled]) {
      const { type, index, writer, spill } = region;
      const length = writer.finish();
      const offset = this.#position;
      const digest = type === RegionType.data ? undefined : this.#digestOrCopy(spill, length);
      this.#position = offset + length;
      parts.push({ kind: PartKind.region, type, index, offset, length, digest });
    }
    return parts;
  }

  /** The SHA-256 of a finished region, which is copied from its spill file when it has one. */
  #digestOrCopy(spill: number | undefined, length: number): Buffer {
    const chunk = Buffer.allocUnsafeSlow(Math.min(COPY_CHUNK, length));
    const from = spill ?? this.#descriptor;
    const base = spill === undefined ? this.#position : 0;
    const hash = createHash('sha256');
    for (let done = 0; done < length; ) {
      const read = attempt(`read ${this.#path}`, () =>
        readSync(from, chunk, 0, Math.min(chunk.length, length - done), base + done),
      );
      if (read === 0) throw new CimletError('corrupt', `write ${this.#path}: it became shorter`);
      const piece = chunk.subarray(0, read);
      hash.update(piece);
      if (spill !== undefined)
        attempt(`write ${this.#path}`, () => writeFully(this.#descriptor, piece, this.#position + done));
      done += read;
    }
    return hash.digest();
  }

  #append(kind: PartKind, type: number, index: number, bytes: Buffer): ContainerPart {
    const offset = this.#position;
    this.#write(bytes);
    return { kind, type, index, offset, length: bytes.length, digest: sha256(bytes) };
  }

  #write(bytes: Buffer): void {
    const padding = alignUp(bytes.length, PAGE_SIZE) - bytes.length;
    attempt(`write ${this.#path}`, () => {
      writeFully(this.#descriptor, bytes, this.#position);
      writeFully(this.#descriptor, ZEROS.subarray(0, padding), this.#position + bytes.length);
    });
    this.#position += bytes.length + padding;
  }

  #publish(directory: Span): void {
    const end = this.#position;
    attempt(`write ${this.#path}`, () => {
      // What was taken back may reach beyond the end, and what a device held before does.
      if (this.#place.file !== undefined) ftruncateSync(this.#descriptor, end);
      else clearBehind(this.#descriptor, end);
      fsyncSync(this.#descriptor);
      writeFully(this.#descriptor, encodeContainerHeader({ directory, end }), 0);
      fsyncSync(this.#descriptor);
    });
  }

  #close(): void {
    this.#open = false;
    closeSync(this.#descriptor);
    for (const { spill } of this.#regions) if (spill !== undefined) closeSync(spill);
  }
}

const ZEROS = Buffer.alloc(PAGE_SIZE);

/** The container that a CIM is to be added to, its present directory retired. */
function readBefore(path: string, image: string): { directory: ContainerDirectory; end: number } {
  const container = openContainer(path);
  try {
    const operation = `add ${image} to container ${path}`;
    const { directory, header, seal, kind } = container;
    const closed =
      seal !== undefined ? 'sealed' : kind === 'file' && readVhdFooter(path) ? 'a VHD' : undefined;
    if (closed !== undefined)
      throw new CimletError('failed-precondition', `${operation}: it is ${closed} already`);
    if (directory.cims.some(({ name }) => name === image))
      throw new CimletError('already-exists', `${operation}: it has a CIM of that name`);
    return {
      directory: { cims: directory.cims, retired: [...directory.retired, header.directory] },
      end: header.end,
    };
  } finally {
    container.close();
  }
}

/** Where a seal would be there must be none of an earlier container; a device may end before that. */
function clearBehind(descriptor: number, position: number): void {
  try {
    writeFully(descriptor, ZEROS, position);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
  }
}

/** A file without a name, gone with its descriptor; beside a container file, for a device where temporary files go. */
function openSpill(file: string | undefined): number {
  const parent = file === undefined ? tmpdir() : dirname(file);
  return attempt(`create a temporary file in ${parent}`, () => {
    const directory = mkdtempSync(join(parent, TEMPORARY_PREFIX));
    const path = join(directory, 'spill');
    try {
      const descriptor = openSync(path, 'w+');
      unlinkSync(path);
      return descriptor;
    } finally {
      rmdirSync(directory);
    }
  });
}
