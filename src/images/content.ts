/** Everything that one image consists of, as it is copied from place to place: documents to keep as they are, and blobs. */

import type { FileRange } from './bundle.ts';
import { parseIndex, parseManifest } from './documents.ts';
import { isIndex, locate, readVerified } from './oci-image.ts';
import type { Descriptor, ImageBlobs } from './types.ts';

export interface ImageContent {
  /** What a reference to the image leads to: the last of the documents. */
  top: Descriptor;
  /** Manifests, and indexes after what they lead to. */
  documents: { descriptor: Descriptor; bytes: Buffer }[];
  /** Configurations and layers, each once. */
  blobs: { descriptor: Descriptor; range: FileRange }[];
}

/** Throws `not-found` for a blob that isn't there, `corrupt` for documents that don't hold together. */
export async function gatherContent(
  blobs: ImageBlobs,
  top: Descriptor,
  signal: AbortSignal,
): Promise<ImageContent> {
  const documents = new Map<string, ImageContent['documents'][number]>();
  const found = new Map<string, ImageContent['blobs'][number]>();

  async function visit(descriptor: Descriptor): Promise<void> {
    if (documents.has(descriptor.digest)) return;
    const kind = isIndex(descriptor) ? 'index' : 'manifest';
    const { name, bytes } = await readVerified(blobs, kind, descriptor, signal);
    if (isIndex(descriptor)) {
      for (const child of parseIndex(bytes, name).manifests) await visit(child);
    } else {
      const { config, layers } = parseManifest(bytes, name);
      for (const blob of [config, ...layers]) {
        if (found.has(blob.digest)) continue;
        found.set(blob.digest, { descriptor: blob, range: await locate(blobs, blob, name, signal) });
      }
    }
    documents.set(descriptor.digest, { descriptor, bytes });
  }

  await visit(top);
  return { top, documents: [...documents.values()], blobs: [...found.values()] };
}

/** Bytes of all blobs. */
export function contentBytes({ blobs }: ImageContent): number {
  return blobs.reduce((total, { descriptor }) => total + descriptor.size, 0);
}
