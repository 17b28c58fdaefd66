/**
 * Cosign's signatures: a payload that names the image, signed by a key, or by a certificate that says who signed it; and
 * Sigstore bundles of either kind. Sources: cosign specs/SIGNATURE_SPEC.md, sigstore protobuf-specs (bundle), in-toto
 * attestation spec. Certificates, transparency logs and bundles are verified by the sigstore packages.
 */

import { constants, type KeyObject, verify } from 'node:crypto';
import { isErrorCode } from '../../errors.ts';
import type { Digest } from '../../hosts/host.ts';
import { parseSimpleSigning, parseStatement } from '../documents.ts';
import {
  COSIGN_PAYLOAD,
  Disbelief,
  SIGNATURE_PREDICATE,
  SIGSTORE_BUNDLE,
  type SignatureBlob,
  type SignatureManifest,
} from './evidence.ts';
import type { BundleTrust, TrustedRoot } from './keyless.ts';

const SIGNATURE = 'dev.cosignproject.cosign/signature';

export interface CosignTrust extends BundleTrust {
  /** Who vouches for identities; asked for when a signature has one. */
  root: () => Promise<TrustedRoot>;
}

/** Who signed the image: the key's file, or the identity. Throws `Disbelief` with the reason of each signature. */
export async function verifyCosign(
  manifests: readonly SignatureManifest[],
  trust: CosignTrust,
): Promise<string> {
  const reasons: string[] = [];
  for (const { subject, descriptor, blobs } of manifests) {
    for (const blob of blobs) {
      try {
        const signer = await signerOf(blob, subject, trust);
        if (signer !== undefined) return signer;
      } catch (error) {
        if (!(error instanceof Disbelief)) throw error;
        reasons.push(`${descriptor.digest.slice(0, 19)}: ${error.message}`);
      }
    }
  }
  throw new Disbelief(reasons.length === 0 ? 'it has no cosign signature' : reasons.join('; '));
}

/** Undefined for what isn't cosign's. */
async function signerOf(
  blob: SignatureBlob,
  subject: Digest,
  trust: CosignTrust,
): Promise<string | undefined> {
  if (blob.mediaType === COSIGN_PAYLOAD) return verifySimpleSigning(blob, subject, trust);
  if (SIGSTORE_BUNDLE.test(blob.mediaType)) return verifyStatement(blob, subject, trust);
  return undefined;
}

async function verifySimpleSigning(
  blob: SignatureBlob,
  subject: Digest,
  trust: CosignTrust,
): Promise<string> {
  const signed = believe(() => parseSimpleSigning(blob.bytes, 'its payload'));
  if (signed !== subject) throw new Disbelief(`its payload is about ${signed}`);
  const { [SIGNATURE]: text } = blob.annotations;
  if (text === undefined) throw new Disbelief(`it has no annotation ${SIGNATURE}`);
  const signature = Buffer.from(text, 'base64');
  const signer = trust.keys.find(({ key }) => isSignedBy(key, blob.bytes, signature));
  if (signer !== undefined) return signer.name;
  if (trust.identities.length === 0) throw new Disbelief('none of the keys made it');
  const { verifyAnnotated } = await import('./keyless.ts');
  return verifyAnnotated(blob, signature, trust.identities, await trust.root());
}

async function verifyStatement(blob: SignatureBlob, subject: Digest, trust: CosignTrust): Promise<string> {
  const { verifyBundle } = await import('./keyless.ts');
  const { signer, payload } = await verifyBundle(blob.bytes, trust, trust.root);
  const { predicateType, subjects } = believe(() => parseStatement(payload, 'its statement'));
  if (predicateType !== SIGNATURE_PREDICATE)
    throw new Disbelief(`its statement is a ${predicateType}, no signature`);
  if (!subjects.includes(subject))
    throw new Disbelief(`its statement is about ${subjects.join(', ') || 'nothing'}`);
  return signer;
}

/** ECDSA over SHA-256, which cosign takes for every curve, or the curve's own size; RSA over SHA-256; Ed25519. */
function isSignedBy(key: KeyObject, payload: Buffer, signature: Buffer): boolean {
  switch (key.asymmetricKeyType) {
    case 'ed25519':
      return verify(null, payload, key, signature);
    case 'ec':
      return hashesFor(key).some((hash) => verify(hash, payload, key, signature));
    case 'rsa':
      return [constants.RSA_PKCS1_PADDING, constants.RSA_PKCS1_PSS_PADDING].some((padding) =>
        verify('sha256', payload, { key, padding }, signature),
      );
    default:
      return false;
  }
}

function hashesFor(key: KeyObject): string[] {
  const curve = key.asymmetricKeyDetails?.namedCurve;
  const own = curve === 'secp384r1' ? 'sha384' : curve === 'secp521r1' ? 'sha512' : [];
  return ['sha256', own].flat();
}

/** Throws `Disbelief` for documents that are not what they should be. */
function believe<T>(parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    if (!isErrorCode(error, 'corrupt')) throw error;
    throw new Disbelief(error.message, { cause: error });
  }
}
