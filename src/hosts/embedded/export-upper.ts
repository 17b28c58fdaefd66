/** What was written over a chain of Windows layers, as the tar of the layer that it becomes. Runs in the worker. */

import { lstatSync, readlinkSync } from 'node:fs';
import { classify, isErrorCode } from '../../errors.ts';
import { pathFault } from '../../layers/layer-path.ts';
import { LayerTarWriter } from '../../layers/layer-tar.ts';
import { foldName } from '../../layers/layer-tree.ts';
import type { LowerView } from '../../layers/lower-view.ts';
import { type EntrySource, writeEntry } from '../../layers/write-entry.ts';
import { readUpperFile, refuse } from './upper-file.ts';
import { isOpaque, lookAtUpper, readUpper, type UpperEntry } from './upper-tree.ts';
import { viewNames } from './view-name.ts';

export interface UpperExportOptions {
  /** The upper directory. */
  upper: Buffer;
  /** The layers below; undefined for a snapshot without parents. */
  lower: LowerView | undefined;
  /** Where in the layers the directory belongs: `Files`, or '' for the root. */
  lowerRoot: string;
  warn(message: string): void;
}

/** In a Windows layer's tar, this is the root of its files. */
const TAR_ROOT = 'Files';

/**
 * Yields an uncompressed Windows layer tar, in the order of the names. Of a directory that hides lower ones, of a directory in the place of
 * a file and the other way round, whiteouts say so first. Throws `failed-precondition` for what a Windows layer can't hold: two names that differ in case
 * only, names that aren't UTF-8, devices and pipes.
 */
export function* exportUpper(options: UpperExportOptions): Generator<Uint8Array> {
  const chunks: Uint8Array[] = [];
  const tar = new LayerTarWriter((bytes) => chunks.push(bytes));
  const upper = new UpperExport(options, tar);
  for (const _ of upper.write()) yield* chunks.splice(0);
  tar.finish();
  yield* chunks.splice(0);
  upper.report();
}

interface Place {
  /** In the tar. */
  path: string;
  /** The same of the layers below; undefined where they have nothing to do with it. */
  lowerPath: string | undefined;
}

class UpperExport {
  readonly #options: UpperExportOptions;
  readonly #tar: LayerTarWriter;
  /** By inode, the path in the tar of files with several names. */
  readonly #written = new Map<bigint, string>();
  #xattrsLeft = 0;
  #socketsLeft = 0;

  constructor(options: UpperExportOptions, tar: LayerTarWriter) {
    this.#options = options;
    this.#tar = tar;
  }

