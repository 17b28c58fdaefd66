/** The manifests of a folder, all of one moment: what changes while it is read is read again. */

import { createHash } from 'node:crypto';
import { realpath, stat } from 'node:fs/promises';
import { dirname, relative, sep } from 'node:path';
import { CimletError, isErrorCode } from '../errors.ts';
import {
  findManifestFiles,
  type ManifestContent,
  type ManifestFile,
  type ManifestInput,
  readManifestFile,
} from '../manifests/find-files.ts';

const MOST_FILES = 20_000;
const MOST_BYTES = 64 * 1024 * 1024;
const MOST_ATTEMPTS = 5;
const READ_AHEAD = 32;

export interface FolderReading {
  manifests: ManifestContent[];
  /** Over the paths below the folder and the bytes, as `loadManifests` makes it: sha256 in hex. */
  digest: string;
  /** Real paths of the folders in which a change may change the manifests. */
  folders: string[];
}

interface Found {
  files: ManifestFile[];
  folders: Set<string>;
  /** Changes when a file is written, replaced, added or removed. */
  signature: string;
}

/**
 * Reads the manifests below `folder` whose paths (with slashes, below the folder) `takes` takes. Throws `not-found` or
 * `access-denied` when it can't be read, also when one file can't: what is missing would be taken for removed;
 * `invalid-manifest` for more than any manifests are; `busy` when files change all the time.
 */
export async function readManifests(
  folder: string,
  takes: (path: string) => boolean,
  signal: AbortSignal,
): Promise<FolderReading> {
  let found = await find(folder, takes, signal);
  for (let attempt = 0; attempt < MOST_ATTEMPTS && found !== undefined; attempt++) {
    const manifests = await readAll(found.files, signal);
    const after = await find(folder, takes, signal);
    if (manifests !== undefined && after?.signature === found.signature) {
      return { manifests, digest: digestOf(manifests), folders: [...found.folders] };
    }
    found = after ?? (await find(folder, takes, signal));
  }
  throw new CimletError('busy', `read manifests ${folder}: files are changed all the time`, {
    hint: 'the revision before stays in force until the files rest for a moment',
  });
}

/** Undefined when files come and go at this moment. */
async function find(
  folder: string,
  takes: (path: string) => boolean,
  signal: AbortSignal,
): Promise<Found | undefined> {
  signal.throwIfAborted();
  const input = await findManifestFiles(folder, signal);
  if (!input.isFolder) {
    throw new CimletError('failed-precondition', `read manifests ${folder}: is a file, not a folder`);
  }
  throwUnreadable(folder, input, takes);
  const files = input.files.filter(({ relativeName }) => takes(relativeName));
  if (files.length > MOST_FILES) {
    throw new CimletError('invalid-manifest', `read manifests ${folder}: more than ${MOST_FILES} files`, {
      hint: 'leave out with `ignore` what are no manifests',
    });
  }
  const folders = new Set(input.folders);
  const lines: string[] = [];
  for (const { path, relativeName } of files) {
    try {
      const { dev, ino, size, mtimeNs, ctimeNs } = await stat(path, { bigint: true });
      lines.push(JSON.stringify([relativeName, ...[dev, ino, size, mtimeNs, ctimeNs].map(String)]));
      folders.add(dirname(await realpath(path)));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      throw error;
    }
  }
  return { files, folders, signature: lines.join('\n') };
}

function throwUnreadable(folder: string, { unreadable }: ManifestInput, takes: (path: string) => boolean) {
  const first = unreadable.find(({ name }) => takes(relative(folder, name).replaceAll(sep, '/')));
  if (first === undefined) return;
  const more = unreadable.length > 1 ? ` (and ${unreadable.length - 1} more)` : '';
  throw new CimletError('unavailable', `${first.message}${more}`, {
    hint: 'a revision is all of its files: make this one readable, or leave it out with `ignore`',
  });
}

/** Undefined when a file is gone meanwhile. */
async function readAll(
  files: readonly ManifestFile[],
  signal: AbortSignal,
): Promise<ManifestContent[] | undefined> {
  const contents: ManifestContent[] = [];
  let total = 0;
  try {
    for (let start = 0; start < files.length; start += READ_AHEAD) {
      const batch = files.slice(start, start + READ_AHEAD);
      const read = async (file: ManifestFile) => ({ ...file, bytes: await readManifestFile(file, signal) });
      for (const content of await Promise.all(batch.map(read))) {
        contents.push(content);
        total += content.bytes.length;
      }
      if (total > MOST_BYTES) {
        const most = `${MOST_BYTES / 1024 / 1024} MiB`;
        throw new CimletError('invalid-manifest', `read manifests: more than ${most} of manifests`);
      }
    }
  } catch (error) {
    if (isErrorCode(error, 'not-found')) return undefined;
    throw error;
  }
  return contents;
}

function digestOf(manifests: readonly ManifestContent[]): string {
  const digest = createHash('sha256');
  for (const { relativeName, bytes } of manifests) {
    const ofBytes = createHash('sha256').update(bytes).digest('hex');
    digest.update(`${JSON.stringify(relativeName)} ${ofBytes}\n`);
  }
  return digest.digest('hex');
}
