/** Opens what an image consists of, wherever that is: a `.cim` with region files, a container's CIM, a merged one with its sources. */

import { CimletError } from '../errors.ts';
import { type Container, locateImage, openContainer } from './container.ts';
import { type ContainedCim, PartKind } from './container-format.ts';
import { type CimFault, withBase } from './faults.ts';
import { type ImageHeader, requireVersion } from './format.ts';
import { readImageHeader } from './image.ts';
import { type OpenRegion, RegionFiles } from './region-files.ts';
import { decodeSourceList, identifySource, type SourceIdentity, type SourceList } from './source-list.ts';

export interface OpenCimOptions {
  /** What a merged CIM was merged from, topmost first; needed for it, refused for others. */
  sources?: readonly string[] | undefined;
  /** The container must be sealed with this root hash, `sha256:...`. */
  rootHash?: string | undefined;
}

/** `block` in a container by itself, `merged` in a container with sources, else `forked`, which an image without parent counts as. */
export type ImageKind = 'forked' | 'block' | 'merged';

export interface OpenImage {
  path: string;
  kind: ImageKind;
  header: ImageHeader;
  files: RegionFiles;
  /** Where it is, unless that is a `.cim` file. */
  container: Container | undefined;
  cim: ContainedCim | undefined;
}

/** With `tolerate`, missing or malformed region files are handed to it and reads from them fail. */
export function openImage(
  path: string,
  options: OpenCimOptions = {},
  tolerate?: (fault: CimFault) => void,
): OpenImage {
  const place = locateImage(path);
  if (place.container !== undefined) return openContained(path, place.container, place.name, options);
  if (options.rootHash !== undefined)
    throw new CimletError('failed-precondition', `open CIM ${path}: only CIMs in containers can be sealed`);
  refuseSources(path, options.sources);
  const header = readImageHeader(path);
  requireVersion(path, header.version);
  const files = RegionFiles.open(path, [...header.parents, header.own], tolerate);
  return { path, kind: 'forked', header, files, container: undefined, cim: undefined };
}

function openContained(
  path: string,
  containerPath: string,
  name: string | undefined,
  { sources, rootHash }: OpenCimOptions,
): OpenImage {
  const opened = new Map<string, Container>();
  try {
    const container = openContainer(containerPath, rootHash);
    opened.set(containerPath, container);
    const cim = container.cim(name);
    const header = container.imageHeader(cim);
    requireVersion(path, header.version);
    const list = readSourceList(container, cim);
    if (list === undefined) refuseSources(path, sources);
    const inherited = list === undefined ? [] : openSources(path, header, list, sources, opened);
    const regions = [...inherited, ...container.regions(cim, header)];
    const files = new RegionFiles(path, regions);
    return { path, kind: list === undefined ? 'block' : 'merged', header, files, container, cim };
  } catch (error) {
    for (const container of opened.values()) container.close();
    throw error;
  }
}

/** What the CIM was merged from; undefined when it is no merged one. */
export function readSourceList(container: Container, cim: ContainedCim): SourceList | undefined {
  const part = cim.parts.find(({ kind }) => kind === PartKind.sources);
  if (part === undefined) return undefined;
  return withBase(part.offset, () =>
    decodeSourceList(container.read(part, `the sources of ${cim.name}`), container.path),
  );
}

function refuseSources(path: string, sources: readonly string[] | undefined): void {
  if (sources === undefined || sources.length === 0) return;
  throw new CimletError('failed-precondition', `open CIM ${path}: it is no merged CIM and takes no sources`);
}

function openSources(
  path: string,
  header: ImageHeader,
  list: SourceList,
  sources: readonly string[] | undefined,
  opened: Map<string, Container>,
): OpenRegion[] {
  const refuse = (message: string, hint = 'give the CIMs it was merged from, topmost first') =>
    new CimletError('failed-precondition', `open merged CIM ${path}: ${message}`, { hint });
  const count = list.sources.length;
  if (count !== header.parents.length) throw refuse(`its header and its source list differ`, 'merge again');
  if (sources?.length !== count)
    throw refuse(`it was merged from ${count} CIMs and ${sources?.length ?? 0} are given`);
  return sources.flatMap((source, i) => {
    const expected = list.sources[i];
    const { container, cim } = openSource(source, opened);
    const sourceHeader = container.imageHeader(cim);
    const { own } = sourceHeader;
    if (own.guid !== expected?.guid) {
      const rightful = list.sources.findIndex(({ guid }) => guid === own.guid);
      throw refuse(
        rightful < 0
          ? `it was not merged from ${source}`
          : `${source} is given as source ${i + 1} and was number ${rightful + 1}`,
      );
    }
    if (container.kind !== list.kind)
      throw refuse(`${source} is in a ${container.kind}, and it was merged from ${list.kind}s`);
    if ((container.seal !== undefined) !== list.sealed)
      throw refuse(`${source} is ${list.sealed ? 'not sealed any more' : 'sealed, and it was not'}`);
    if (
      !sameIdentity(identifySource(container, cim, own.guid), expected) ||
      own.count !== header.parents[i]?.count
    )
      throw refuse(`${source} has changed since`, 'merge again, or bring back what was merged');
    return container.regions(cim, sourceHeader);
  });
}

function sameIdentity(a: SourceIdentity, b: SourceIdentity): boolean {
  return a.guid === b.guid && a.size === b.size && a.digest.equals(b.digest);
}

/** Opens the container of a source, or takes the one that is open already. */
export function openSource(
  source: string,
  opened: Map<string, Container>,
): { container: Container; cim: ContainedCim } {
  const place = locateImage(source);
  if (place.container === undefined)
    throw new CimletError('failed-precondition', `open CIM ${source}: it is not in a container`, {
      hint: 'only block CIMs can be merged; a forked CIM holds what its parents hold already',
    });
  const container = opened.get(place.container) ?? openContainer(place.container);
  opened.set(place.container, container);
  return { container, cim: container.cim(place.name) };
}