  *write(): Generator<void> {
    const { upper, lower, lowerRoot } = this.#options;
    const root = { path: TAR_ROOT, lowerPath: lower === undefined ? undefined : lowerRoot };
    const entry = lookAtUpper(upper);
    const source = this.#sourceOf(entry, root);
    const was = lower?.stat(lowerRoot);
    // The root was made, not copied: what it is besides its time is what it was.
    const info =
      was === undefined ? source.info : { ...copyOf(was), lastWriteTime: source.info.lastWriteTime };
    yield* writeEntry(this.#tar, root.path, { ...source, info });
    yield* this.#writeChildren(upper, root);
  }

  report(): void {
    const { warn } = this.#options;
    if (this.#xattrsLeft > 0)
      warn(`${this.#xattrsLeft} extended attributes were left out: a Windows layer has no place for them`);
    if (this.#socketsLeft > 0) warn(`${this.#socketsLeft} sockets were left out`);
  }

  *#writeChildren(directory: Buffer, { path, lowerPath }: Place): Generator<void> {
    const names = new LowerNames(this.#options.lower, lowerPath);
    const entries = readUpper(directory);
    const spelled = new Map<string, string>();
    for (const entry of entries) {
      if (entry.kind === 'whiteout') continue;
      const name = nameOf(entry, path);
      const other = spelled.get(foldName(name));
      if (other !== undefined)
        throw refuse(
          `${path}/${name}`,
          `there is ${JSON.stringify(other)} too, and case makes no difference`,
        );
      spelled.set(foldName(name), name);
    }
    const gone = new Set<string>();
    for (const entry of entries) {
      if (entry.kind !== 'whiteout') continue;
      const name = names.realName(entry.name.toString());
      gone.add(name);
      // What takes the name in another spelling replaces it.
      if (spelled.has(foldName(name)) || !names.has(name)) continue;
      this.#tar.whiteout(`${path}/${name}`);
      yield;
    }
    for (const entry of entries) {
      if (entry.kind === 'whiteout') continue;
      const name = names.realName(nameOf(entry, path));
      // Not only for clear words: `a:b` would be a stream of `a`.
      const fault = pathFault(name);
      if (fault !== undefined) throw refuse(`${path}/${name}`, fault);
      const lowerName = names.spelling(name);
      if (lowerName !== undefined && lowerName !== name && !gone.has(lowerName))
        throw refuse(
          `${path}/${name}`,
          `a layer below has ${JSON.stringify(lowerName)}, and case makes no difference`,
        );
      const lowerEntry = lowerName === undefined ? undefined : joined(lowerPath ?? '', lowerName);
      yield* this.#writeNamed(entry, { path: `${path}/${name}`, lowerPath: lowerEntry });
    }
  }

  *#writeNamed(entry: UpperEntry, place: Place): Generator<void> {
    const { lower } = this.#options;
    if (entry.kind === 'socket') {
      this.#socketsLeft++;
      return;
    }
    if (entry.kind === 'device' || entry.kind === 'fifo')
      throw refuse(place.path, entry.kind === 'fifo' ? 'it is a named pipe' : 'it is a device');
    const was = place.lowerPath === undefined ? undefined : lower?.stat(place.lowerPath);
    const wasDirectory = was?.isDirectory === true && was.reparseTag === 0;
    const isDirectory = entry.kind === 'directory';
    if (was !== undefined && isDirectory !== wasDirectory) this.#tar.whiteout(place.path);
    if (!isDirectory) {
      yield* this.#writeFile(entry, place);
      return;
    }
    yield* writeEntry(this.#tar, place.path, this.#sourceOf(entry, place));
    const isRenamed = place.lowerPath !== undefined && !place.lowerPath.endsWith(lastName(place.path));
    const hides = isOpaque(entry.path) || isRenamed;
    if (hides && wasDirectory) this.#tar.opaque(place.path);
    const lowerPath = hides || !wasDirectory ? undefined : place.lowerPath;
    yield* this.#writeChildren(entry.path, { path: place.path, lowerPath });
  }

  *#writeFile(entry: UpperEntry, place: Place): Generator<void> {
    const { nlink, ino } = entry.stats;
    const target = nlink > 1n ? this.#written.get(ino) : undefined;
    if (target !== undefined) {
      this.#tar.hardLink(place.path, target);
      yield;
      return;
    }
    if (nlink > 1n) this.#written.set(ino, place.path);
    yield* writeEntry(this.#tar, place.path, this.#sourceOf(entry, place));
  }

  #sourceOf(entry: Omit<UpperEntry, 'name'>, { path, lowerPath }: Place): EntrySource {
    const { lower } = this.#options;
    const was = lowerPath === undefined ? undefined : lower?.stat(lowerPath);
    const { source, left } = readUpperFile(entry, {
      path,
      lower:
        lower === undefined || lowerPath === undefined || was === undefined
          ? undefined
          : {
              from: 'the layers below',
              info: was,
              streams: lower.streams(lowerPath),
              read: (stream) => lower.read(lowerPath, stream),
            },
      leadsToDirectory: entry.kind === 'symlink' && this.#leadsToDirectory(entry.path, path),
    });
    this.#xattrsLeft += left;
    return source;
  }

  /** Windows has to know it of a link. A target that neither the snapshot nor a layer below shows counts as a file. */
  #leadsToDirectory(link: Buffer, path: string): boolean {
    const { upper, lower, lowerRoot } = this.#options;
    const target = readlinkSync(link);
    const base = target.startsWith('/') ? [] : path.split('/').slice(1, -1);
    for (const step of target.split('/')) {
      if (step === '..') base.pop();
      else if (step !== '' && step !== '.') base.push(step);
    }
    const inUpper = Buffer.concat([upper, Buffer.from(base.map((name) => `/${name}`).join(''))]);
    return isDirectoryAt(inUpper) ?? lower?.stat(base.reduce(joined, lowerRoot))?.isDirectory ?? false;
  }
}

/** The names of a directory of the layers below: as they are, and as the view shows them. */
class LowerNames {
  readonly #lower: LowerView | undefined;
  readonly #path: string | undefined;
  #real: Map<string, string> | undefined;
  #spellings: Map<string, string> | undefined;

  constructor(lower: LowerView | undefined, path: string | undefined) {
    this.#lower = lower;
    this.#path = path;
  }

  /** The name that the view shows as `shown`; the same for most, and for what is new. */
  realName(shown: string): string {
    this.#real ??= this.#read((name, alias) => [alias, name]);
    return this.#real.get(shown) ?? shown;
  }

  has(name: string): boolean {
    return this.spelling(name) !== undefined;
  }

  /** How the layers below spell a name; undefined when they don't have it. */
  spelling(name: string): string | undefined {
    this.#spellings ??= this.#read((each) => [foldName(each), each]);
    return this.#spellings.get(foldName(name));
  }

  #read(pair: (name: string, alias: string) => [string, string]): Map<string, string> {
    if (this.#lower === undefined || this.#path === undefined) return new Map();
    const names = Array.from(this.#lower.entries(this.#path), ({ name }) => name);
    const aliases = viewNames(names);
    return new Map(names.map((name, index) => pair(name, aliases[index] ?? name)));
  }
}

function nameOf(entry: UpperEntry, path: string): string {
  const name = entry.name.toString();
  if (Buffer.from(name).equals(entry.name)) return name;
  throw refuse(`${path}/${name}`, 'its name is not UTF-8');
}

function joined(directory: string, name: string): string {
  return directory === '' ? name : `${directory}/${name}`;
}

/** Undefined for what isn't there. */
function isDirectoryAt(path: Buffer): boolean | undefined {
  try {
    return lstatSync(path).isDirectory();
  } catch (error) {
    const classified = classify(error, `look at ${path}`);
    if (isErrorCode(classified, 'not-found', 'failed-precondition')) return undefined;
    throw classified;
  }
}

function lastName(path: string): string {
  return path.slice(path.lastIndexOf('/'));
}

/** Spread would lose what is a getter of the original. */
function copyOf<T extends EntrySource['info']>(info: T): T {
  const { securityDescriptor, reparseData, extendedAttributes } = info;
  return { ...info, securityDescriptor, reparseData, extendedAttributes };
}
