/**
 * Finds what signs an image in its repository: by the referrers API, by the tag that stands for it where a registry has no such API,
 * and by cosign's older tag. Sources: OCI distribution-spec v1.1, "Listing Referrers" and "Referrers Tag Schema"; cosign
 * specs/SIGNATURE_SPEC.md, "Discovery".
 */

import { isErrorCode } from '../../errors.ts';
import type { Digest } from '../../hosts/host.ts';
import { parseArtifact, parseIndex } from '../documents.ts';
import type { RegistryClient } from '../registry/client.ts';
import type { Descriptor } from '../types.ts';
import {
  COSIGN_PAYLOAD,
  NOTATION_ARTIFACT,
  SIGSTORE_BUNDLE,
  type SignatureBlob,
  type SignatureManifest,
} from './evidence.ts';

/** A client of the same repository, for another of its tags. */
export type OpenTag = (tag: string) => RegistryClient;

/** More than this many signatures of one image are not looked at: each is a few requests. */
const MOST_SIGNATURES = 100;
const WANTED_BLOBS = [COSIGN_PAYLOAD, 'application/jose+json', 'application/cose'];

/** Each once, in the order found. Throws as the client does, but not for there being none. */
export async function findSignatures(
  digests: readonly Digest[],
  { client, openTag }: { client: RegistryClient; openTag: OpenTag },
  signal: AbortSignal,
): Promise<SignatureManifest[]> {
  const found = new Map<string, SignatureManifest>();
  for (const subject of new Set(digests)) {
    for (const descriptor of await manifestsFor(subject, client, openTag, signal)) {
      const key = `${subject} ${descriptor.digest}`;
      if (found.has(key) || found.size === MOST_SIGNATURES) continue;
      const manifest = await readSignature(subject, descriptor, client, signal);
      if (manifest !== undefined) found.set(key, manifest);
    }
  }
  return [...found.values()];
}

async function manifestsFor(
  subject: Digest,
  client: RegistryClient,
  openTag: OpenTag,
  signal: AbortSignal,
): Promise<Descriptor[]> {
  const tag = subject.replace(':', '-');
  const [referrers, byTag] = await Promise.all([
    client.referrers(subject, signal).then((known) => known ?? readFallback(openTag(tag), signal)),
    ifThere(openTag(`${tag}.sig`).resolve(signal)),
  ]);
  return byTag === undefined ? referrers : [...referrers, byTag];
}

async function readFallback(client: RegistryClient, signal: AbortSignal): Promise<Descriptor[]> {
  const index = await ifThere(client.resolve(signal));
  if (index === undefined) return [];
  return parseIndex(await client.readDocument(index, signal), `referrers in ${index.digest}`).manifests;
}

async function readSignature(
  subject: Digest,
  descriptor: Descriptor,
  client: RegistryClient,
  signal: AbortSignal,
): Promise<SignatureManifest | undefined> {
  const { digest, mediaType } = descriptor;
  const name = `signature ${digest}`;
  const { artifactType, layers } = parseArtifact(await client.readDocument(descriptor, signal), name);
  const wanted = layers.filter((layer) => isWanted(layer.mediaType));
  if (wanted.length === 0 && artifactType !== NOTATION_ARTIFACT) return undefined;
  const blobs: SignatureBlob[] = [];
  for (const layer of wanted.slice(0, MOST_SIGNATURES)) {
    const bytes = await client.readDocument(layer, signal);
    blobs.push({ mediaType: layer.mediaType, annotations: layer.annotations, bytes });
  }
  return { subject, descriptor: { digest, mediaType }, artifactType, blobs };
}

function isWanted(mediaType: string): boolean {
  return WANTED_BLOBS.includes(mediaType) || SIGSTORE_BUNDLE.test(mediaType);
}

async function ifThere<T>(asked: Promise<T>): Promise<T | undefined> {
  try {
    return await asked;
  } catch (error) {
    if (isErrorCode(error, 'not-found')) return undefined;
    throw error;
  }
}
