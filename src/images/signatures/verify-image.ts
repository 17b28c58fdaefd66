/** `spec.verify` of an Image: whose signature it must have. */

import { createPublicKey, type KeyObject } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import { CimletError, classify } from '../../errors.ts';
import { verifyCosign } from './cosign.ts';
import { Disbelief, type SignatureManifest } from './evidence.ts';
import type { SignerIdentity, TrustedRoot } from './keyless.ts';
import { verifyNotation } from './notation.ts';
import { readTrustPolicy, readTrustStores } from './notation-policy.ts';
import { readTrustedRoot } from './trusted-root.ts';

/** Exactly one of the two. */
export interface VerificationSpec {
  cosign?: { keys?: string[]; identities?: SignerIdentity[]; trustedRoot?: string } | undefined;
  notation?: { trustPolicy: string; trustStore: string } | undefined;
}

export interface VerifyRequest {
  spec: VerificationSpec;
  /** Where relative paths of the specification start. */
  baseDirectory: string;
  /** As messages name the image. */
  image: string;
  /** `registry/repository`, as trust policies name it. */
  repository: string;
  signatures: readonly SignatureManifest[];
  /** Whom the public Sigstore trusts; asked for when a signature has an identity, and none of one's own is named. */
  publicRoot: () => Promise<TrustedRoot>;
  /** Only tests say. */
  now?: Date | undefined;
}

/**
 * Who signed it, and what is worth knowing about that. Throws `access-denied` with the reasons when nobody who is
 * trusted did, `invalid-manifest` and `not-found` for keys and policies that can't be read.
 */
export async function verifyImage(request: VerifyRequest): Promise<{ signer: string; warnings: string[] }> {
  const { spec, image } = request;
  try {
    if (spec.cosign !== undefined) return { signer: await byCosign(spec.cosign, request), warnings: [] };
    if (spec.notation !== undefined) return await byNotation(spec.notation, request);
  } catch (error) {
    if (!(error instanceof Disbelief)) throw error;
    throw new CimletError(
      'access-denied',
      `image ${image} is not signed by anybody spec.verify trusts: ${error.message}`,
      {
        hint: 'sign it, or correct spec.verify; nothing of it is unpacked until then',
        cause: error,
      },
    );
  }
  throw new Error('a verification is one of cosign and notation');
}

async function byCosign(
  { keys: files = [], identities = [], trustedRoot }: NonNullable<VerificationSpec['cosign']>,
  { baseDirectory, signatures, publicRoot }: VerifyRequest,
): Promise<string> {
  const keys = await Promise.all(files.map((file) => readKey(file, baseDirectory)));
  const root =
    trustedRoot === undefined ? publicRoot : () => readTrustedRoot(resolve(baseDirectory, trustedRoot));
  return verifyCosign(signatures, { keys, identities, root });
}

async function byNotation(
  { trustPolicy, trustStore }: NonNullable<VerificationSpec['notation']>,
  { baseDirectory, repository, signatures, now = new Date() }: VerifyRequest,
): Promise<{ signer: string; warnings: string[] }> {
  const policy = await readTrustPolicy(resolve(baseDirectory, trustPolicy), repository);
  const anchors = await readTrustStores(resolve(baseDirectory, trustStore), policy.stores);
  return verifyNotation(signatures, { policy, anchors, now });
}

async function readKey(name: string, baseDirectory: string): Promise<{ name: string; key: KeyObject }> {
  const file = resolve(baseDirectory, name);
  let pem: string;
  try {
    pem = await readFile(file, 'utf8');
  } catch (error) {
    throw classify(
      error,
      `read key ${file}`,
      'a relative path starts at the folder of the manifest that names it',
    );
  }
  if (/PRIVATE KEY-----/.test(pem))
    throw new CimletError('invalid-manifest', `key ${file} is a private one`, {
      hint: 'name the public key, and keep this one away from hosts',
    });
  try {
    return { name, key: createPublicKey(pem) };
  } catch (error) {
    throw new CimletError('invalid-manifest', `key ${file} is no public key in PEM`, { cause: error });
  }
}
