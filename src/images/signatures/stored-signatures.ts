/** Signatures that were believed once, kept with the image: a host that has all of it asks no registry again. */

import type { Digest } from '../../hosts/host.ts';
import type { BlobStore } from '../blob-store.ts';
import type { SignatureManifest } from './evidence.ts';
import { readSignature } from './read-signature.ts';

/** Those that are here. What is damaged or missing is left out. */
export async function readStoredSignatures(
  store: BlobStore,
  digests: readonly Digest[],
): Promise<SignatureManifest[]> {
  const manifests: SignatureManifest[] = [];
  for (const subject of digests) {
    for (const descriptor of await store.signaturesOf(subject)) {
      const manifest = await readSignature(subject, descriptor, (wanted) => store.readDocument(wanted));
      if (manifest !== undefined) manifests.push(manifest);
    }
  }
  return manifests;
}

/** The lists come last: what they name is here. */
export async function storeSignatures(
  store: BlobStore,
  manifests: readonly SignatureManifest[],
): Promise<void> {
  for (const { descriptor, bytes, blobs } of manifests)
    for (const document of [...blobs, { digest: descriptor.digest, bytes }])
      if (!(await store.has(document.digest, document.bytes.length)))
        await store.addDocument(document.digest, document.bytes);
  for (const subject of new Set(manifests.map((manifest) => manifest.subject))) {
    const own = manifests.filter((manifest) => manifest.subject === subject);
    await store.recordSignatures(
      subject,
      own.map(({ descriptor }) => descriptor),
    );
  }
}
