/** A branch, tag, range of versions or commit of a git repository as a source of manifests. */

import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join, posix } from 'node:path';
import { CimletError, classify } from '../errors.ts';
import type { ManifestContent } from '../manifests/find-files.ts';
import { parseDuration } from '../manifests/quantities.ts';
import type { GitSource as GitConfig } from '../manifests/types.gen.ts';
import { createAcceptedStore } from './accepted-store.ts';
import { createChangeFeed } from './change-feed.ts';
import { createFileFilter } from './file-filter.ts';
import { parseGitAddress } from './git-address.ts';
import { Git } from './git-command.ts';
import { prepareGit } from './git-environment.ts';
import { removeOthers, writeFiles } from './git-files.ts';
import { type ResolvedRef, resolveRef } from './git-refs.ts';
import { findRepository, GitRepository } from './git-repository.ts';
import { readTrustedKeys, verifySignatures } from './git-signatures.ts';
import { selectTree } from './git-tree.ts';
import { createQueue } from './one-at-a-time.ts';
import { ManifestReader } from './read-manifests.ts';
import { runSync } from './run-sync.ts';
import type { Revision, Source, SourceOptions } from './source.ts';

export interface GitSourceConfig {
  name: string;
  git: GitConfig;
  /** A duration such as `1m`. */
  interval?: string | undefined;
}

const DEFAULT_INTERVAL = '1m';
const DEFAULT_TIMEOUT = '5m';
/** What is in a source's cache besides its repository and leftovers. */
const KEPT = ['revisions', 'accepted.json', 'gitconfig', 'askpass', 'ssh', 'home'];

/** Throws `invalid-manifest` for an address or path that can't be; nothing else happens before `sync()`. */
export function createGitSource(
  { name, git: config, interval = DEFAULT_INTERVAL }: GitSourceConfig,
  { cacheDirectory, baseDirectory }: SourceOptions,
): Source {
  const address = parseGitAddress(config.url, baseDirectory);
  const path = parsePath(config.path);
  const timeout = config.timeout ?? DEFAULT_TIMEOUT;
  const { include, ignore, verification, ref } = config;
  const takes = createFileFilter({ include, ignore });
  const isTaken = include === undefined ? (file: string) => isBelow(file, path) && takes(file) : takes;
  const revisions = join(cacheDirectory, 'revisions');
  const feed = createChangeFeed({ interval: parseDuration(interval) });
  const inOrder = createQueue();
  const store = createAcceptedStore(join(cacheDirectory, 'accepted.json'), {
    url: address.url,
    ref,
    path,
    include,
    ignore,
    verification,
  });
  const closing = new AbortController();
  /** Folders below `revisions` that are in use: of the last revisions that were synced, the newest first. */
  let synced: string[] = [];
  let latest: { identity: string; revision: Revision } | undefined;
  /** By name, of the revision that was handed out last. */
  let known: ReadonlyMap<string, Buffer> = new Map();
  let isTidy = false;

  async function sync(signal: AbortSignal): Promise<Revision> {
    if (!isTidy) await tidy();
    const git = new Git(await prepareGit({ config, address, cacheDirectory, baseDirectory }));
    const keys = verification === undefined ? undefined : await readTrustedKeys(verification, baseDirectory);
    const resolved = await resolveRef(git, address, ref, signal);
    // The same commit is another revision once others are trusted, or the tag was made anew.
    const identity = JSON.stringify([resolved, keys?.digest]);
    if (latest?.identity === identity && existsSync(latest.revision.directory)) return latest.revision;

    const repository = new GitRepository(git, address, cacheDirectory);
    const revision = await repository.withObject(
      resolved.tag?.object ?? resolved.commit,
      signal,
      async () => {
        if (keys !== undefined) {
          await verifySignatures(resolved, { git, repository, keys, cacheDirectory, signal });
        }
        return await makeRevision(repository, resolved, signal);
      },
    );
    latest = { identity, revision };
    await removeUnused();
    return revision;
  }

  async function makeRevision(
    repository: GitRepository,
    { name: refName, commit }: ResolvedRef,
    signal: AbortSignal,
  ): Promise<Revision> {
    const selection = { commit, path, isWithinPath: include === undefined, takes: isTaken };
    const { files, warnings } = await selectTree(repository, selection, signal);
    const folder = folderOf(commit);
    const root = join(revisions, folder);
    if (!existsSync(root)) await writeFiles(repository, files, { directory: root, folder: path }, signal);
    synced = [folder, ...synced.filter((each) => each !== folder)].slice(0, 2);
    const directory = join(root, path);
    const reader = new ManifestReader({ folder: directory, takes: () => true, trustsTimes: false });
    const reading = await reader.read(signal);
    const manifests = reading.manifests.map((file) => {
      const name = posix.join(path, file.relativeName);
      const before = known.get(name);
      return { ...file, name, bytes: before?.equals(file.bytes) ? before : file.bytes };
    });
    remember(manifests);
    const algorithm = commit.length === 64 ? 'sha256' : 'sha1';
    return {
      name: `${refName === undefined ? '' : `${refName}@`}${algorithm}:${commit}`,
      directory,
      manifests,
      warnings,
    };
  }

  /** Short, since Windows has short paths; other globs take other files of the same commit. */
  function folderOf(commit: string): string {
    const selected = createHash('sha256')
      .update(JSON.stringify([commit, path, include, ignore]))
      .digest('hex');
    return `${commit.slice(0, 12)}-${selected.slice(0, 12)}`;
  }

  async function accepted(): Promise<Revision | undefined> {
    const revision = await store.load();
    if (revision === undefined || !existsSync(revision.directory)) return undefined;
    remember(revision.manifests);
    return revision;
  }

  function remember(manifests: readonly ManifestContent[]): void {
    known = new Map(manifests.map(({ name, bytes }) => [name, bytes]));
  }

  async function removeUnused(): Promise<void> {
    const inForce = await store.load();
    const root = inForce?.directory.slice(revisions.length + 1).split(/[/\\]/, 1);
    await removeOthers(revisions, new Set([...synced, ...(root ?? [])]));
  }

  /** What a process before this one left when it was killed. */
  async function tidy(): Promise<void> {
    try {
      await mkdir(cacheDirectory, { recursive: true, mode: 0o700 });
    } catch (error) {
      throw classify(error, `make ${cacheDirectory}`);
    }
    const repository = await findRepository(cacheDirectory);
    await removeOthers(cacheDirectory, new Set([...KEPT, ...(repository === undefined ? [] : [repository])]));
    await removeUnused();
    isTidy = true;
  }

  return {
    name,
    sync: (signal) => inOrder(() => runSync({ name, signals: [signal, closing.signal], timeout }, sync)),
    accept: (revision) => inOrder(() => store.save(revision)),
    accepted: () => inOrder(accepted),
    changes: feed.changes,
    touch: feed.touch,
    async close() {
      closing.abort();
      feed.close();
      // A git that is running is being ended: it isn't once nothing is before this in the queue.
      await inOrder(async () => undefined);
    },
  };
}

function isBelow(file: string, path: string): boolean {
  return path === '' || file.startsWith(`${path}/`);
}

/** Without a slash at either end; empty for the root. */
function parsePath(path = '.'): string {
  const normal = posix.normalize(path.replaceAll('\\', '/')).replace(/\/$/, '');
  if (normal.startsWith('/') || normal === '..' || normal.startsWith('../') || /\p{Cc}/u.test(normal)) {
    throw new CimletError(
      'invalid-manifest',
      `path ${JSON.stringify(path)} is no folder inside a repository`,
    );
  }
  return normal === '.' ? '' : normal;
}
