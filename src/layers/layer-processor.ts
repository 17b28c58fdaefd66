import type { CimStream, FileMetadata } from '../cim/types.ts';
import { entryError, forEntry, quoteName, type TarHeader } from '../tar/tar-format.ts';
import type { TarHandler } from '../tar/tar-reader.ts';
import { completeBaseLayer } from './base-layer.ts';
import type { LayerWriter } from './cim-writer.ts';
import { DeferredEntries, noSuchTarget } from './deferred-entries.ts';
import { findDeltas, type HiveMerger, isDeferredFile, writeMergedHive } from './hives.ts';
import { impliedDirectoryMetadata, type LayerEntry, readLayerEntry } from './layer-entry.ts';
import { splitPath } from './layer-path.ts';
import type { LayerPolicy } from './layer-policy.ts';
import { addChild, childOf, foldName, type LayerNode } from './layer-tree.ts';
import type { LowerView } from './lower-view.ts';

/**
 * Writes the entries of one layer's tar, as a TarReader finds them, into a CIM.
 *
 * - Within a layer the last entry of a name wins; two names that differ only in case are an error.
 * - Whiteouts and opaque markers act on lower layers only, wherever in the tar they stand: what this layer adds stays.
 * - Nothing is written through a file or link: an entry below one is an error.
 * - A directory that only its children imply takes the times of the first of them and no other metadata; where lower
 *   layers have it, it stays as it is.
 * - An alternate stream follows its file.
 * - Hives, utility VM boot files and links to them come last, as hcsshim adds them; links last if the policy says so.
 *
 * Memory is bounded by the number of names (about 200 bytes each), never by data.
 */
export class LayerProcessor implements TarHandler {
  /** Names written: files, directories, links. */
  files = 0;
  /** Bytes of data, alternate streams included. */
  bytes = 0;
  readonly #writer: LayerWriter;
  readonly #policy: LayerPolicy;
  readonly #onEntry: ((path: string) => void) | undefined;
  readonly #isBase: boolean;
  readonly #hiveMerger: HiveMerger | undefined;
  readonly #root: LayerNode;
  readonly #deferred: DeferredEntries;

  #stream: CimStream | undefined;
  #header: TarHeader | undefined;
  /** Whose alternate streams may come now, and which have come. */
  #streamOwner: string | undefined;
  readonly #streams = new Set<string>();
  /** The directory found last: entries of one directory come together. */
  #lastParent: { path: string; node: LayerNode } | undefined;

  constructor(
    writer: LayerWriter,
    policy: LayerPolicy,
    options: {
      isBase: boolean;
      spoolDirectory: string;
      /** Without one, whoever takes the layer works on its hives: they are files like any other. */
      hiveMerger: HiveMerger | undefined;
      onEntry?: ((path: string) => void) | undefined;
    },
  ) {
    this.#writer = writer;
    this.#policy = policy;
    this.#onEntry = options.onEntry;
    this.#isBase = options.isBase;
    this.#hiveMerger = options.hiveMerger;
    this.#deferred = new DeferredEntries(options.spoolDirectory);
    this.#root = { name: '', kind: 'directory', hasLower: !options.isBase, children: undefined };
  }

  entry(header: TarHeader): void {
    this.#header = header;
    forEntry(header, () => this.#write(header, readLayerEntry(header)));
    this.#onEntry?.(header.name);
  }

  data(chunk: Uint8Array): void {
    this.#stream?.write(chunk);
    this.bytes += chunk.length;
  }

  end(): void {
    const header = this.#header;
    const stream = this.#stream;
    this.#stream = undefined;
    if (header !== undefined && stream !== undefined) forEntry(header, () => stream.close());
  }

  /** What this layer has added at `path`. */
  added(path: string): LayerNode | undefined {
    let node: LayerNode | undefined = this.#root;
    for (const name of path.split('/')) node = node && childOf(node, name);
    return node;
  }

  /**
   * Adds what waits for the tar's end: deferred files, links, what a base layer gets, hives merged with those of
   * `lower`, tombstones. Returns warnings.
   */
  complete(lower: LowerView | undefined): string[] {
    const merger = this.#hiveMerger;
    const isMerging = merger !== undefined && lower !== undefined;
    const deltas = isMerging ? findDeltas(this.#root, (path) => this.#deferred.file(path)) : [];
    this.#policy.settle(this.#root);
    this.#deferred.writeFiles(this.#writer);
    this.#deferred.writeLinks({
      isOwn: (target) => this.added(target) !== undefined,
      link: (path, target, isOwn) => this.#policy.link(path, target, isOwn),
    });
    const isCompleting = merger !== undefined && this.#isBase;
    const warnings = isCompleting ? completeBaseLayer(this.#writer, (path) => this.added(path)) : [];
    if (isMerging) {
      for (const hive of deltas) {
        const delta = this.#deferred.read(hive.delta);
        const merge = () => writeMergedHive(hive, delta, lower, this.#writer, merger);
        warnings.push(...forEntry(hive.delta.place, merge));
      }
    }
    this.#policy.finish();
    return warnings;
  }

  /** Releases the spool. Any number of times. */
  close(): void {
    this.#deferred.close();
  }

  #write(header: TarHeader, entry: LayerEntry): void {
    if (entry.kind === 'stream') {
      this.#addStream(header, entry);
      return;
    }
    this.#streamOwner = undefined;
    switch (entry.kind) {
      case 'root':
        return;
      case 'whiteout':
        this.#whiteOut(header, entry.path);
        return;
      case 'opaque':
        this.#empty(header, entry.path);
        return;
      case 'hard-link':
        this.#addHardLink(header, entry.path, entry.target);
        return;
      case 'directory':
        this.#makeWay(header, entry.path, 'directory');
        this.#create(entry.path, entry.metadata).close();
        break;
      case 'link':
        this.#makeWay(header, entry.path, 'link');
        this.#create(entry.path, entry.metadata).close();
        break;
      case 'file':
        this.#makeWay(header, entry.path, 'file');
        this.#stream = this.#isDeferred(entry.path)
          ? this.#defer(header, entry.path, entry.metadata)
          : this.#create(entry.path, entry.metadata);
        break;
    }
    this.#streamOwner = entry.path;
    this.#streams.clear();
  }

  #isDeferred(path: string): boolean {
    return this.#hiveMerger !== undefined && isDeferredFile(path);
  }

