import { FileAttribute, type FileInfo } from '../cim/types.ts';
import { CimletError } from '../errors.ts';
import { splitPath } from './layer-path.ts';
import { LayerTarWriter } from './layer-tar.ts';
import { foldName } from './layer-tree.ts';
import type { LowerView } from './lower-view.ts';
import { writeEntry } from './write-entry.ts';

/** Files as a running system shows them, the root included, whose path is empty. */
export interface FileTree extends LowerView {
  /** What it is, for errors. */
  readonly from: string;
  /** The same for all names of one file; undefined for a file with a single name. */
  identity(path: string): string | undefined;
}

export interface TreeExportOptions {
  /** What the tree was before it was written to; without it all of the tree is exported. */
  lower?: LowerView | undefined;
  /** Path of the tree's root in the tar: `Files`, or empty. */
  below: string;
  /** Whether a name in the root, folded, belongs to no layer. */
  isOmitted?: ((name: string) => boolean) | undefined;
  /** Looked at with every entry and chunk; an abort becomes CimletError `cancelled`. */
  signal?: AbortSignal | undefined;
}

/** Attributes that somebody sets on purpose. */
const ATTRIBUTES = FileAttribute.readOnly | FileAttribute.hidden | FileAttribute.system;

/**
 * Yields, as an uncompressed Windows layer tar, what makes one tree of another. Nothing says what was written to, so the
 * trees are compared: what has the same size, times and attributes on both sides is the same; where only the change time
 * differs, all else is looked at, bytes included. Directories above a change come with it. A directory that was replaced
 * by another comes as what differs within.
 *
 * Memory is bounded by the names of one directory, and the files with several names that are exported.
 */
export function* exportTree(tree: FileTree, options: TreeExportOptions): Generator<Uint8Array> {
  const chunks: Uint8Array[] = [];
  const tar = new LayerTarWriter((bytes) => chunks.push(bytes));
  for (const _ of new TreeExport(tree, options, tar).write()) {
    if (options.signal?.aborted)
      throw new CimletError('cancelled', `export ${tree.from}: cancelled`, { cause: options.signal.reason });
    yield* chunks.splice(0);
  }
  tar.finish();
  yield* chunks.splice(0);
}

class TreeExport {
  readonly #tree: FileTree;
  readonly #options: TreeExportOptions;
  readonly #tar: LayerTarWriter;
  /** Directories being looked into that are as they were, outermost first: written once something below them is. */
  readonly #unwritten: string[] = [];
  /** By identity, the path in the tar of files that have several names. */
  readonly #written = new Map<string, string>();

  constructor(tree: FileTree, options: TreeExportOptions, tar: LayerTarWriter) {
    this.#tree = tree;
    this.#options = options;
    this.#tar = tar;
  }

  *write(): Generator<void> {
    yield* this.#writeDirectory('', this.#options.lower === undefined ? undefined : '');
  }

  /** `lowerPath`: the same directory of the lower tree, which may be spelled otherwise. */
  *#writeDirectory(path: string, lowerPath: string | undefined): Generator<void> {
    const isChanged = lowerPath === undefined || isRenamed(path, lowerPath) || this.#differs(path, lowerPath);
    if (isChanged) yield* this.#writeEntry(path);
    else this.#unwritten.push(path);
    const there = new Map<string, string>();
    if (lowerPath !== undefined)
      for (const name of this.#names(this.#options.lower, lowerPath)) there.set(foldName(name), name);
    for (const name of this.#names(this.#tree, path)) {
      const lowerName = there.get(foldName(name));
      there.delete(foldName(name));
      const below = lowerName === undefined ? undefined : joined(lowerPath ?? '', lowerName);
      yield* this.#writeName(joined(path, name), below);
    }
    for (const name of [...there.values()].sort()) yield* this.#writeWhiteout(joined(path, name));
    if (this.#unwritten.at(-1) === path) this.#unwritten.pop();
  }

  *#writeName(path: string, lowerPath: string | undefined): Generator<void> {
    const info = this.#tree.stat(path);
    if (info === undefined) return;
    const lower = lowerPath === undefined ? undefined : this.#options.lower?.stat(lowerPath);
    const [isDirectory, wasDirectory] = [
      isPlainDirectory(info),
      lower !== undefined && isPlainDirectory(lower),
    ];
    if (isDirectory && wasDirectory) return yield* this.#writeDirectory(path, lowerPath);
    if (lower !== undefined && isDirectory !== wasDirectory) yield* this.#writeWhiteout(path);
    if (isDirectory) return yield* this.#writeDirectory(path, undefined);
    if (lowerPath === undefined || isRenamed(path, lowerPath) || this.#differs(path, lowerPath))
      yield* this.#writeEntry(path);
  }

  *#writeWhiteout(path: string): Generator<void> {
    yield* this.#writeAbove();
    this.#tar.whiteout(this.#inTar(path));
    yield;
  }

