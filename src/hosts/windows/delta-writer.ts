/**
 * A WCIFS layer over others, written as hcsshim writes it: what is below Files and Hives into a folder that ImportLayer reads
 * (for each file its attributes and backup streams; a directory's in a file `<name>.$wcidirs$` beside it), the utility VM's files
 * into the layer itself, since Windows merges no utility VMs. What takes away or links waits for the import: only then are
 * the parents' names there. (ImportLayer also reads a list of tombstones, but hcsshim has stopped giving it any.)
 */

import { mkdirSync, rmSync } from 'node:fs';
import { win32 } from 'node:path';
import { type CimStream, FileAttribute, type FileMetadata } from '../../cim/types.ts';
import { CimletError, classify } from '../../errors.ts';
import { BackupStreamId, encodeMetadataStreams, encodeStreamHeader } from '../../layers/backup-stream.ts';
import type { BlockCimWriter } from '../../layers/cim-writer.ts';
import { splitPath } from '../../layers/layer-path.ts';
import { foldName } from '../../layers/layer-tree.ts';
import type { BackupFile, BackupFiles, FileBasics } from '../../native/windows/backup.ts';
import { exactStream } from './exact-stream.ts';
import { MountedLayers } from './mounted-layers.ts';
import { basicsOf, type DirectoryBasics, type PlacedFiles, setDirectories } from './placed-files.ts';
import type { BackupCalls } from './windows-calls.ts';

export const DIRECTORY_SUFFIX = '.$wcidirs$';

const HIVES = foldName('Hives');
const UTILITY_VM = foldName('UtilityVM');

/** What is done to the layer once it is imported. Plain data: it goes from one job to another. */
export interface AfterImport {
  tombstones: string[];
  links: { path: string; target: string; isOwn: boolean }[];
  directories: DirectoryBasics[];
}

export class DeltaWriter implements BlockCimWriter {
  readonly afterImport: AfterImport = { tombstones: [], links: [], directories: [] };
  readonly #source: string;
  readonly #files: BackupFiles;
  readonly #openUtilityVm: () => PlacedFiles;
  /** Of links to directories: made last, so that nothing gets into them, whatever name leads there. */
  readonly #linkDirectories: string[] = [];
  #utilityVm: PlacedFiles | undefined;
  #current: { file: BackupFile; basics: FileBasics; isPlain: boolean } | undefined;

  /** `source` is the folder to import from; `openUtilityVm` makes the layer's own utility VM, and is called once at most. */
  constructor(source: string, files: BackupFiles, openUtilityVm: () => PlacedFiles) {
    this.#source = source;
    this.#files = files;
    this.#openUtilityVm = openUtilityVm;
  }

  get hasUtilityVm(): boolean {
    return this.#utilityVm !== undefined;
  }

  createFile(path: string, metadata: FileMetadata): CimStream {
    if (isUtilityVm(path)) return this.#inUtilityVm().createFile(path, metadata);
    this.#settleCurrent();
    const isDirectory = (metadata.attributes & FileAttribute.directory) !== 0;
    const isLink = metadata.reparseData !== undefined;
    const file = this.#create(path, { isDirectory, isLink });
    const isPlain = rootOf(path) === HIVES && !isDirectory;
    this.#current = { file, basics: { ...basicsOf(metadata), attributes: 0 }, isPlain };
    if (isDirectory) this.afterImport.directories.push({ path, basics: basicsOf(metadata) });
    const hasData = !isDirectory && !isLink;
    if (!isPlain) {
      const attributes = Buffer.alloc(4);
      attributes.writeUInt32LE(metadata.attributes >>> 0);
      file.write(attributes);
      file.write(encodeMetadataStreams(metadata));
      if (hasData) file.write(encodeStreamHeader(BackupStreamId.data, metadata.size));
    }
    return this.#stream(path, file, hasData ? metadata.size : 0);
  }

