/** Which images and blobs of a root may go: what nothing uses any more. Looks only; `removeGarbage` removes. */

import type { Digest } from '../hosts/host.ts';
import type { BlobStore, StoredBlob } from './blob-store.ts';
import type { StoredImage } from './index-entries.ts';
import { type ImageInventory, inspectStored } from './stored-images.ts';

/** What must stay, whatever its age. */
export interface ImagesInUse {
  /** As `parseReference` spells them. */
  references: ReadonlySet<string>;
  /** Of manifests: an image that has one is in use. */
  manifests: ReadonlySet<string>;
  /** Of layers that are built from them, whoever else has them. */
  layers: ReadonlySet<string>;
}

export interface GarbagePolicy {
  /** How long something must have been unused. */
  minAgeMs: number;
  /** Unused images stay while all blobs together take no more than this; default: 0. */
  keepBytes?: number | undefined;
  /** Above the one, in percent of the disk, age doesn't matter any more, until the disk is down at the other. */
  highPercent: number;
  lowPercent: number;
}

export interface DiskUse {
  usedBytes: number;
  totalBytes: number;
}

export interface Garbage {
  images: { image: StoredImage; bytes: number; reason: string }[];
  blobs: { blob: StoredBlob; reason: string }[];
  /** What removing all of it frees. */
  bytes: number;
  /** Images in use that are to be remembered as such, so that their age begins when their use ends. */
  used: StoredImage[];
}

/** Younger than this, a blob may be part of a pull that goes on soon, however full the disk. */
const PRESSED_AGE_MS = 600_000;

/**
 * Oldest first. Images that no registry led to (loaded or copied by hand) stay until somebody removes them. `now`:
 * milliseconds since 1970.
 */
export async function findGarbage(
  store: BlobStore,
  {
    inUse,
    policy,
    disk,
    now,
  }: { inUse: ImagesInUse; policy: GarbagePolicy; disk: DiskUse | undefined; now: number },
): Promise<Garbage> {
  const images = await Promise.all((await store.listImages()).map((image) => inspectStored(store, image)));
  const blobs = await store.listBlobs();
  const isUsed = ({ reference, blobs: own }: ImageInventory) =>
    inUse.references.has(reference) || own.some(({ digest }) => inUse.manifests.has(digest));
  const used = images.filter(isUsed);
  const unused = images
    .filter((image) => !isUsed(image) && image.resolvedAt !== undefined)
    .sort((a, b) => lastUse(a) - lastUse(b));

  const collection = new Collection(images, blobs, [...inUse.manifests, ...inUse.layers]);
  const total = blobs.reduce((sum, { bytes }) => sum + bytes, 0);
  collection.sweep((blob) => now - blob.changedAt >= policy.minAgeMs, 'no image has it');
  for (const image of unused) {
    const age = now - lastUse(image);
    const fits = policy.keepBytes !== undefined && total - collection.bytes <= policy.keepBytes;
    if (age >= policy.minAgeMs && !fits) collection.drop(image, 'nothing uses it');
  }
  const { highPercent, lowPercent } = policy;
  if (disk !== undefined && percentAfter(disk, collection.bytes) > highPercent) {
    const reason = `the disk is more than ${highPercent}% full`;
    collection.sweep((blob) => now - blob.changedAt >= PRESSED_AGE_MS, reason);
    for (const image of unused)
      if (percentAfter(disk, collection.bytes) > lowPercent) collection.drop(image, reason);
  }
  return { images: collection.images, blobs: collection.blobs, bytes: collection.bytes, used };
}

/** Forgets the images, then deletes the blobs: a crash between leaves blobs that nothing has. */
export async function removeGarbage(
  store: BlobStore,
  { images, blobs, used }: Garbage,
  { now, signal }: { now: number; signal: AbortSignal },
): Promise<void> {
  signal.throwIfAborted();
  await store.recordUse(
    used.map(({ reference }) => reference),
    now,
  );
  await store.forgetImages(images.map(({ image }) => image.reference));
  for (const { blob } of blobs) {
    signal.throwIfAborted();
    await store.removeBlob(blob);
  }
}

class Collection {
  readonly images: Garbage['images'] = [];
  readonly blobs: Garbage['blobs'] = [];
  bytes = 0;
  readonly #files: readonly StoredBlob[];
  /** How many images that stay have a blob; what is in use has one more. */
  readonly #users = new Map<Digest, number>();
  readonly #gone = new Set<string>();

  constructor(images: readonly ImageInventory[], files: readonly StoredBlob[], inUse: readonly string[]) {
    this.#files = files;
    for (const { blobs } of images) for (const { digest } of blobs) this.#count(digest, 1);
    for (const digest of inUse) this.#count(digest as Digest, 1);
  }

  /** Takes the blobs that nobody has and that suit. */
  sweep(suits: (blob: StoredBlob) => boolean, reason: string): void {
    for (const blob of this.#files) {
      const isFree = blob.digest === undefined || (this.#users.get(blob.digest) ?? 0) === 0;
      if (isFree && suits(blob)) this.#take(blob, reason);
    }
  }

  /** Takes an image, and the blobs that nobody else has. */
  drop(image: ImageInventory, reason: string): void {
    if (this.images.some((taken) => taken.image === image)) return;
    const before = this.bytes;
    const own = new Set(image.blobs.map(({ digest }) => digest));
    for (const digest of own) this.#count(digest, -1);
    for (const blob of this.#files) {
      if (blob.digest !== undefined && own.has(blob.digest) && this.#users.get(blob.digest) === 0)
        this.#take(blob, `only ${image.reference} had it`);
    }
    this.images.push({ image, bytes: this.bytes - before, reason });
  }

  #take(blob: StoredBlob, reason: string): void {
    if (this.#gone.has(blob.path)) return;
    this.#gone.add(blob.path);
    this.blobs.push({ blob, reason });
    this.bytes += blob.bytes;
  }

  #count(digest: Digest, by: number): void {
    this.#users.set(digest, (this.#users.get(digest) ?? 0) + by);
  }
}

function lastUse({ usedAt = 0, resolvedAt = 0 }: StoredImage): number {
  return Math.max(usedAt, resolvedAt);
}

function percentAfter({ usedBytes, totalBytes }: DiskUse, freed: number): number {
  return totalBytes === 0 ? 0 : ((usedBytes - freed) / totalBytes) * 100;
}
