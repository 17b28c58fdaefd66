/** Artifacts put into a registry by its API, as signing tools do. */

import { createHash } from 'node:crypto';
import type { Digest } from '../../../src/hosts/host.ts';
import type { SignatureManifest } from '../../../src/images/signatures/evidence.ts';

export const sha256 = (bytes: Uint8Array | string): string =>
  `sha256:${createHash('sha256').update(bytes).digest('hex')}`;

export interface Artifact {
  artifactType?: string;
  configType?: string;
  blobs: { mediaType: string; bytes: Buffer; annotations?: Record<string, string> }[];
  subject?: { mediaType: string; digest: string; size: number };
}

export interface PushedArtifact {
  mediaType: string;
  digest: string;
  size: number;
  artifactType?: string | undefined;
}

const MANIFEST = 'application/vnd.oci.image.manifest.v1+json';

/** What is found of an artifact with one blob. */
export function evidenceOf(
  subject: Digest,
  artifactType: string,
  { mediaType, bytes }: { mediaType: string; bytes: Buffer },
): SignatureManifest {
  const digest = sha256(bytes) as Digest;
  return {
    subject,
    descriptor: { mediaType: MANIFEST, digest, size: bytes.length, urls: [], annotations: {} },
    bytes,
    artifactType,
    blobs: [{ mediaType, digest, annotations: {}, bytes }],
  };
}

/** `http://host`, repository, and the tag; without one the manifest is only found by its digest. */
export async function pushArtifact(
  base: string,
  repository: string,
  artifact: Artifact,
  tag?: string,
  headers: Record<string, string> = {},
): Promise<PushedArtifact> {
  const config = Buffer.from('{}');
  await pushBlob(base, repository, config, headers);
  for (const { bytes } of artifact.blobs) await pushBlob(base, repository, bytes, headers);
  const describe = (mediaType: string, bytes: Buffer) => ({
    mediaType,
    digest: sha256(bytes),
    size: bytes.length,
  });
  const manifest = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: MANIFEST,
      artifactType: artifact.artifactType,
      config: describe(artifact.configType ?? 'application/vnd.oci.image.config.v1+json', config),
      layers: artifact.blobs.map(({ mediaType, bytes, annotations }) => ({
        ...describe(mediaType, bytes),
        annotations,
      })),
      subject: artifact.subject,
    }),
  );
  const digest = sha256(manifest);
  await pushManifest(base, repository, tag ?? digest, MANIFEST, manifest, headers);
  return { mediaType: MANIFEST, digest, size: manifest.length, artifactType: artifact.artifactType };
}

/** What a registry without the referrers API is told: an index under the tag that stands for the subject. */
export async function pushReferrers(
  base: string,
  repository: string,
  subject: string,
  manifests: PushedArtifact[],
): Promise<void> {
  const mediaType = 'application/vnd.oci.image.index.v1+json';
  const index = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType, manifests }));
  await pushManifest(base, repository, subject.replace(':', '-'), mediaType, index);
}

async function pushManifest(
  base: string,
  repository: string,
  name: string,
  mediaType: string,
  bytes: Buffer,
  headers: Record<string, string> = {},
): Promise<void> {
  const answer = await fetch(`${base}/v2/${repository}/manifests/${name}`, {
    method: 'PUT',
    headers: { ...headers, 'content-type': mediaType },
    body: new Uint8Array(bytes),
  });
  if (answer.status !== 201) throw new Error(`push ${name}: ${answer.status} ${await answer.text()}`);
}

async function pushBlob(
  base: string,
  repository: string,
  bytes: Buffer,
  headers: Record<string, string>,
): Promise<void> {
  const started = await fetch(`${base}/v2/${repository}/blobs/uploads/`, { method: 'POST', headers });
  const url = new URL(started.headers.get('location') ?? '', base);
  url.searchParams.set('digest', sha256(bytes));
  const answer = await fetch(url, { method: 'PUT', headers, body: new Uint8Array(bytes) });
  if (answer.status !== 201) throw new Error(`push blob: ${answer.status} ${await answer.text()}`);
}
