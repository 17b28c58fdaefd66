/** The manifests of a folder, all of one moment: what changes while it is read is read again. */

import { createHash } from 'node:crypto';
import { lstat, realpath, stat } from 'node:fs/promises';
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
const AT_ONCE = 32;
/** Milliseconds after which a file that is written again surely has other times. */
const SETTLED = 3000;

export interface FolderReading {
  manifests: ManifestContent[];
  /** Over the paths below the folder and the bytes, as `loadManifests` makes it: sha256 in hex. */
  digest: string;
  /** Real paths of the folders in which a change may change the manifests. */
  folders: string[];
}

export interface ManifestReaderOptions {
  /** Absolute. */
  folder: string;
  /** Which files, by their paths with slashes below the folder. */
  takes: (path: string) => boolean;
  /** Whether a file with the same size and times is the same file. Not so on every network share. */
  trustsTimes: boolean;
}

interface FoundFile extends ManifestFile {
  /** Changes when the file is written or replaced. */
  signature: string;
  /** When it was last changed in any way, in milliseconds. */
  changed: number;
  /** Real path of the folder that a link leads to. */
  linkedFolder?: string | undefined;
}

interface ReadFile {
  signature: string;
  /** Written long enough before it was read that the signature tells every later change. */
  isSettled: boolean;
  content: ManifestContent;
  digest: string;
}

export class ManifestReader {
  readonly #options: ManifestReaderOptions;
  /** By path: what needn't be read again. */
  #read = new Map<string, ReadFile>();

  constructor(options: ManifestReaderOptions) {
    this.#options = options;
  }

  /**
   * Reads what has changed. Throws `not-found` or `access-denied` when the folder can't be read, `unavailable` when one of its files
   * can't: what is missing would be taken for removed; `invalid-manifest` for more than any manifests are; `busy` when
   * files change all the time.
   */
  async read(signal: AbortSignal): Promise<FolderReading> {
    const { folder } = this.#options;
    for (let attempt = 0; attempt < MOST_ATTEMPTS; attempt++) {
      const found = await this.#find(signal);
      if (found === undefined) continue;
      const isKnown = await this.#readFiles(found.files, signal);
      if (isKnown === undefined) continue;
      const after = isKnown ? found : await this.#find(signal);
      if (after === undefined || signatureOf(after.files) !== signatureOf(found.files)) continue;
      return this.#finish(found.files, found.folders);
    }
    throw new CimletError('busy', `read manifests ${folder}: files are changed all the time`, {
      hint: 'the revision before stays in force until the files rest for a moment',
    });
  }

  /** Undefined when files come and go at this moment. */
  async #find(signal: AbortSignal): Promise<{ files: FoundFile[]; folders: string[] } | undefined> {
    const { folder, takes } = this.#options;
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
    const found = await inBatches(files, lookAt);
    return found === undefined ? undefined : { files: found, folders: input.folders };
  }

  /** True when nothing had to be read, undefined when a file is gone meanwhile. */
  async #readFiles(files: readonly FoundFile[], signal: AbortSignal): Promise<boolean | undefined> {
    const isKnown = ({ path, signature }: FoundFile): boolean => {
      const known = this.#read.get(path);
      return known?.isSettled === true && known.signature === signature;
    };
    const changed = files.filter((file) => !isKnown(file));
    let left = MOST_BYTES;
    const read = await inBatches(changed, async ({ signature, changed: time, linkedFolder: _, ...file }) => {
      const isSettled = this.#options.trustsTimes && time + SETTLED < Date.now();
      const bytes = await readManifestFile(file, signal);
      left -= bytes.length;
      if (left < 0) throw tooMuch(this.#options.folder);
      const digest = createHash('sha256').update(bytes).digest('hex');
      return { signature, isSettled, content: { ...file, bytes }, digest };
    });
    if (read === undefined) return undefined;
    const next = new Map(read.map((file) => [file.content.path, file]));
    for (const { path } of files) {
      const known = next.get(path) ?? this.#read.get(path);
      if (known !== undefined) next.set(path, known);
    }
    this.#read = next;
    return changed.length === 0;
  }

  #finish(files: readonly FoundFile[], folders: readonly string[]): FolderReading {
    const all = new Set(folders);
    const digest = createHash('sha256');
    const manifests: ManifestContent[] = [];
    let total = 0;
    for (const { path, relativeName, linkedFolder } of files) {
      const read = this.#read.get(path);
      if (read === undefined) throw new Error(`${path} was found and not read`);
      if (linkedFolder !== undefined) all.add(linkedFolder);
      digest.update(`${JSON.stringify(relativeName)} ${read.digest}\n`);
      manifests.push(read.content);
      total += read.content.bytes.length;
    }
    if (total > MOST_BYTES) throw tooMuch(this.#options.folder);
    return { manifests, digest: digest.digest('hex'), folders: [...all] };
  }
}

function signatureOf(files: readonly FoundFile[]): string {
  return files
    .map(({ relativeName, signature }) => `${JSON.stringify(relativeName)} ${signature}`)
    .join('\n');
}

async function lookAt(file: ManifestFile): Promise<FoundFile> {
  const own = await lstat(file.path, { bigint: true });
  const isLink = own.isSymbolicLink();
  const target = isLink ? await stat(file.path, { bigint: true }) : own;
  const linkedFolder = isLink ? dirname(await realpath(file.path)) : undefined;
  const { dev, ino, size, mtimeNs, ctimeNs } = target;
  return {
    ...file,
    signature: [dev, ino, size, mtimeNs, ctimeNs].join(' '),
    changed: Number((mtimeNs > ctimeNs ? mtimeNs : ctimeNs) / 1_000_000n),
    linkedFolder,
  };
}

/** Undefined when a file that is worked on isn't there any more. */
async function inBatches<T, R>(items: readonly T[], work: (item: T) => Promise<R>): Promise<R[] | undefined> {
  const results: R[] = [];
  try {
    for (let start = 0; start < items.length; start += AT_ONCE) {
      results.push(...(await Promise.all(items.slice(start, start + AT_ONCE).map(work))));
    }
  } catch (error) {
    if (isErrorCode(error, 'not-found') || (error as NodeJS.ErrnoException).code === 'ENOENT')
      return undefined;
    throw error;
  }
  return results;
}

function throwUnreadable(folder: string, { unreadable }: ManifestInput, takes: (path: string) => boolean) {
  const first = unreadable.find(({ name }) => takes(relative(folder, name).replaceAll(sep, '/')));
  if (first === undefined) return;
  const more = unreadable.length > 1 ? ` (and ${unreadable.length - 1} more)` : '';
  throw new CimletError('unavailable', `${first.message}${more}`, {
    hint: 'a revision is all of its files: make this one readable, or leave it out with `ignore`',
  });
}

function tooMuch(folder: string): CimletError {
  const most = `${MOST_BYTES / 1024 / 1024} MiB`;
  return new CimletError('invalid-manifest', `read manifests ${folder}: more than ${most} of manifests`, {
    hint: 'leave out with `ignore` what are no manifests',
  });
}
