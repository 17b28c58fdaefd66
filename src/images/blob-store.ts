/**
 * Blobs of images fetched from registries, as an OCI layout that other tools can read too:
 *
 *   oci-layout, index.json     which images are here, by reference
 *   blobs/<algorithm>/<hex>    whole and verified; nothing else ever has such a name
 *   ingest/<digest>.part       beginnings of blobs, taken up again by the next attempt
 *   signatures/<digest>.json   an index of what signs the manifest or index with this digest
 *
 * One process writes at a time (it holds the root's lock); any number may read.
 */

import { createReadStream } from 'node:fs';
import { mkdir, readdir, readFile, rename, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { CimletError, classify, isErrorCode } from '../errors.ts';
import type { Digest } from '../hosts/host.ts';
import { KeyedLock } from '../hosts/keyed-lock.ts';
import { BlobIngest, syncDirectory } from './blob-store-ingest.ts';
import { DigestCheck, isDigest } from './digest.ts';
import { parseIndex } from './documents.ts';
import { fromEntry, type StoredImage, toEntry } from './index-entries.ts';
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
   * digest: others wait, each as long as its own signal lets it, and find it there.
   */
  addBlob(
    blob: { digest: Digest; size: number },
    fill: (ingest: BlobIngest) => Promise<void>,
    signal: AbortSignal,
  ): Promise<void>;
  /** Removes a blob whose bytes have another digest by now. */
  discardIfDamaged(digest: Digest, signal: AbortSignal): Promise<void>;
  /** The images that are here, by reference. */
  listImages(): Promise<StoredImage[]>;
  findImage(reference: string): Promise<StoredImage | undefined>;
  /** Says that the image is here: after this, `findImage` finds it. */
  recordImage(image: StoredImage): Promise<void>;
  /** Remembers that images were in use at a time; those that aren't here are fine. */
  recordUse(references: readonly string[], at: number): Promise<void>;
  /** Forgets images by reference; their blobs stay. Those that aren't here are fine. */
  forgetImages(references: readonly string[]): Promise<void>;
  /** What was recorded to sign a manifest or index: manifests of signatures, whose blobs are here as well. None for a damaged list: the next record replaces it. */
  signaturesOf(subject: Digest): Promise<Descriptor[]>;
  recordSignatures(subject: Digest, signatures: readonly Descriptor[]): Promise<void>;
  /** Every whole blob, every beginning of one, and every list of signatures, by what it is about, with when it was last written to (milliseconds since 1970). */
  listBlobs(): Promise<StoredBlob[]>;
  /** Deletes blobs and beginnings that nobody is writing. Missing is fine. */
  removeBlob(blob: StoredBlob): Promise<void>;
}

export interface StoredBlob {
  path: string;
  kind: 'blob' | 'beginning' | 'signatures';
  /** Of the whole blob, or of what the signatures are about; undefined for files that are called otherwise. */
  digest: Digest | undefined;
  bytes: number;
  changedAt: number;
}

const READ_BYTES = 1 << 20;

