/**
 * Files of a layer written where they are to stay, with all that NTFS keeps of them. What others' layers say of links is
 * never followed: links become links last, so that nothing can be written through one, whatever name leads there.
 */

import { lstatSync } from 'node:fs';
import { win32 } from 'node:path';
import { type CimStream, FileAttribute, type FileMetadata } from '../../cim/types.ts';
import { classify } from '../../errors.ts';
import { BackupStreamId, encodeMetadataStreams, encodeStreamHeader } from '../../layers/backup-stream.ts';
import type { BlockCimWriter } from '../../layers/cim-writer.ts';
import type { BackupFile, BackupFiles, FileBasics } from '../../native/windows/backup.ts';
import { exactStream } from './exact-stream.ts';

/** Times of a directory, which whatever is done in it changes. */
export interface DirectoryBasics {
  path: string;
  basics: FileBasics;
}

interface Link {
  path: string;
  metadata: FileMetadata;
}

/** What is there already is a parent's: what takes away or links acts on it at once. */
export class PlacedFiles implements BlockCimWriter {
  readonly #root: string;
  readonly #files: BackupFiles;
  readonly #directories: DirectoryBasics[] = [];
  readonly #links: Link[] = [];
  /** Open until the next one begins, for its alternate streams. */
  #current: { file: BackupFile; basics: FileBasics | undefined } | undefined;

  constructor(root: string, files: BackupFiles) {
    this.#root = root;
    this.#files = files;
  }

  createFile(path: string, metadata: FileMetadata): CimStream {
    this.#settleCurrent();
    const isDirectory = (metadata.attributes & FileAttribute.directory) !== 0;
    const isLink = metadata.reparseData !== undefined;
    const file = this.#open(path, isDirectory);
    const basics = basicsOf(metadata);
    // A link that is read-only already couldn't be opened once more.
    this.#current = { file, basics: isLink ? undefined : basics };
    file.restore(encodeMetadataStreams({ ...metadata, reparseData: undefined }));
    if (isLink) this.#links.push({ path, metadata });
    else if (isDirectory) this.#directories.push({ path, basics });
    if (isDirectory || isLink) return this.#stream(path, file, 0);
    file.restore(encodeStreamHeader(BackupStreamId.data, metadata.size));
    return this.#stream(path, file, metadata.size);
  }

  createAlternateStream(path: string, name: string, size: number): CimStream {
    const { file } = this.#current ?? {};
    if (file === undefined) throw new Error(`write ${path}:${name}: its file isn't open any more`);
    file.restore(encodeStreamHeader(BackupStreamId.alternateData, size, `:${name}:$DATA`));
    return this.#stream(`${path}:${name}`, file, size);
  }

  createHardLink(path: string, existing: string): void {
    this.#settleCurrent();
    this.tombstone(path);
    this.#files.link(this.#full(existing), this.#full(path));
  }

  createMergeLink(path: string, target: string): void {
    this.createHardLink(path, target);
  }

  tombstone(path: string): void {
    this.#settleCurrent();
    this.#files.remove(this.#full(path));
  }

  /** Makes links of what are to be links, and sets directories' times again, those within others first. */
  finish(): void {
    this.#settleCurrent();
    for (const { path, metadata } of this.#links) {
      const file = this.#files.openToRestore(this.#full(path));
      try {
        file.restore(
          encodeMetadataStreams({
            ...metadata,
            securityDescriptor: undefined,
            extendedAttributes: undefined,
          }),
        );
        file.setBasics(basicsOf(metadata));
      } finally {
        file.close();
      }
    }
    setDirectories(this.#root, this.#directories, this.#files);
  }

  /** Any number of times. */
  close(): void {
    const current = this.#current;
    this.#current = undefined;
    current?.file.close();
  }

  #open(path: string, isDirectory: boolean): BackupFile {
    const full = this.#full(path);
    const there = this.#attempt(`look at ${path}`, () => lstatSync(full, { throwIfNoEntry: false }));
    const stays = isDirectory && there?.isDirectory() === true;
    if (there !== undefined && !stays) this.tombstone(path);
    if (!isDirectory) return this.#files.createToRestore(full);
    if (!stays) this.#files.makeDirectory(full);
    return this.#files.openToRestore(full);
  }

  #settleCurrent(): void {
    const { file, basics } = this.#current ?? {};
    try {
      if (basics !== undefined) file?.setBasics(basics);
    } finally {
      this.close();
    }
  }

  #stream(name: string, file: BackupFile, size: number): CimStream {
    return exactStream(name, size, { write: (data) => file.restore(data), close: () => undefined });
  }

  #full(path: string): string {
    return win32.join(this.#root, path);
  }

  #attempt<T>(operation: string, action: () => T): T {
    try {
      return action();
    } catch (error) {
      throw classify(error, `${operation} in ${this.#root}`);
    }
  }
}

export function basicsOf(metadata: FileMetadata): FileBasics {
  const { creationTime, lastAccessTime, lastWriteTime, changeTime, attributes } = metadata;
  return { creationTime, lastAccessTime, lastWriteTime, changeTime, attributes };
}

/** Sets times and attributes of directories below `root`, given with parents before what is in them. */
export function setDirectories(
  root: string,
  directories: readonly DirectoryBasics[],
  files: Pick<BackupFiles, 'setBasics'>,
): void {
  for (const { path, basics } of directories.toReversed()) files.setBasics(win32.join(root, path), basics);
}
