/**
 * The bare repository that a source fetches into. It is a cache and nothing more: of one depth, without the blobs that
 * nobody asked for, never checked out, and made anew when it is broken or has grown.
 */

import { randomUUID } from 'node:crypto';
import { mkdir, readdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { CimletError, classify, isErrorCode } from '../errors.ts';
import type { GitAddress } from './git-address.ts';
import type { Git } from './git-command.ts';

/** Packs after which it is cheaper to fetch anew than to look into all of them. */
const MOST_PACKS = 100;

/** Each is made under a name of its own: a git that outlived its agent writes into the one before, if into any. */
const PREFIX = 'repository-';

const FETCH = ['fetch', '--quiet', '--no-tags', '--no-write-fetch-head', '--no-auto-maintenance'];

export class GitRepository {
  readonly #git: Git;
  readonly #address: GitAddress;
  readonly #cacheDirectory: string;
  /** Empty until there is one. */
  #directory = '';

  constructor(git: Git, address: GitAddress, cacheDirectory: string) {
    this.#git = git;
    this.#address = address;
    this.#cacheDirectory = cacheDirectory;
  }

  /**
   * Runs `work` on a repository that has the object (a commit or tag) without its history and blobs. When the cache
   * turns out to be broken, or the server gives no single blobs, once again on a new one with all blobs.
   */
  async withObject<T>(object: string, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    const name = await findRepository(this.#cacheDirectory);
    this.#directory = name === undefined ? '' : join(this.#cacheDirectory, name);
    if (await this.#needsRenewal()) await this.#drop();
    try {
      await this.#fetchObject(object, ['--filter=blob:none'], signal);
      return await work();
    } catch (error) {
      if (!isErrorCode(error, 'corrupt') || this.#directory === '') throw error;
      await this.#drop();
      await this.#fetchObject(object, [], signal);
      return await work();
    }
  }

  run(operation: string, args: readonly string[], signal: AbortSignal, input?: string): Promise<Buffer> {
    return this.#git.run(this.#call(operation, args, signal, input));
  }

  /** As `Git.attempt`. */
  attempt(
    operation: string,
    args: readonly string[],
    signal: AbortSignal,
    environment: Record<string, string>,
  ) {
    const call = this.#call(operation, args, signal);
    return this.#git.attempt({ ...call, environment: { ...call.environment, ...environment } });
  }

  stream(
    operation: string,
    args: readonly string[],
    signal: AbortSignal,
    input: string,
    consume: (stdout: Readable) => Promise<void>,
  ): Promise<void> {
    return this.#git.stream(this.#call(operation, args, signal, input), consume);
  }

  /** Fetches those of the blobs of a commit that aren't here, all at once: git by itself would fetch one after another. */
  async fetchBlobs(commit: string, blobs: ReadonlySet<string>, signal: AbortSignal): Promise<void> {
    const wanted: string[] = [];
    const list = ['rev-list', '--objects', '--no-object-names', '--missing=print', '--no-walk', commit];
    await this.stream(`list what is missing of ${commit}`, list, signal, '', async (stdout) => {
      for await (const line of linesOf(stdout)) {
        if (line.startsWith('?') && blobs.has(line.slice(1))) wanted.push(line.slice(1));
      }
    });
    if (wanted.length === 0) return;
    const operation = `fetch ${wanted.length} files of ${this.#address.url}`;
    const fetch = [
      '-c',
      'fetch.negotiationAlgorithm=noop',
      ...FETCH,
      '--filter=blob:none',
      '--stdin',
      'origin',
    ];
    try {
      await this.run(operation, fetch, signal, `${wanted.join('\n')}\n`);
    } catch (error) {
      if (!isErrorCode(error, 'not-found')) throw error;
      // A server may leave blobs out and then refuse to give them: this repository stays incomplete.
      throw new CimletError('corrupt', error.message, { hint: error.hint, cause: error });
    }
  }

  #call(operation: string, args: readonly string[], signal: AbortSignal, input?: string) {
    const environment: Record<string, string> = { GIT_DIR: this.#directory };
    return { operation, args, signal, environment, ...(input !== undefined && { input }) };
  }

  /** By its ID, so that what is fetched is what was resolved, wherever the branch has gone meanwhile. */
  async #fetchObject(object: string, options: readonly string[], signal: AbortSignal): Promise<void> {
    const { url } = this.#address;
    if (this.#directory === '') await this.#create(object.length === 64 ? 'sha256' : 'sha1', signal);
    const refspec = `+${object}:refs/cimlet/latest`;
    await this.run(
      `fetch ${object} of ${url}`,
      [...FETCH, '--depth=1', ...options, 'origin', refspec],
      signal,
    );
  }

  async #create(format: string, signal: AbortSignal): Promise<void> {
    const temporary = join(this.#cacheDirectory, `tmp-${randomUUID()}`);
    const directory = join(this.#cacheDirectory, `${PREFIX}${randomUUID().slice(0, 8)}`);
    await this.#git.run({
      operation: `make repository ${directory}`,
      args: ['init', '--quiet', '--bare', `--object-format=${format}`, temporary],
      signal,
    });
    await this.#change(() => rename(temporary, directory));
    this.#directory = directory;
  }

  /** Not there, grown, or left by a git that was killed. */
  async #needsRenewal(): Promise<boolean> {
    if (this.#directory === '') return true;
    const packs = await namesIn(join(this.#directory, 'objects/pack'));
    const locks = (await namesIn(this.#directory)).filter((name) => name.endsWith('.lock'));
    return (
      locks.length > 0 ||
      packs.some((name) => name.startsWith('tmp_')) ||
      packs.filter((name) => name.endsWith('.pack')).length > MOST_PACKS
    );
  }

  /** Renamed first: whoever still writes to it by its name makes no difference to removing it. */
  async #drop(): Promise<void> {
    this.#directory = '';
    const names = (await namesIn(this.#cacheDirectory)).filter((name) => name.startsWith(PREFIX));
    for (const name of names) {
      const removed = join(this.#cacheDirectory, `rm-${randomUUID()}`);
      await this.#change(async () => {
        await rename(join(this.#cacheDirectory, name), removed);
        await rm(removed, { recursive: true, force: true });
      });
    }
  }

  async #change(change: () => Promise<void>): Promise<void> {
    try {
      await mkdir(this.#cacheDirectory, { recursive: true });
      await change();
    } catch (error) {
      throw classify(error, `renew the repository in ${this.#cacheDirectory}`);
    }
  }
}

/** The name of the repository in a source's cache; undefined when there is none that was made to the end. */
export async function findRepository(cacheDirectory: string): Promise<string | undefined> {
  for (const name of await namesIn(cacheDirectory)) {
    if (!name.startsWith(PREFIX)) continue;
    if ((await namesIn(join(cacheDirectory, name))).includes('HEAD')) return name;
  }
  return undefined;
}

/** None in a folder that isn't there. */
async function namesIn(folder: string): Promise<string[]> {
  try {
    return await readdir(folder);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw classify(error, `read ${folder}`);
  }
}

async function* linesOf(stdout: Readable): AsyncGenerator<string> {
  let rest = '';
  for await (const chunk of stdout) {
    const lines = (rest + (chunk as Buffer).toString('latin1')).split('\n');
    rest = lines.pop() ?? '';
    yield* lines;
  }
}
