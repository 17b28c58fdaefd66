/** The manifest of a signature and the blobs it names, wherever they are kept. */

import { isErrorCode } from '../../errors.ts';
import type { Digest } from '../../hosts/host.ts';
import { parseArtifact } from '../documents.ts';
import type { Descriptor } from '../types.ts';
import {
  COSIGN_PAYLOAD,
  NOTATION_ARTIFACT,
  SIGSTORE_BUNDLE,
  type SignatureBlob,
  type SignatureManifest,
} from './evidence.ts';

/** A statement about an image is a few KiB; what is as large as this attests something else. */
const LARGEST_BLOB = 1 << 20;
const MOST_BLOBS = 100;
/** Of all of them; what a manifest says of their sizes may be wrong. */
const MOST_BYTES = 8 << 20;
const WANTED_BLOBS = [COSIGN_PAYLOAD, 'application/jose+json', 'application/cose'];

/** Undefined for what is no signature, or can't be read: another may be good. Throws as `read` does. */
export async function readSignature(
  subject: Digest,
  descriptor: Descriptor,
  read: (wanted: Descriptor) => Promise<Buffer | undefined>,
): Promise<SignatureManifest | undefined> {
  const bytes = await read(descriptor);
  if (bytes === undefined) return undefined;
  const artifact = readArtifact(bytes, `signature ${descriptor.digest}`);
  if (artifact === undefined) return undefined;
  const { artifactType, layers } = artifact;
  const wanted = layers.filter((layer) => isWanted(layer.mediaType) && layer.size <= LARGEST_BLOB);
  if (wanted.length === 0 && artifactType !== NOTATION_ARTIFACT) return undefined;
  const blobs: SignatureBlob[] = [];
  let total = 0;
  for (const layer of wanted.slice(0, MOST_BLOBS)) {
    if (total > MOST_BYTES) break;
    const content = await read(layer);
    if (content === undefined) continue;
    total += content.length;
    const { mediaType, digest, annotations } = layer;
    blobs.push({ mediaType, digest, annotations, bytes: content });
  }
  return { subject, descriptor, bytes, artifactType, blobs };
}

function readArtifact(bytes: Buffer, name: string): ReturnType<typeof parseArtifact> | undefined {
  try {
    return parseArtifact(bytes, name);
  } catch (error) {
    if (isErrorCode(error, 'corrupt')) return undefined;
    throw error;
  }
}

function isWanted(mediaType: string): boolean {
  return WANTED_BLOBS.includes(mediaType) || SIGSTORE_BUNDLE.test(mediaType);
}
