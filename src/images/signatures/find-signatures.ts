/**
 * Finds what signs an image in its repository: by the referrers API, by the tag that stands for it where a registry has no such API,
 * and by cosign's older tag. Sources: OCI distribution-spec v1.1, "Listing Referrers" and "Referrers Tag Schema"; cosign
 * specs/SIGNATURE_SPEC.md, "Discovery".
 */

import { type ErrorCode, isErrorCode } from '../../errors.ts';
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

/** More than so many referrers of one image are not looked at, each is a few requests, nor more than so many bytes of signatures. */
const MOST_SIGNATURES = 100;
const MOST_BYTES = 16 << 20;
/** A statement about an image is a few KiB; what is as large as this attests something else. */
const LARGEST_BLOB = 1 << 20;
const MOST_BLOBS = 100;
const WANTED_BLOBS = [COSIGN_PAYLOAD, 'application/jose+json', 'application/cose'];

/** Each once, in the order found. Throws as the client does, but not for there being none. */
export async function findSignatures(
  digests: readonly Digest[],
  { client, openTag }: { client: RegistryClient; openTag: OpenTag },
  signal: AbortSignal,
): Promise<SignatureManifest[]> {
  const found: SignatureManifest[] = [];
  const seen = new Set<string>();
  let bytes = 0;
  for (const subject of new Set(digests)) {
    for (const descriptor of await manifestsFor(subject, client, openTag, signal)) {
      const key = `${subject} ${descriptor.digest}`;
      if (seen.has(key) || seen.size >= MOST_SIGNATURES || bytes > MOST_BYTES) continue;
      seen.add(key);
      const manifest = await readSignature(subject, descriptor, client, signal);
      if (manifest === undefined) continue;
      found.push(manifest);
      bytes += manifest.blobs.reduce((sum, blob) => sum + blob.bytes.length, 0);
    }
  }
  return found;
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

/** Undefined for what is no signature, or can't be read: another may be good. */
async function readSignature(
  subject: Digest,
  descriptor: Descriptor,
  client: RegistryClient,
  signal: AbortSignal,
): Promise<SignatureManifest | undefined> {
  const { digest, mediaType } = descriptor;
  const bytes = await ifReadable(client.readDocument(descriptor, signal));
  const artifact = bytes === undefined ? undefined : readArtifact(bytes, `signature ${digest}`);
  if (artifact === undefined) return undefined;
  const { artifactType, layers } = artifact;
  const wanted = layers.filter((layer) => isWanted(layer.mediaType) && layer.size <= LARGEST_BLOB);
  if (wanted.length === 0 && artifactType !== NOTATION_ARTIFACT) return undefined;
  const blobs: SignatureBlob[] = [];
  for (const layer of wanted.slice(0, MOST_BLOBS)) {
    const content = await ifReadable(client.readDocument(layer, signal));
    if (content === undefined) continue;
    blobs.push({ mediaType: layer.mediaType, annotations: layer.annotations, bytes: content });
  }
  return { subject, descriptor: { digest, mediaType }, artifactType, blobs };
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

function ifThere<T>(asked: Promise<T>): Promise<T | undefined> {
  return unless(asked, 'not-found');
}

function ifReadable<T>(asked: Promise<T>): Promise<T | undefined> {
  return unless(asked, 'not-found', 'corrupt');
}

async function unless<T>(asked: Promise<T>, ...codes: ErrorCode[]): Promise<T | undefined> {
  try {
    return await asked;
  } catch (error) {
    if (isErrorCode(error, ...codes)) return undefined;
    throw error;
  }
}
