/** Writes the files of a revision, byte for byte as they were committed: no line ends, filters or hooks. */

import { randomUUID } from 'node:crypto';
import { copyFile, mkdir, open, readdir, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { CimletError, classify } from '../errors.ts';
import { readBlobs } from './git-blobs.ts';
import type { GitRepository } from './git-repository.ts';
import type { TreeFile } from './git-tree.ts';

const MOST_BYTES = 2 * 1024 ** 3;
/** Disks make several files durable in about the time of one. */
const SYNCED_AT_ONCE = 16;

/**
 * Writes `files` to the new folder `directory`; it is there with all of them or not at all. `folder`, a path inside, is
 * made even when nothing is in it. Throws `invalid-manifest` for more than 2 GiB.
 */
export async function writeFiles(
  repository: GitRepository,
  files: readonly TreeFile[],
  { directory, folder }: { directory: string; folder: string },
  signal: AbortSignal,
): Promise<void> {
  const temporary = join(dirname(directory), `tmp-${randomUUID()}`);
  try {
    await mkdir(join(temporary, folder), { recursive: true });
    await writeInto(temporary, repository, files, signal);
    await syncFiles(
      files.map(({ path }) => join(temporary, path)),
      signal,
    );
    await rename(temporary, directory);
  } catch (error) {
    throw classify(error, `write files of a revision to ${directory}`);
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
}

async function writeInto(
  root: string,
  repository: GitRepository,
  files: readonly TreeFile[],
  signal: AbortSignal,
): Promise<void> {
  const places = new Map<string, string[]>();
  for (const { path, blob } of files) places.set(blob, [...(places.get(blob) ?? []), join(root, path)]);
  for (const folder of new Set(files.map(({ path }) => dirname(join(root, path))))) {
    await mkdir(folder, { recursive: true });
  }
  let total = 0;
  await readBlobs(repository, [...places.keys()], signal, async (blob, size, bytes) => {
    const [first = '', ...copies] = places.get(blob) ?? [];
    total += size * (copies.length + 1);
    if (total > MOST_BYTES) {
      throw new CimletError('invalid-manifest', `write files: more than ${MOST_BYTES / 1024 ** 3} GiB`, {
        hint: 'take fewer with path, include and ignore',
      });
    }
    const file = await open(first, 'wx');
    try {
      for await (const chunk of bytes) await file.writeFile(chunk);
    } finally {
      await file.close();
    }
    for (const copy of copies) await copyFile(first, copy);
  });
}

/** When it throws, no file is open any more. */
async function syncFiles(paths: readonly string[], signal: AbortSignal): Promise<void> {
  const left = paths.values();
  const syncInTurn = async () => {
    for (const path of left) {
      signal.throwIfAborted();
      await syncFile(path);
    }
  };
  const results = await Promise.allSettled(Array.from({ length: SYNCED_AT_ONCE }, syncInTurn));
  for (const result of results) if (result.status === 'rejected') throw result.reason;
}

async function syncFile(path: string): Promise<void> {
  const file = await open(path, 'r+');
  try {
    await file.sync();
  } finally {
    await file.close();
  }
}

/** Removes what is in `directory` besides what is kept; a folder that isn't there is empty. */
export async function removeOthers(directory: string, keep: ReadonlySet<string>): Promise<void> {
  try {
    for (const name of await readdir(directory)) {
      // A git that outlived its agent may still be writing.
      if (!keep.has(name)) await rm(join(directory, name), { recursive: true, force: true, maxRetries: 5 });
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw classify(error, `clean up ${directory}`);
  }
}