  #create(path: string, metadata: FileMetadata): CimStream {
    this.files++;
    return this.#writer.createFile(path, metadata);
  }

  #defer(header: TarHeader, path: string, metadata: FileMetadata): CimStream {
    this.files++;
    return this.#deferred.addFile(path, metadata, header);
  }

  /** Records the name and removes what can't stay where an entry of this kind is about to be written. */
  #makeWay(header: TarHeader, path: string, kind: LayerNode['kind']): void {
    const [parentPath, name] = splitPath(path);
    if (parentPath === '' && kind !== 'directory') {
      throw entryError(header, `${quoteName(path)} must be a directory`);
    }
    const parent = this.#parent(header, parentPath);
    const own = childOf(parent, name);
    if (own !== undefined) {
      this.#refuseOtherCase(header, parentPath, own, name);
      if (own.kind === kind && kind === 'directory') return;
      if (!this.#deferred.drop(path)) this.#policy.removeOwn(path, own.kind, kind, header);
      if (own.kind === 'directory') this.#deferred.dropBelow(path);
      this.#lastParent = undefined;
      addChild(parent, name, kind, false);
      return;
    }
    const lower = parent.hasLower ? this.#policy.lower(path) : 'absent';
    const staysDirectory = lower === 'directory' && kind === 'directory';
    if (lower !== 'absent' && !staysDirectory) this.#policy.removeLower(path, header);
    addChild(parent, name, kind, staysDirectory);
  }

  #addHardLink(header: TarHeader, path: string, target: string): void {
    if (foldName(path) === foldName(target)) throw entryError(header, 'a hard link to itself');
    if (this.#isDeferred(path))
      throw entryError(header, 'a registry hive or boot file can not be a hard link');
    this.#makeWay(header, path, 'file');
    if (this.#policy.linksLast || this.#deferred.has(target)) this.#deferred.addLink(path, target, header);
    else if (!this.#policy.link(path, target, this.added(target) !== undefined)) {
      throw noSuchTarget(header, target);
    }
    this.files++;
  }

  #addStream(header: TarHeader, entry: { path: string; stream: string; size: number }): void {
    if (entry.path !== this.#streamOwner) {
      throw entryError(header, `an alternate stream must follow its file, ${quoteName(entry.path)}`);
    }
    if (this.#deferred.has(entry.path)) {
      throw entryError(header, 'a registry hive or boot file can not have alternate streams');
    }
    const folded = foldName(entry.stream);
    if (this.#streams.has(folded)) throw entryError(header, 'the file has a stream of that name already');
    this.#streams.add(folded);
    this.#stream = this.#writer.createAlternateStream(entry.path, entry.stream, entry.size);
  }

  #whiteOut(header: TarHeader, path: string): void {
    const own = this.added(path);
    if (own === undefined) this.#policy.removeLower(path, header);
    else if (own.kind === 'directory') this.#policy.emptyLower(path, own);
  }

  #empty(header: TarHeader, path: string): void {
    this.#policy.emptyLower(path, this.#parent(header, path));
  }

  /** The node of a directory that something is about to be added to; made, with those above it, when missing. */
  #parent(header: TarHeader, path: string): LayerNode {
    if (path === '') return this.#root;
    if (this.#lastParent?.path === path) return this.#lastParent.node;
    let node = this.#root;
    for (let start = 0; start <= path.length; ) {
      const slash = path.indexOf('/', start);
      const end = slash < 0 ? path.length : slash;
      node = this.#enter(header, node, path.slice(0, end), path.slice(start, end));
      start = end + 1;
    }
    this.#lastParent = { path, node };
    return node;
  }

  #enter(header: TarHeader, parent: LayerNode, path: string, name: string): LayerNode {
    const own = childOf(parent, name);
    if (own !== undefined) {
      this.#refuseOtherCase(header, splitPath(path)[0], own, name);
      if (own.kind !== 'directory') throw this.#belowFile(header, path, own.kind);
      return own;
    }
    const lower = parent.hasLower ? this.#policy.lower(path) : 'absent';
    if (lower === 'file' || lower === 'link') throw this.#belowFile(header, path, lower);
    if (lower === 'absent') this.#create(path, impliedDirectoryMetadata(header)).close();
    else this.#policy.enterLower(path);
    return addChild(parent, name, 'directory', lower === 'directory');
  }

  #belowFile(header: TarHeader, path: string, kind: 'file' | 'link'): Error {
    const what = kind === 'file' ? 'a file' : 'a symlink or mount point';
    return entryError(header, `${quoteName(path)} is ${what}, nothing can be below it`);
  }

  #refuseOtherCase(header: TarHeader, parentPath: string, own: LayerNode, name: string): void {
    if (own.name === name) return;
    const prefix = parentPath === '' ? '' : `${parentPath}/`;
    throw entryError(
      header,
      `case collision: ${quoteName(`${prefix}${own.name}`)} and ${quoteName(`${prefix}${name}`)} are one name on Windows`,
    );
  }
}
