/** Who vouches for identities: the trusted root of a Sigstore, from a file, or as the public one publishes it by TUF. */

import { access, cp, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CimletError, classify, isErrorCode } from '../../errors.ts';
import type { TrustedRoot } from './keyless.ts';

export interface PublicRootOptions {
  /** Where it is kept. */
  directory: string;
  /** False where nothing may be written: what is fetched is then forgotten. */
  mayWrite: boolean;
  /** Nobody is asked: it is what was kept, however long ago. */
  offline: boolean;
  /** Another than the public one; `rootFile` is the root.json to begin with. */
  mirror?: { url: string; rootFile: string } | undefined;
  /** Milliseconds since 1970; only tests say. */
  now?: (() => number) | undefined;
}

const PUBLIC_MIRROR = 'https://tuf-repo-cdn.sigstore.dev';
const TARGET = 'trusted_root.json';
const HINT = 'name a copy of it with spec.verify.cosign.trustedRoot';
/** What was loaded is looked at again after this long. */
const FRESH_MS = 3_600_000;

interface Loading {
  root: Promise<TrustedRoot>;
  since: number;
}

/** The root that a Sigstore publishes, loaded once for all who ask. It is fetched again when what is kept of it has expired. */
export class PublicRoot {
  readonly #options: PublicRootOptions;
  #loading: Loading | undefined;

  constructor(options: PublicRootOptions) {
    this.#options = options;
  }

  /** Throws `unavailable` when it can't be had, or isn't signed as it must be, and `cancelled`. */
  async get(signal: AbortSignal): Promise<TrustedRoot> {
    const now = (this.#options.now ?? Date.now)();
    const known = this.#loading;
    const loading = known !== undefined && now - known.since < FRESH_MS ? known : this.#load(now);
    return unlessAborted(loading.root, signal);
  }

  /** What fails isn't kept, even if nobody waits for it any more. */
  #load(since: number): Loading {
    const loading = { root: load(this.#options), since };
    this.#loading = loading;
    loading.root.catch(() => {
      if (this.#loading === loading) this.#loading = undefined;
    });
    return loading;
  }
}

/** A Sigstore of one's own. Throws `not-found` and the like, and `invalid-manifest` for a file that is no trusted root. */
export async function readTrustedRoot(file: string): Promise<TrustedRoot> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (error) {
    throw classify(error, `read trusted root ${file}`);
  }
  const { TrustedRoot } = await import('@sigstore/protobuf-specs');
  try {
    return TrustedRoot.fromJSON(JSON.parse(text));
  } catch (error) {
    throw new CimletError('invalid-manifest', `${file} is no trusted root: ${String(error)}`, {
      cause: error,
    });
  }
}

async function load({ directory, mayWrite, offline, mirror }: PublicRootOptions): Promise<TrustedRoot> {
  if (offline) return readKept(directory, mirror);
  if (mayWrite) return fetchRoot(directory, mirror);
  const copy = await mkdtemp(join(tmpdir(), 'cimlet-tuf-'));
  try {
    await copyKept(directory, copy);
    return await fetchRoot(copy, mirror);
  } finally {
    await rm(copy, { recursive: true, force: true });
  }
}

/** Asks nobody while what is in the directory is still good. */
async function fetchRoot(cachePath: string, mirror: PublicRootOptions['mirror']): Promise<TrustedRoot> {
  const { getTrustedRoot } = await import('@sigstore/tuf');
  try {
    return await getTrustedRoot({
      cachePath,
      forceCache: true,
      ...(mirror === undefined ? {} : { mirrorURL: mirror.url, rootPath: mirror.rootFile }),
    });
  } catch (error) {
    throw new CimletError('unavailable', `fetch the trusted root of Sigstore: ${describe(error)}`, {
      hint: HINT,
      cause: error,
    });
  }
}

/** It was verified when it was written. The package lays one of its own there first; `targets.json` comes with the one that was fetched. */
async function readKept(directory: string, mirror: PublicRootOptions['mirror']): Promise<TrustedRoot> {
  const { host, pathname } = new URL(mirror?.url ?? PUBLIC_MIRROR);
  const repository = encodeURIComponent(host + pathname.replace(/\/$/, ''));
  const kept = join(directory, repository);
  try {
    await access(join(kept, 'targets.json'));
    return await readTrustedRoot(join(kept, 'targets', TARGET));
  } catch (error) {
    const classified = classify(error, `read ${kept}`);
    if (!isErrorCode(classified, 'not-found')) throw classified;
    throw new CimletError(
      'unavailable',
      'the trusted root of Sigstore is not here, and nobody is to be asked for it',
      { hint: HINT, cause: error },
    );
  }
}

async function copyKept(directory: string, copy: string): Promise<void> {
  try {
    await cp(directory, copy, { recursive: true });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw classify(error, `read ${directory}`);
  }
}

/** The package takes no signal: what it does goes on, for the few seconds that it gives servers to answer. */
function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = () =>
      reject(
        new CimletError('cancelled', 'fetch the trusted root of Sigstore: cancelled', {
          cause: signal.reason,
        }),
      );
    if (signal.aborted) abort();
    signal.addEventListener('abort', abort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
  });
}

/** The package says what failed, and only in the cause why. */
function describe(error: unknown): string {
  const { message, cause } = error instanceof Error ? error : new Error(String(error));
  return cause instanceof Error ? `${message}: ${cause.message}` : message;
}
