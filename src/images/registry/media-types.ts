/** Which documents a registry may have under a tag. */

import { CimletError } from '../../errors.ts';

export const OCI_INDEX = 'application/vnd.oci.image.index.v1+json';
const OCI_MANIFEST = 'application/vnd.oci.image.manifest.v1+json';

export const KNOWN_DOCUMENTS: readonly string[] = [
  OCI_INDEX,
  'application/vnd.docker.distribution.manifest.list.v2+json',
  OCI_MANIFEST,
  'application/vnd.docker.distribution.manifest.v2+json',
];

export function isKnownDocument(mediaType: string): boolean {
  return KNOWN_DOCUMENTS.includes(mediaType);
}

/** For servers that don't say, or say `application/json`: the document tells by its members. */
export function guessMediaType(bytes: Uint8Array, declared: string): string {
  let document: unknown;
  try {
    document = JSON.parse(Buffer.from(bytes).toString('utf8'));
  } catch {
    // The parser of the manifest says where it goes wrong.
    return OCI_MANIFEST;
  }
  const { mediaType, manifests, schemaVersion } = (document ?? {}) as Record<string, unknown>;
  if (typeof mediaType === 'string' && isKnownDocument(mediaType)) return mediaType;
  if (schemaVersion === 1) {
    throw new CimletError(
      'unsupported-host',
      `the manifest is of docker's schema 1 (${declared}), which nobody pushes any more`,
      {
        hint: 'push the image again with a current tool',
      },
    );
  }
  return Array.isArray(manifests) ? OCI_INDEX : OCI_MANIFEST;
}
