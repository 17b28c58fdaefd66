/** What the images of a root consist of, and which of it is here. */

import type { Digest } from '../hosts/host.ts';
import type { BlobStore, StoredImage } from './blob-store.ts';
import { parseConfig, parseIndex, parseManifest } from './documents.ts';
import { isIndex } from './oci-image.ts';
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
  /** Every blob that it leads to and that may be here: documents, configurations, layers. */
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
    if (bytes === undefined) return;
    const name = `${descriptor.digest} in ${store.directory}`;
    if (isIndex(descriptor)) {
      for (const child of parseIndex(bytes, name).manifests) await visit(child);
      return;
    }
    const { config, layers } = parseManifest(bytes, name);
    for (const blob of [config, ...layers]) blobs.set(blob.digest, blob);
    const present = await Promise.all(layers.map(({ digest, size }) => store.has(digest, size)));
    const configuration = await store.readDocument(config);
    platforms.push({
      digest: descriptor.digest,
      platform: configuration === undefined ? undefined : parseConfig(configuration, name).platform,
      bytes: layers.reduce((total, { size }) => total + size, 0),
      isWhole: present.every((isHere) => isHere),
    });
  }

  await visit(image.descriptor);
  return { ...image, platforms, blobs: [...blobs.values()] };
}
