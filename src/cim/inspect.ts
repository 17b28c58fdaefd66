/** What a person wants to know of an image before its contents: header, files, counts, the container and its seal. */

import { basename, dirname, join } from 'node:path';
import { isErrorCode } from '../errors.ts';
import { type Container, locateImage, openContainer } from './container.ts';
import type { ImageHeader, RegionSet } from './format.ts';
import { fileSize, readImageHeader, setFileNames } from './image.ts';
import { nameRootHash } from './merkle.ts';
import { type ImageKind, type OpenCimOptions, readSourceList } from './open-image.ts';
import { openCim } from './reader.ts';
import type { FileId } from './types.ts';
import { readVhdFooter } from './vhd-footer.ts';

export interface CimDescription {
  path: string;
  kind: ImageKind;
  version: { major: number; minor: number };
  regionGuid: string;
  /** The region sets that come before its own: a fork's ancestors, base first; a merged image's sources, topmost first. */
  parents: RegionSet[];
  /** The `.cim`, then the files of the ancestors, then its own; or the container. `size` is absent when the file is. */
  files: { name: string; size: number | undefined; inherited: boolean }[];
  container?: ContainerDescription;
  /** What only an image of version 1 with all its files tells. */
  contents?: { fileIds: number; fileTables: number; root: FileId; regions: { type: number; size: number }[] };
  /** Why there are no `contents`. */
  problem?: string;
}

export interface ContainerDescription {
  format: string;
  kind: 'file' | 'device';
  /** Bytes of content, without seal and footer. */
  size: number;
  cims: string[];
  /** Of a seal, which is not verified here. */
  rootHash?: string;
  vhdFooter?: { uniqueId: string; size: number };
  /** What a merged CIM was merged from, topmost first; the digest of a sealed one is its root hash. */
  sources?: { regionGuid: string; digest: string }[];
}

const CONTAINER_FORMAT =
  "cimlet container, version 1 (the embedded host's own; Windows neither writes nor reads it)";

/**
 * What the header of a `.cim` file says, and which files it names, for the versions that Windows writes (2.x, 3.x) too; or the same of a CIM
 * in a container. A merged one without its `sources` has no `contents`.
 */
export function inspectCim(path: string, options: OpenCimOptions = {}): CimDescription {
  const place = locateImage(path);
  if (place.container !== undefined) return inspectContained(path, place.container, place.name, options);
  const header = readImageHeader(path);
  const file = (inherited: boolean) => (name: string) => ({
    name,
    size: fileSize(join(dirname(path), name)),
    inherited,
  });
  const files = [
    file(false)(basename(path)),
    ...header.parents.flatMap(setFileNames).map(file(true)),
    ...setFileNames(header.own).map(file(false)),
  ];
  return { path, kind: 'forked', ...headerFacts(header), files, ...inspectContents(path, options) };
}

function inspectContained(
  path: string,
  containerPath: string,
  name: string | undefined,
  options: OpenCimOptions,
): CimDescription {
  const container = openContainer(containerPath);
  try {
    const cim = container.cim(name);
    const header = container.imageHeader(cim);
    const list = readSourceList(container, cim);
    const size = container.kind === 'device' ? container.header.end : fileSize(containerPath);
    const sources = list?.sources.map(({ guid, digest }) => ({
      regionGuid: guid,
      digest: nameRootHash(digest),
    }));
    return {
      path,
      kind: list === undefined ? 'block' : 'merged',
      ...headerFacts(header),
      files: [{ name: basename(containerPath), size, inherited: false }],
      container: { ...containerFacts(container), ...(sources && { sources }) },
      ...inspectContents(path, options),
    };
  } finally {
    container.close();
  }
}

function headerFacts({ version, own, parents }: ImageHeader) {
  return { version, regionGuid: own.guid, parents };
}

function containerFacts({ path, kind, header, directory, seal }: Container): ContainerDescription {
  const footer = kind === 'file' ? readVhdFooter(path) : undefined;
  return {
    format: CONTAINER_FORMAT,
    kind,
    size: header.end,
    cims: directory.cims.map((cim) => cim.name),
    ...(seal && { rootHash: seal.rootHash }),
    ...(footer && { vhdFooter: footer }),
  };
}

function inspectContents(
  path: string,
  options: OpenCimOptions,
): Pick<CimDescription, 'contents' | 'problem'> {
  try {
    const reader = openCim(path, options);
    reader.close();
    const regions = reader.regions.map(({ type, size }) => ({ type, size }));
    const { fileCount, tables, root } = reader;
    return { contents: { fileIds: fileCount, fileTables: tables.length, root, regions } };
  } catch (error) {
    if (!isErrorCode(error, 'corrupt', 'unsupported-host', 'failed-precondition')) throw error;
    return { problem: error.message };
  }
}
