/** What differs between two images, whatever kinds they are: names, metadata, streams, bytes, and which names are names of one file. */

import { ReachedDirectories } from './reached-directories.ts';
import type { CimReader } from './reader.ts';
import type { DirectoryEntry, FileId, FileInfo } from './types.ts';
import { upcaseName } from './upcase.ts';

export interface CimDifference {
  /** From the root, separated by `/`, as the second image spells it where it has it. */
  path: string;
  /** `removed` is in the first image only, `added` in the second only, and so is all below; `changed` is in both. */
  change: 'added' | 'removed' | 'changed';
  /** Of `changed`: what differs, such as `type`, `size`, `data`, `attributes`, `name` or `stream NAME`; else empty. */
  what: string[];
}

/** Properties of FileInfo that are compared as they are. */
const SCALARS = [
  'size',
  'attributes',
  'creationTime',
  'lastWriteTime',
  'changeTime',
  'lastAccessTime',
  'reparseTag',
] as const;
const BLOBS = ['securityDescriptor', 'extendedAttributes', 'reparseData'] as const;
const CHUNK = 256 * 1024;

/**
 * All differences between two open images, directory by directory. Nothing is said of what is below an entry that only one has. A directory
 * that is reached twice is `corrupt`.
 */
export function* diffCims(
  first: CimReader,
  second: CimReader,
  { checkpoint }: { checkpoint?: (() => void) | undefined } = {},
): Generator<CimDifference> {
  const comparison = new Comparison(first, second);
  const [reachedOfFirst, reachedOfSecond] = [new ReachedDirectories(first), new ReachedDirectories(second)];
  reachedOfFirst.add(first.root, '');
  reachedOfSecond.add(second.root, '');
  const what = comparison.compare(first.root, second.root);
  if (what.length > 0) yield { path: '', change: 'changed', what };
  const pending = [{ path: '', a: first.root, b: second.root }];
  for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
    for (const { a, b } of comparison.pair(next.a, next.b)) {
      checkpoint?.();
      const path = `${next.path}${(b ?? a)?.name}`;
      if (a === undefined || b === undefined) {
        yield { path, change: a === undefined ? 'added' : 'removed', what: [] };
        continue;
      }
      const what = comparison.compare(a.id, b.id);
      if (a.name !== b.name) what.unshift('name');
      if (what.length > 0) yield { path, change: 'changed', what };
      if (!first.isDirectory(a.id) || !second.isDirectory(b.id)) continue;
      reachedOfFirst.add(a.id, path);
      reachedOfSecond.add(b.id, path);
      pending.push({ path: `${path}/`, a: a.id, b: b.id });
    }
  }
}

class Comparison {
  readonly #a: CimReader;
  readonly #b: CimReader;
  /** Files that were compared, each with the one of the other image. */
  readonly #twinsOfA = new Map<FileId, FileId>();
  readonly #twinsOfB = new Map<FileId, FileId>();
  readonly #buffers = [Buffer.allocUnsafeSlow(CHUNK), Buffer.allocUnsafeSlow(CHUNK)] as const;

  constructor(a: CimReader, b: CimReader) {
    this.#a = a;
    this.#b = b;
  }

  /** The entries of two directories by name; names compare as in the first image. */
  *pair(a: FileId, b: FileId): Generator<{ a: DirectoryEntry | undefined; b: DirectoryEntry | undefined }> {
    const key = (entry: DirectoryEntry) => upcaseName(this.#a.upcase, entry.name);
    const others = new Map(Array.from(this.#b.entries(b), (entry) => [key(entry), entry]));
    for (const entry of this.#a.entries(a)) {
      const twin = others.get(key(entry));
      others.delete(key(entry));
      yield { a: entry, b: twin };
    }
    for (const entry of others.values()) yield { a: undefined, b: entry };
  }

  /** What differs between two files or directories, apart from their entries; nothing for two that were compared before. */
  compare(a: FileId, b: FileId): string[] {
    const [twinOfA, twinOfB] = [this.#twinsOfA.get(a), this.#twinsOfB.get(b)];
    if (twinOfA === b && twinOfB === a) return [];
    const what = twinOfA === undefined && twinOfB === undefined ? [] : ['hard links'];
    this.#twinsOfA.set(a, twinOfA ?? b);
    this.#twinsOfB.set(b, twinOfB ?? a);
    const [infoA, infoB] = [this.#a.stat(a), this.#b.stat(b)];
    if (infoA.isDirectory !== infoB.isDirectory) return [...what, 'type'];
    what.push(...metadataDifferences(infoA, infoB));
    if (!infoA.isDirectory && infoA.size === infoB.size && !this.#sameBytes(a, b)) what.push('data');
    return [...what, ...this.#streamDifferences(a, b)];
  }

  #streamDifferences(a: FileId, b: FileId): string[] {
    const key = ({ name }: { name: string }) => upcaseName(this.#a.upcase, name);
    const others = new Map(this.#b.streams(b).map((stream) => [key(stream), stream]));
    const different: string[] = [];
    for (const stream of this.#a.streams(a)) {
      const twin = others.get(key(stream));
      others.delete(key(stream));
      const same =
        twin?.name === stream.name && twin.size === stream.size && this.#sameBytes(a, b, stream.name);
      if (!same) different.push(`stream ${stream.name}`);
    }
    return [...different, ...Array.from(others.values(), ({ name }) => `stream ${name}`)];
  }

  /** Compares streams of the same size. */
  #sameBytes(a: FileId, b: FileId, name?: string): boolean {
    const place = (cim: CimReader, id: FileId) => {
      const extent = cim.extent(id, name);
      const region = extent && cim.regions[extent.region];
      return extent && region && `${region.base + extent.offset} ${region.path}`;
    };
    const placeOfA = place(this.#a, a);
    if (placeOfA !== undefined && placeOfA === place(this.#b, b)) return true;
    const [left, right] = this.#buffers;
    for (let position = 0; ; ) {
      const read = this.#a.readStream(a, name, left, position);
      this.#b.readStream(b, name, right, position);
      if (left.compare(right, 0, read, 0, read) !== 0) return false;
      if (read === 0) return true;
      position += read;
    }
  }
}

function metadataDifferences(a: FileInfo, b: FileInfo): string[] {
  const different: string[] = SCALARS.filter((property) => a[property] !== b[property]);
  different.push(...BLOBS.filter((property) => !sameBlob(a[property], b[property])));
  if (a.mark?.kind !== b.mark?.kind || targetOf(a) !== targetOf(b)) different.push('mark');
  return different;
}

function targetOf({ mark }: FileInfo): string | undefined {
  return mark?.kind === 'merge-link' ? mark.target : undefined;
}

function sameBlob(a: Uint8Array | undefined, b: Uint8Array | undefined): boolean {
  return a === undefined || b === undefined ? a === b : Buffer.compare(a, b) === 0;
}
