/** What the images of a root consist of, and which of it is here. */

import { isErrorCode } from '../errors.ts';
import type { Digest } from '../hosts/host.ts';
import type { BlobStore } from './blob-store.ts';
import { parseArtifact, parseConfig, parseIndex, parseManifest } from './documents.ts';
import type { StoredImage } from './index-entries.ts';
import { isIndex } from './oci-image.ts';
import { isKnownDocument } from './registry/media-types.ts';
import type { Descriptor, Platform } from './types.ts';

export interface StoredPlatform {
  digest: Digest;
  platform: Platform | undefined;
  /** Bytes of its layers. */
  bytes: number;
  /** Every layer is here. */
  isWhole: boolean;
}

export interface ImageInventory extends StoredImage {
  /** Those whose manifest is here. */
  platforms: StoredPlatform[];
  /** Every blob that it leads to and that may be here: documents, configurations, layers, and what signs it. */
  blobs: Descriptor[];
}

/** What is damaged or missing is left out: fetching the image again brings it. Throws only as the store does. */
export async function inspectStored(store: BlobStore, image: StoredImage): Promise<ImageInventory> {
  const platforms: StoredPlatform[] = [];
  const blobs = new Map<Digest, Descriptor>();

  async function visit(descriptor: Descriptor): Promise<void> {
    if (blobs.has(descriptor.digest)) return;
    blobs.set(descriptor.digest, descriptor);
    const bytes = await store.readDocument(descriptor);
    if (bytes === undefined || !isKnownDocument(descriptor.mediaType)) return;
    for (const blob of await blobsThatSign(store, descriptor.digest)) blobs.set(blob.digest, blob);
    const name = `${descriptor.digest} in ${store.directory}`;
    if (isIndex(descriptor)) {
      for (const child of readable(() => parseIndex(bytes, name))?.manifests ?? []) await visit(child);
      return;
    }
    const manifest = readable(() => parseManifest(bytes, name));
    if (manifest === undefined) return;
    const { config, layers } = manifest;
    for (const blob of [config, ...layers]) blobs.set(blob.digest, blob);
    const present = await Promise.all(layers.map(({ digest, size }) => store.has(digest, size)));
    const configuration = await store.readDocument(config);
    platforms.push({
      digest: descriptor.digest,
      platform: configuration === undefined ? undefined : platformIn(configuration, name),
      bytes: layers.reduce((total, { size }) => total + size, 0),
      isWhole: present.every((isHere) => isHere),
    });
  }

  await visit(image.descriptor);
  return { ...image, platforms, blobs: [...blobs.values()] };
}

async function blobsThatSign(store: BlobStore, subject: Digest): Promise<Descriptor[]> {
  const signatures = await store.signaturesOf(subject);
  const named = signatures.map(async (signature) => {
    const bytes = await store.readDocument(signature);
    const name = `signature ${signature.digest} in ${store.directory}`;
    const artifact = bytes === undefined ? undefined : readable(() => parseArtifact(bytes, name));
    return [signature, ...(artifact?.layers ?? [])];
  });
  return (await Promise.all(named)).flat();
}

/** Artifacts, which an index may list too, have configurations that are no image's. */
function platformIn(configuration: Uint8Array, name: string): Platform | undefined {
  return readable(() => parseConfig(configuration, name))?.platform;
}

function readable<T>(parse: () => T): T | undefined {
  try {
    return parse();
  } catch (error) {
    if (isErrorCode(error, 'corrupt')) return undefined;
    throw error;
  }
}