  createAlternateStream(path: string, name: string, size: number): CimStream {
    if (isUtilityVm(path)) return this.#inUtilityVm().createAlternateStream(path, name, size);
    if (this.#current === undefined) throw new Error(`write ${path}:${name}: its file isn't open any more`);
    const { file, isPlain } = this.#current;
    if (isPlain) throw refuse(`${path}:${name}: hives have no alternate streams`);
    file.write(encodeStreamHeader(BackupStreamId.alternateData, size, `:${name}:$DATA`));
    return this.#stream(`${path}:${name}`, file, size);
  }

  createHardLink(path: string, existing: string): void {
    this.#link(path, existing, true);
  }

  createMergeLink(path: string, target: string): void {
    this.#link(path, target, false);
  }

  tombstone(path: string): void {
    if (!path.includes('/')) throw refuse(`${path} can't be taken away`);
    if (isUtilityVm(path)) this.#inUtilityVm().tombstone(path);
    else this.afterImport.tombstones.push(path);
  }

  finish(): void {
    this.#settleCurrent();
    for (const path of this.#linkDirectories) this.#makeDirectory(path);
    this.#utilityVm?.finish();
  }

  /** Any number of times. */
  close(): void {
    const current = this.#current;
    this.#current = undefined;
    current?.file.close();
    this.#utilityVm?.close();
  }

  #link(path: string, target: string, isOwn: boolean): void {
    if (rootOf(path) !== rootOf(target) || rootOf(path) === HIVES)
      throw refuse(`hard link ${path} to ${target}: links stay within Files, or within UtilityVM`);
    if (isUtilityVm(path)) this.#inUtilityVm().createHardLink(path, target);
    else this.afterImport.links.push({ path, target, isOwn });
  }

  #inUtilityVm(): PlacedFiles {
    this.#settleCurrent();
    this.#utilityVm ??= this.#openUtilityVm();
    return this.#utilityVm;
  }

  /** An earlier entry of the same name is replaced. */
  #create(path: string, { isDirectory, isLink }: { isDirectory: boolean; isLink: boolean }): BackupFile {
    // A link of that name would make another directory one that ImportLayer writes through.
    if (foldName(path).endsWith(foldName(DIRECTORY_SUFFIX)))
      throw refuse(`${path}: names that end in ${DIRECTORY_SUFFIX} are Windows' own`);
    const full = win32.join(this.#source, path);
    const file = isDirectory ? full + DIRECTORY_SUFFIX : full;
    if (isDirectory && isLink) this.#linkDirectories.push(path);
    else if (isDirectory) this.#makeDirectory(path);
    try {
      rmSync(file, { force: true });
    } catch (error) {
      throw classify(error, `replace ${file}`);
    }
    return this.#files.create(file);
  }

  #makeDirectory(path: string): void {
    try {
      mkdirSync(win32.join(this.#source, path), { recursive: true });
    } catch (error) {
      throw classify(error, `make directory ${path} in ${this.#source}`);
    }
  }

  #settleCurrent(): void {
    const current = this.#current;
    this.#current = undefined;
    try {
      if (current !== undefined) current.file.setBasics(current.basics);
    } finally {
      current?.file.close();
    }
  }

  #stream(name: string, file: BackupFile, size: number): CimStream {
    return exactStream(name, size, { write: (data) => file.write(data), close: () => undefined });
  }
}

/**
 * Takes away and links what the layer says, in the imported layer; then directories have the layer's times again, which that
 * changed. Parents come topmost first.
 */
export function completeImport(
  { tombstones, links, directories }: AfterImport,
  { layer, parents }: { layer: string; parents: readonly string[] },
  { files, facts }: BackupCalls,
): void {
  const own = new MountedLayers(`${layer}\\`, facts);
  const remove = (path: string): void => files.remove(win32.join(layer, path));
  const isReached = (path: string): boolean => own.stat(splitPath(path)[0])?.reparseTag === 0;
  try {
    for (const path of tombstones) if (isReached(path)) remove(path);
    for (const { path, target, isOwn } of links) {
      const holder = isOwn
        ? layer
        : parents.find((parent) => holds(new MountedLayers(`${parent}\\`, facts), target));
      if (holder === undefined) throw refuse(`hard link ${path} to ${target}: no layer below has that file`);
      if (!isReached(path))
        throw refuse(`hard link ${path}: there is no such directory, or it is below a link`);
      remove(path);
      files.link(win32.join(holder, target), win32.join(layer, path));
    }
  } catch (error) {
    throw classify(error, `complete the import of ${layer}`);
  }
  setDirectories(layer, directories, files);
}

function holds(layer: MountedLayers, path: string): boolean {
  return layer.stat(path)?.isDirectory === false;
}

function rootOf(path: string): string {
  return foldName(path.split('/', 1)[0] ?? '');
}

function isUtilityVm(path: string): boolean {
  return rootOf(path) === UTILITY_VM;
}

function refuse(what: string): CimletError {
  return new CimletError('corrupt', `write WCIFS layer: ${what}`);
}
