/** Opens containers of block CIMs, sealed or not. Layouts: container-format.ts, merkle.ts. */

import { createHash } from 'node:crypto';
import { fstatSync, type Stats, statSync } from 'node:fs';
import { basename, dirname } from 'node:path';
import { CimletError, classify } from '../errors.ts';
import { type ByteSource, FileSource, readBytes, readPage, readPieces } from './byte-source.ts';
import {
  CONTAINER_MAGIC,
  type ContainedCim,
  type ContainerDirectory,
  type ContainerHeader,
  type ContainerPart,
  decodeContainerDirectory,
  decodeContainerHeader,
  PartKind,
  type Span,
} from './container-format.ts';
import { attempt, corruptAt, withBase } from './faults.ts';
import {
  decodeImageHeader,
  decodeRegionHeader,
  type ImageHeader,
  PAGE_SIZE,
  REGION_HEADER_SIZE,
} from './format.ts';
import { decodeSealPage, type Seal } from './merkle.ts';
import type { OpenRegion } from './region-files.ts';
import { SealedSource } from './sealed-source.ts';

const MAX_PART = 2 ** 30;

export type ContainerKind = 'file' | 'device';

/** Where an image is: a `.cim` file, or in a container, where it needs no name if it is the only one. */
export type ImagePlace = { container: undefined } | { container: string; name: string | undefined };

/** Tells `x.cim` from `x.bcim/name.cim`, `/dev/loop0/name.cim`, `x.bcim` and `/dev/loop0`. */
export function locateImage(path: string): ImagePlace {
  const own = statIfThere(path);
  if (own?.isBlockDevice() || (own?.isFile() && hasContainerMagic(path)))
    return { container: path, name: undefined };
  if (own !== undefined) return { container: undefined };
  const container = dirname(path);
  const above = statIfThere(container);
  if (above?.isBlockDevice() || above?.isFile()) return { container, name: basename(path) };
  return { container: undefined };
}

function statIfThere(path: string): Stats | undefined {
  try {
    return statSync(path);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
    throw classify(error, `look at ${path}`);
  }
}

function hasContainerMagic(path: string): boolean {
  const file = new FileSource(path);
  try {
    const magic = Buffer.alloc(CONTAINER_MAGIC.length);
    return file.readSome(magic, 0) === magic.length && magic.equals(CONTAINER_MAGIC);
  } finally {
    file.close();
  }
}

export class Container {
  readonly path: string;
  readonly kind: ContainerKind;
  readonly header: ContainerHeader;
  /** The header's page. */
  readonly headerPage: Buffer;
  readonly directory: ContainerDirectory;
  readonly seal: Seal | undefined;
  /** Verifies every block when the container is sealed. */
  readonly source: ByteSource;

  /** Use `openContainer`. Takes over `file`. */
  constructor(file: FileSource, kind: ContainerKind) {
    const { path } = file;
    this.path = path;
    this.kind = kind;
    this.headerPage = readPage(file, 0);
    this.header = decodeContainerHeader(this.headerPage, path);
    const { end, directory } = this.header;
    if (readPage(file, end - PAGE_SIZE).length < PAGE_SIZE)
      throw corruptAt(path, end - PAGE_SIZE, `the container is shorter than the ${end} bytes it declares`);
    this.seal = decodeSealPage(readPage(file, end), this.headerPage, path, end);
    this.source = this.seal === undefined ? file : new SealedSource(file, this.seal);
    const bytes = readBytes(this.source, directory.offset, directory.length, 'the container directory');
    this.directory = decodeContainerDirectory(bytes, this.header, path);
  }

  close(): void {
    this.source.close();
  }

  /** A CIM by its name with `.cim`; without a name, the only one. */
  cim(name: string | undefined): ContainedCim {
    const { cims } = this.directory;
    const found = name === undefined ? cims[0] : cims.find((cim) => cim.name === name);
    if (found !== undefined && (name !== undefined || cims.length === 1)) return found;
    const names = cims.map((cim) => cim.name).join(', ');
    throw name === undefined
      ? new CimletError('failed-precondition', `open CIM ${this.path}: which of its ${cims.length} CIMs?`, {
          hint: `add one of its names to the path: ${names}`,
        })
      : new CimletError('not-found', `open CIM ${this.path}/${name}: the container has no such CIM`, {
          hint: `it has: ${names}`,
        });
  }

  /** The header of a CIM's image, as a `.cim` file has it. */
  imageHeader(cim: ContainedCim): ImageHeader {
    const part = cim.parts.find(({ kind }) => kind === PartKind.image);
    if (part === undefined) throw corruptAt(this.path, 0, `${cim.name} has no image header`);
    return withBase(part.offset, () => decodeImageHeader(this.read(part, 'an image header'), this.path));
  }

  /** The regions that a CIM itself brings, by index. */
  regions(cim: ContainedCim, { own }: ImageHeader): OpenRegion[] {
    if (own.count === 0) throw corruptAt(this.path, 0, `${cim.name} has no region of its own`);
    return Array.from({ length: own.count }, (_, index) => {
      const part = cim.parts.find((part) => part.kind === PartKind.region && part.index === index);
      if (part === undefined) throw corruptAt(this.path, 0, `${cim.name} has no region ${index}`);
      const bytes = readBytes(this.source, part.offset, REGION_HEADER_SIZE, `region ${index} of ${cim.name}`);
      const header = withBase(part.offset, () => decodeRegionHeader(bytes, this.path));
      if (header.index !== index || header.type !== part.type)
        throw corruptAt(this.path, part.offset + 32, `region ${index} of ${cim.name} says it is another`);
      const region = {
        path: this.path,
        base: part.offset,
        type: part.type,
        size: part.length,
        guid: own.guid,
        index,
      };
      return { region, source: this.source, readObjectIds: () => this.#objectIds(cim, index) };
    });
  }

  /** A part whole; none that a sane container has is as large as the limit, but for regions. */
  read({ offset, length }: ContainerPart, what: string): Buffer {
    if (length > MAX_PART)
      throw corruptAt(this.path, offset, `${what} has ${length} bytes, too many to read`);
    return readBytes(this.source, offset, length, what);
  }

  /** The SHA-256 of some bytes as they are now. */
  digest({ offset, length }: Omit<Span, 'digest'>, what: string): Buffer {
    const hash = createHash('sha256');
    for (const piece of readPieces(this.source, offset, length, what)) hash.update(piece);
    return hash.digest();
  }

  #objectIds(cim: ContainedCim, index: number) {
    const part = cim.parts.find((part) => part.kind === PartKind.objectId && part.index === index);
    return {
      path: this.path,
      base: part?.offset ?? 0,
      bytes: part && this.read(part, `object IDs of region ${index}`),
    };
  }
}

/** Opens a container: header, directory and seal are checked, and with `rootHash` that the seal is that one. */
export function openContainer(path: string, rootHash?: string): Container {
  const file = new FileSource(path);
  try {
    const stats = attempt(`open container ${path}`, () => fstatSync(file.descriptor));
    const container = new Container(file, stats.isBlockDevice() ? 'device' : 'file');
    if (rootHash !== undefined) requireRootHash(container, rootHash);
    return container;
  } catch (error) {
    file.close();
    throw error;
  }
}

function requireRootHash({ path, seal }: Container, rootHash: string): void {
  if (seal?.rootHash === rootHash) return;
  const found = seal === undefined ? 'it is not sealed' : `its root hash is ${seal.rootHash}`;
  throw new CimletError('corrupt', `open container ${path}: ${found}, expected is ${rootHash}`, {
    hint: 'it is not the container that was expected, or it was changed; write it again',
  });
}
