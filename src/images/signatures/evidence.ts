/** Signatures as registries keep them: what is to be verified, whoever it came from. */

import type { Digest } from '../../hosts/host.ts';
import type { Descriptor } from '../types.ts';

/** One blob that a signature's manifest names. */
export interface SignatureBlob {
  mediaType: string;
  digest: Digest;
  annotations: Record<string, string>;
  bytes: Buffer;
}

/** A manifest that says it signs an image: found, not yet believed. */
export interface SignatureManifest {
  /** Of the image that it was found for. */
  subject: Digest;
  descriptor: Descriptor;
  bytes: Buffer;
  artifactType: string;
  blobs: SignatureBlob[];
}

export const COSIGN_PAYLOAD = 'application/vnd.dev.cosign.simplesigning.v1+json';
export const NOTATION_ARTIFACT = 'application/vnd.cncf.notary.signature';
/** Versions are written `...;version=0.1` and later `....v0.3+json`. */
export const SIGSTORE_BUNDLE = /^application\/vnd\.dev\.sigstore\.bundle/;

/** What cosign's statements say of an image that they sign; others attest something else. */
export const SIGNATURE_PREDICATE = 'https://sigstore.dev/cosign/sign/v1';

/** Why a signature was not believed, for the error that names them all. */
export class Disbelief extends Error {}
