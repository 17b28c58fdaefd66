/**
 * Blobs of images fetched from registries, as an OCI layout that other tools can read too:
 *
 *   oci-layout, index.json     which images are here, by reference
 *   blobs/<algorithm>/<hex>    whole and verified; nothing else ever has such a name
 *   ingest/<digest>.part       beginnings of blobs, taken up again by the next attempt
 *
 * One process writes at a time (it holds the root's lock); any number may read.
 */

import { createReadStream } from 'node:fs';
import { mkdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { CimletError, classify } from '../errors.ts';
import type { Digest } from '../hosts/host.ts';
import { KeyedLock } from '../hosts/keyed-lock.ts';
import { BlobIngest, syncDirectory } from './blob-store-ingest.ts';
import { DigestCheck } from './digest.ts';
import { parseIndex } from './documents.ts';
import type { Descriptor } from './types.ts';

export interface BlobStore {
  readonly directory: string;
  /** Where a blob is, or is going to be. */
  pathOf(digest: Digest): string;
  /** Whether a blob is there with this size. Its digest was right when it was stored. */
  has(digest: Digest, size: number): Promise<boolean>;
  /** A small blob, its digest checked; undefined when it isn't there or is damaged. */
  readDocument(descriptor: Descriptor): Promise<Buffer | undefined>;
  /** Stores a small blob whose digest the caller has checked. */
  addDocument(digest: Digest, bytes: Uint8Array): Promise<void>;
  /**
   * Lets `fill` add a blob; when it returns, the blob is there. Does nothing when it already is. One at a time for each
   * digest: others wait, and find it there.
   */
  addBlob(
    blob: { digest: Digest; size: number },
    fill: (ingest: BlobIngest) => Promise<void>,
    signal: AbortSignal,
  ): Promise<void>;
  /** Removes a blob whose bytes have another digest by now. */
  discardIfDamaged(digest: Digest, signal: AbortSignal): Promise<void>;
  /** What a reference led to when its image was last fetched. */
  findImage(reference: string): Promise<Descriptor | undefined>;
  /** Says that the image is here: after this, `findImage` finds it. */
  recordImage(reference: string, descriptor: Descriptor): Promise<void>;
}

const READ_BYTES = 1 << 20;
const REFERENCE = 'org.opencontainers.image.ref.name';

/** `isEmpty`: nothing is looked for, as when the store is another machine's. */
export function openBlobStore(directory: string, { isEmpty = false }: { isEmpty?: boolean } = {}): BlobStore {
  const locks = new KeyedLock();
  const indexFile = join(directory, 'index.json');
  const pathOf = (digest: Digest) => join(directory, 'blobs', ...splitDigest(digest));
  const ingestOf = (digest: Digest) => join(directory, 'ingest', `${splitDigest(digest).join('-')}.part`);

  const readIndex = async (): Promise<Descriptor[]> => {
    const bytes = await readIfThere(indexFile);
    return bytes === undefined ? [] : parseIndex(bytes, indexFile).manifests;
  };

  const store: BlobStore = {
    directory,
    pathOf,
    async has(digest, size) {
      return !isEmpty && (await sizeIfThere(pathOf(digest))) === size;
    },
    async readDocument({ digest, size }) {
      if (!(await store.has(digest, size))) return undefined;
      const bytes = await readIfThere(pathOf(digest));
      if (bytes === undefined) return undefined;
      const check = new DigestCheck(digest);
      check.update(bytes);
      return check.mismatch() === undefined ? bytes : undefined;
    },
    async addDocument(digest, bytes) {
      await locks.run(digest, () => writeDurably(pathOf(digest), ingestOf(digest), bytes));
    },
    async addBlob({ digest, size }, fill, signal) {
      await locks.run(digest, async () => {
        if (await store.has(digest, size)) return;
        const ingest = await BlobIngest.open({
          digest,
          size,
          part: ingestOf(digest),
          path: pathOf(digest),
          signal,
        });
        try {
          await fill(ingest);
        } finally {
          await ingest.close();
        }
      });
    },
    async discardIfDamaged(digest, signal) {
      const path = pathOf(digest);
      try {
        const check = new DigestCheck(digest);
        for await (const chunk of createReadStream(path, { highWaterMark: READ_BYTES, signal }))
          check.update(chunk);
        if (check.mismatch() !== undefined) await rm(path, { force: true });
      } catch (error) {
        throw classify(error, `check blob ${path}`);
      }
    },
    async findImage(reference) {
      if (isEmpty) return undefined;
      return (await readIndex()).find((entry) => entry.annotations[REFERENCE] === reference);
    },
    async recordImage(reference, { mediaType, digest, size }) {
      await locks.run(indexFile, async () => {
        const others = (await readIndex()).filter((entry) => entry.annotations[REFERENCE] !== reference);
        const entries = [...others, { mediaType, digest, size, annotations: { [REFERENCE]: reference } }];
        const manifests = entries.map((entry) => ({
          mediaType: entry.mediaType,
          digest: entry.digest,
          size: entry.size,
          annotations: entry.annotations,
        }));
        const layout = join(directory, 'oci-layout');
        await writeDurably(layout, `${layout}.tmp`, JSON.stringify({ imageLayoutVersion: '1.0.0' }));
        const index = { schemaVersion: 2, mediaType: 'application/vnd.oci.image.index.v1+json', manifests };
        await writeDurably(indexFile, `${indexFile}.tmp`, JSON.stringify(index));
      });
    },
  };
  return store;
}

/** Throws for what isn't a digest, so that no path can be smuggled in. */
function splitDigest(digest: Digest): [algorithm: string, hex: string] {
  const [, algorithm, hex] = /^(sha256|sha512):([0-9a-f]+)$/.exec(digest) ?? [];
  if (algorithm === undefined || hex === undefined)
    throw new CimletError('corrupt', `${digest} is no digest`);
  return [algorithm, hex];
}

async function sizeIfThere(path: string): Promise<number | undefined> {
  try {
    const found = await stat(path);
    return found.isFile() ? found.size : undefined;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw classify(error, `read ${path}`);
  }
}

async function readIfThere(path: string): Promise<Buffer | undefined> {
  try {
    return await readFile(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw classify(error, `read ${path}`);
  }
}

async function writeDurably(path: string, temporary: string, content: Uint8Array | string): Promise<void> {
  try {
    await mkdir(dirname(path), { recursive: true });
    await mkdir(dirname(temporary), { recursive: true });
    try {
      await writeFile(temporary, content, { flush: true });
      await rename(temporary, path);
    } finally {
      await rm(temporary, { force: true });
    }
    await syncDirectory(dirname(path));
  } catch (error) {
    throw classify(error, `write ${path}`);
  }
}