  *#writeEntry(path: string): Generator<void> {
    yield* this.#writeAbove();
    const identity = this.#tree.identity(path);
    const target = identity === undefined ? undefined : this.#written.get(identity);
    if (target !== undefined) {
      this.#tar.hardLink(this.#inTar(path), target);
      yield;
      return;
    }
    if (identity !== undefined) this.#written.set(identity, this.#inTar(path));
    yield* this.#writeOwn(path);
  }

  *#writeAbove(): Generator<void> {
    for (const directory of this.#unwritten.splice(0)) yield* this.#writeOwn(directory);
  }

  *#writeOwn(path: string): Generator<void> {
    const tree = this.#tree;
    const info = tree.stat(path);
    if (info === undefined || this.#inTar(path) === '') return;
    const source = {
      from: tree.from,
      // Reading is what changes the time of the last access.
      info: { ...info, lastAccessTime: info.lastWriteTime },
      streams: tree.streams(path),
      read: (stream?: string) => tree.read(path, stream),
    };
    yield* writeEntry(this.#tar, this.#inTar(path), source);
  }

  #names(tree: LowerView | undefined, path: string): string[] {
    const { isOmitted = () => false } = this.#options;
    const names = Array.from(tree?.entries(path) ?? [], ({ name }) => name).sort();
    return path === '' ? names.filter((name) => !isOmitted(foldName(name))) : names;
  }

  #differs(path: string, lowerPath: string): boolean {
    const { lower } = this.#options;
    const [a, b] = [this.#tree.stat(path), lower?.stat(lowerPath)];
    if (lower === undefined || a === undefined || b === undefined) return true;
    if (a.isDirectory !== b.isDirectory || a.reparseTag !== b.reparseTag) return true;
    if (!a.isDirectory && a.size !== b.size) return true;
    if ((a.attributes & ATTRIBUTES) !== (b.attributes & ATTRIBUTES)) return true;
    if (a.creationTime !== b.creationTime || a.lastWriteTime !== b.lastWriteTime) return true;
    if (a.changeTime === b.changeTime) return false;
    return (
      !isSame(a.securityDescriptor, b.securityDescriptor) ||
      !isSame(a.reparseData, b.reparseData) ||
      !isSame(a.extendedAttributes, b.extendedAttributes) ||
      this.#streamsDiffer(path, lower, lowerPath) ||
      (!a.isDirectory && !haveSameBytes(this.#tree.read(path), lower.read(lowerPath)))
    );
  }

  #streamsDiffer(path: string, lower: LowerView, lowerPath: string): boolean {
    const [own, others] = [this.#tree.streams(path), lower.streams(lowerPath)];
    if (own.length !== others.length) return true;
    return own.some(({ name, size }) => {
      const other = others.find((stream) => foldName(stream.name) === foldName(name));
      return (
        other?.size !== size || !haveSameBytes(this.#tree.read(path, name), lower.read(lowerPath, other.name))
      );
    });
  }

  #inTar(path: string): string {
    return joined(this.#options.below, path);
  }
}

function joined(directory: string, name: string): string {
  if (directory === '' || name === '') return directory + name;
  return `${directory}/${name}`;
}

function isRenamed(path: string, lowerPath: string): boolean {
  return splitPath(path)[1] !== splitPath(lowerPath)[1];
}

/** No symlink or mount point. */
function isPlainDirectory({ isDirectory, reparseTag }: FileInfo): boolean {
  return isDirectory && reparseTag === 0;
}

function isSame(a: Uint8Array | undefined, b: Uint8Array | undefined): boolean {
  return a === undefined || b === undefined ? a === b : Buffer.compare(a, b) === 0;
}

/** However they are cut into chunks. */
function haveSameBytes(a: Iterable<Uint8Array>, b: Iterable<Uint8Array>): boolean {
  const others = b[Symbol.iterator]();
  let other: Uint8Array = new Uint8Array();
  try {
    for (let chunk of a)
      while (chunk.length > 0) {
        if (other.length === 0) {
          const next = others.next();
          if (next.done === true) return false;
          other = next.value;
          continue;
        }
        const length = Math.min(chunk.length, other.length);
        if (Buffer.compare(chunk.subarray(0, length), other.subarray(0, length)) !== 0) return false;
        [chunk, other] = [chunk.subarray(length), other.subarray(length)];
      }
    for (;;) {
      if (other.length > 0) return false;
      const next = others.next();
      if (next.done === true) return true;
      other = next.value;
    }
  } finally {
    others.return?.();
  }
}