/** `isEmpty`: nothing is looked for, as when the store is another machine's. */
export function openBlobStore(directory: string, { isEmpty = false }: { isEmpty?: boolean } = {}): BlobStore {
  const locks = new KeyedLock();
  const indexFile = join(directory, 'index.json');
  const pathOf = (digest: Digest) => join(directory, 'blobs', ...splitDigest(digest));
  const ingestOf = (digest: Digest) => join(directory, 'ingest', `${splitDigest(digest).join('-')}.part`);

  const signaturesIn = (digest: Digest) =>
    join(directory, 'signatures', `${splitDigest(digest).join('-')}.json`);

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
      const add = async () => {
        if (await store.has(digest, size)) return touch(pathOf(digest));
        const part = ingestOf(digest);
        const ingest = await BlobIngest.open({ digest, size, part, path: pathOf(digest), signal });
        try {
          await fill(ingest);
        } finally {
          await ingest.close();
        }
      };
      await locks.run(digest, add, signal);
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
    async listImages() {
      return isEmpty ? [] : (await readIndex()).flatMap(fromEntry);
    },
    async findImage(reference) {
      return (await store.listImages()).find((image) => image.reference === reference);
    },
    async recordImage(image) {
      await changeIndex((images) => [
        ...images.filter(({ reference }) => reference !== image.reference),
        image,
      ]);
    },
    async recordUse(references, at) {
      if (references.length === 0) return;
      await changeIndex((images) =>
        images.map((image) => (references.includes(image.reference) ? { ...image, usedAt: at } : image)),
      );
    },
    async forgetImages(references) {
      if (references.length === 0) return;
      await changeIndex((images) => images.filter(({ reference }) => !references.includes(reference)));
    },
    async signaturesOf(subject) {
      const file = signaturesIn(subject);
      const bytes = isEmpty ? undefined : await readIfThere(file);
      try {
        return bytes === undefined ? [] : parseIndex(bytes, file).manifests;
      } catch (error) {
        if (isErrorCode(error, 'corrupt')) return [];
        throw error;
      }
    },
    async recordSignatures(subject, signatures) {
      const file = signaturesIn(subject);
      const manifests = signatures.map(({ mediaType, digest, size }) => ({ mediaType, digest, size }));
      await locks.run(file, () => writeDurably(file, `${file}.tmp`, JSON.stringify(indexOf(manifests))));
    },
    async listBlobs() {
      if (isEmpty) return [];
      const list = (folder: string, kind: StoredBlob['kind'], digestOf: (name: string) => string) =>
        listFiles(join(directory, folder), kind, digestOf);
      const found = await Promise.all([
        list('blobs/sha256', 'blob', (name) => `sha256:${name}`),
        list('blobs/sha512', 'blob', (name) => `sha512:${name}`),
        list('signatures', 'signatures', (name) => name.replace('-', ':').replace(/\.json$/, '')),
        list('ingest', 'beginning', (name) => name.replace('-', ':').replace(/\.part$/, '')),
      ]);
      return found.flat();
    },
    async removeBlob({ path, digest }) {
      await locks.run(digest ?? path, async () => {
        try {
          await rm(path, { force: true });
        } catch (error) {
          throw classify(error, `remove blob ${path}`);
        }
      });
    },
  };

  /** What stays as it is, and what somebody else put there without a reference, is written as it was. */
  const changeIndex = async (change: (images: StoredImage[]) => StoredImage[]): Promise<void> => {
    await locks.run(indexFile, async () => {
      const bytes = await readIfThere(indexFile);
      const entries = bytes === undefined ? [] : parseIndex(bytes, indexFile).manifests;
      const raw =
        bytes === undefined ? [] : (JSON.parse(bytes.toString('utf8')) as { manifests: unknown[] }).manifests;
      const before = entries.map((entry) => fromEntry(entry)[0]);
      const after = change(before.flatMap((image) => image ?? []));
      const kept = raw.filter((_entry, index) => {
        const image = before[index];
        return image === undefined || after.includes(image);
      });
      const manifests = [...kept, ...after.filter((image) => !before.includes(image)).map(toEntry)];
      const layout = join(directory, 'oci-layout');
      await writeDurably(layout, `${layout}.tmp`, JSON.stringify({ imageLayoutVersion: '1.0.0' }));
      await writeDurably(indexFile, `${indexFile}.tmp`, JSON.stringify(indexOf(manifests)));
    });
  };
  return store;
}

function indexOf(manifests: readonly unknown[]): object {
  return { schemaVersion: 2, mediaType: 'application/vnd.oci.image.index.v1+json', manifests };
}

/** Throws for what isn't a digest, so that no path can be smuggled in. */
function splitDigest(digest: Digest): [algorithm: string, hex: string] {
  const [, algorithm, hex] = /^(sha256|sha512):([0-9a-f]+)$/.exec(digest) ?? [];
  if (algorithm === undefined || hex === undefined)
    throw new CimletError('corrupt', `${digest} is no digest`);
  return [algorithm, hex];
}

async function listFiles(
  folder: string,
  kind: StoredBlob['kind'],
  digestOf: (name: string) => string,
): Promise<StoredBlob[]> {
  try {
    const files = (await readdir(folder, { withFileTypes: true })).filter((entry) => entry.isFile());
    return await Promise.all(
      files.map(async ({ name }) => {
        const path = join(folder, name);
        const { size, mtimeMs } = await stat(path);
        const digest = digestOf(name);
        return { path, kind, digest: isDigest(digest) ? digest : undefined, bytes: size, changedAt: mtimeMs };
      }),
    );
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw classify(error, `list ${folder}`);
  }
}

/** Whoever collects garbage sees that somebody wants it, before an image that has it is recorded. */
async function touch(path: string): Promise<void> {
  try {
    const now = new Date();
    await utimes(path, now, now);
  } catch (error) {
    throw classify(error, `touch ${path}`);
  }
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
