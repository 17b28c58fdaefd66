/** From what the user named to files: folders are searched, everything else is taken as it is. */

import type { Dirent } from 'node:fs';
import { open, readdir, realpath, stat } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import { CimletError, classify } from '../errors.ts';

/** Largest manifest file in bytes. */
export const MOST_BYTES = 4 * 1024 * 1024;

const STDIN = '-';

export interface ManifestFile {
  /** As the user named it, or below what the user named. */
  name: string;
  /** Absolute, or `-`. */
  path: string;
  /** Independent of where the folder is. */
  relativeName: string;
}

/** A manifest file that was read. */
export interface ManifestContent extends ManifestFile {
  /** Never changes. Of a file that is as it was in the revision before, the very same buffer, as far as the source can tell. */
  bytes: Buffer;
}

export interface ManifestInput {
  /** As the user named it. */
  name: string;
  isFolder: boolean;
  files: ManifestFile[];
  /** The real paths of the folders that were searched. */
  folders: string[];
  /** Folders inside that couldn't be read. */
  unreadable: { name: string; message: string }[];
}

/** Finds the files of one input. Throws (`not-found`, `access-denied`) when it isn't there or can't be read. */
export async function findManifestFiles(
  input: string,
  signal: AbortSignal | undefined,
): Promise<ManifestInput> {
  const found: ManifestInput = { name: input, isFolder: false, files: [], folders: [], unreadable: [] };
  if (input === STDIN) {
    found.files.push({ name: STDIN, path: STDIN, relativeName: STDIN });
    return found;
  }
  const path = resolve(input);
  try {
    found.isFolder = (await stat(path)).isDirectory();
    if (found.isFolder) await searchFolder(input, path, '', new Set(), found, signal);
    else found.files.push({ name: input, path, relativeName: basename(path) });
  } catch (error) {
    throw classify(
      error,
      `read manifests ${input}`,
      'give -f an existing file or folder, or - for standard input',
    );
  }
  return found;
}

/** Folders are followed through symbolic links, each real one once, so that links can't lead in circles or multiply. */
async function searchFolder(
  name: string,
  path: string,
  relativeName: string,
  searched: Set<string>,
  found: ManifestInput,
  signal: AbortSignal | undefined,
): Promise<void> {
  signal?.throwIfAborted();
  const real = await realpath(path);
  if (searched.has(real)) return;
  searched.add(real);
  found.folders.push(real);
  const entries = await readdir(path, { withFileTypes: true });
  entries.sort((a, b) => (a.name < b.name ? -1 : 1));
  for (const entry of entries) {
    if (entry.name.startsWith('.')) continue;
    const below = {
      name: join(name, entry.name),
      path: join(path, entry.name),
      relativeName: relativeName === '' ? entry.name : `${relativeName}/${entry.name}`,
    };
    try {
      if (await isFolder(entry, below.path)) {
        await searchFolder(below.name, below.path, below.relativeName, searched, found, signal);
      } else if (isManifestName(entry.name)) {
        // Opening a pipe would wait for a writer; only one the user named is worth that.
        if (entry.isFile() || entry.isSymbolicLink()) found.files.push(below);
        else found.unreadable.push({ name: below.name, message: `read ${below.name}: is no regular file` });
      }
    } catch (error) {
      const described = classify(error, `read ${below.name}`);
      if (!(described instanceof CimletError) || described.code === 'cancelled') throw described;
      found.unreadable.push({ name: below.name, message: described.message });
    }
  }
}

function isManifestName(name: string): boolean {
  return /\.(ya?ml|json)$/i.test(name);
}

async function isFolder(entry: Dirent, path: string): Promise<boolean> {
  if (!entry.isSymbolicLink()) return entry.isDirectory();
  // A dangling link with another name than a manifest's is nobody's business.
  if (!isManifestName(entry.name)) {
    const target = await stat(path).catch((error: unknown) => {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      throw error;
    });
    return target?.isDirectory() ?? false;
  }
  return (await stat(path)).isDirectory();
}

/** The bytes of a file; throws classified errors, and `invalid-manifest` when it is too large to be a manifest. */
export async function readManifestFile(
  { name, path }: ManifestFile,
  signal: AbortSignal | undefined,
): Promise<Buffer> {
  try {
    const file = await open(path, 'r');
    try {
      const { size } = await file.stat();
      // Pipes and devices have no size, and a file may grow: what counts is what was read.
      const chunks: Buffer[] = [];
      let total = 0;
      for (let atEnd = size > MOST_BYTES; !atEnd; ) {
        signal?.throwIfAborted();
        const buffer = Buffer.allocUnsafe(Math.max(size - total, 0) + 512);
        const { bytesRead } = await file.read(buffer, 0, buffer.length, null);
        chunks.push(buffer.subarray(0, bytesRead));
        total += bytesRead;
        atEnd = bytesRead === 0 || total > MOST_BYTES;
      }
      if (size > MOST_BYTES || total > MOST_BYTES) throw tooLarge(name);
      return Buffer.concat(chunks);
    } finally {
      await file.close();
    }
  } catch (error) {
    throw classify(error, `read ${name}`);
  }
}

export function tooLarge(name: string): CimletError {
  return new CimletError(
    'invalid-manifest',
    `read ${name}: larger than ${MOST_BYTES / 1024 / 1024} MiB, which no manifest is`,
  );
}
