/**
 * Finds what signs an image in its repository: by the referrers API, by the tag that stands for it where a registry has no such API,
 * and by cosign's older tag. Sources: OCI distribution-spec v1.1, "Listing Referrers" and "Referrers Tag Schema"; cosign
 * specs/SIGNATURE_SPEC.md, "Discovery".
 */

import { CimletError, isErrorCode } from '../../errors.ts';
import type { Digest } from '../../hosts/host.ts';
import { parseIndex } from '../documents.ts';
import type { Everywhere, RegistryClient } from '../registry/client.ts';
import type { Descriptor } from '../types.ts';
import {
  NOTATION_ARTIFACT,
  SIGNATURE_PREDICATE,
  SIGSTORE_BUNDLE,
  type SignatureManifest,
} from './evidence.ts';
import { readSignature } from './read-signature.ts';

/** A client of the same repository, for another of its tags. */
export type OpenTag = (tag: string) => RegistryClient;

/** Of one image; each that is looked at is a few requests. */
const MOST_SIGNATURES = 100;
const MOST_LOOKED_AT = 1000;
const MOST_BYTES = 16 << 20;
/** What signatures are called in lists of referrers; those without a type of their own by their configuration's. */
const TYPES = [
  NOTATION_ARTIFACT,
  'application/vnd.dev.cosign.artifact.sig.v1+json',
  'application/vnd.oci.image.config.v1+json',
  'application/vnd.oci.empty.v1+json',
];
/** Of a bundle, as cosign annotates it. */
const PREDICATE = 'dev.sigstore.bundle.predicateType';

/** Signatures, and why some hosts of the registry couldn't be asked for more. */
export interface FoundSignatures {
  manifests: SignatureManifest[];
  failures: CimletError[];
}

/** Each once: cosign's tag first, since who else attests something of an image has many referrers. Throws as the client does. */
export async function findSignatures(
  digests: readonly Digest[],
  { client, openTag }: { client: RegistryClient; openTag: OpenTag },
  signal: AbortSignal,
): Promise<FoundSignatures> {
  const manifests: SignatureManifest[] = [];
  const failures: CimletError[] = [];
  const seen = new Set<string>();
  let bytes = 0;
  for (const subject of new Set(digests)) {
    const candidates = await candidatesFor(subject, client, openTag, signal);
    failures.push(...candidates.failures);
    for (const descriptor of candidates.found) {
      const key = `${subject} ${descriptor.digest}`;
      const isEnough =
        seen.size >= MOST_LOOKED_AT || manifests.length >= MOST_SIGNATURES || bytes > MOST_BYTES;
      if (isEnough || seen.has(key)) continue;
      seen.add(key);
      const manifest = await readSignature(subject, descriptor, (wanted) =>
        ifReadable(client.readDocument(wanted, signal)),
      );
      if (manifest === undefined) continue;
      manifests.push(manifest);
      bytes += manifest.bytes.length + manifest.blobs.reduce((sum, blob) => sum + blob.bytes.length, 0);
    }
  }
  return { manifests, failures };
}

/** What may be signatures, by all hosts of the registry. */
async function candidatesFor(
  subject: Digest,
  client: RegistryClient,
  openTag: OpenTag,
  signal: AbortSignal,
): Promise<Everywhere<Descriptor>> {
  const tag = subject.replace(':', '-');
  const [byTag, referrers] = await Promise.all([
    openTag(`${tag}.sig`).resolveEverywhere(signal),
    client.referrers(subject, signal),
  ]);
  const indexes = referrers.knowAll
    ? { found: [], failures: [] }
    : await openTag(tag).resolveEverywhere(signal);
  const listed = await Promise.all(indexes.found.map((index) => readFallback(index, client, signal)));
  return {
    found: [...byTag.found, ...[...referrers.found, ...listed.flatMap(({ found }) => found)].filter(maySign)],
    failures: [
      ...byTag.failures,
      ...referrers.failures,
      ...indexes.failures,
      ...listed.flatMap(({ failures }) => failures),
    ],
  };
}

/** What one host lists wrongly takes nothing from what others list. */
async function readFallback(
  index: Descriptor,
  client: RegistryClient,
  signal: AbortSignal,
): Promise<Everywhere<Descriptor>> {
  try {
    const bytes = await client.readDocument(index, signal);
    return { found: parseIndex(bytes, `referrers in ${index.digest}`).manifests, failures: [] };
  } catch (error) {
    if (!(error instanceof CimletError) || error.code === 'cancelled') throw error;
    return { found: [], failures: [error] };
  }
}

/** What says that it is something else isn't looked at. Not all who write lists say what is in them. */
function maySign({ artifactType, annotations }: Descriptor): boolean {
  const predicate = annotations[PREDICATE];
  if (predicate !== undefined && predicate !== SIGNATURE_PREDICATE) return false;
  return artifactType === undefined || TYPES.includes(artifactType) || SIGSTORE_BUNDLE.test(artifactType);
}

async function ifReadable<T>(asked: Promise<T>): Promise<T | undefined> {
  try {
    return await asked;
  } catch (error) {
    if (isErrorCode(error, 'not-found', 'corrupt')) return undefined;
    throw error;
  }
}
