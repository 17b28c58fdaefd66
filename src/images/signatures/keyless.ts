/**
 * Signatures without keys of one's own: a certificate names the signer, a transparency log says when. The cryptography is
 * the sigstore packages'; this decides whom to believe. Sources: sigstore bundle format; cosign specs/SIGNATURE_SPEC.md, "Properties".
 */

import { createHash, type KeyObject, X509Certificate } from 'node:crypto';
import { type Bundle, bundleFromJSON } from '@sigstore/bundle';
import { type Signer, type TrustMaterial, toSignedEntity, toTrustMaterial, Verifier } from '@sigstore/verify';
import { Disbelief, type SignatureBlob } from './evidence.ts';

export interface SignerIdentity {
  /** OpenID Connect issuer. */
  issuer: string;
  /** E-mail address or URI in the certificate. */
  subject: string;
}

/** Whose signatures are believed. */
export interface BundleTrust {
  keys: readonly { name: string; key: KeyObject }[];
  identities: readonly SignerIdentity[];
}

export type TrustedRoot = Parameters<typeof toTrustMaterial>[0];

const CERTIFICATE = 'dev.sigstore.cosign/certificate';
const LOG_ENTRY = 'dev.sigstore.cosign/bundle';
const NOBODY: TrustMaterial = {
  certificateAuthorities: [],
  timestampAuthorities: [],
  tlogs: [],
  ctlogs: [],
  publicKey: () => {
    throw new Disbelief('none of the keys made it');
  },
};

/** A signature whose certificate and log entry are annotations, as cosign wrote them before it had bundles. Returns the signer. */
export function verifyAnnotated(
  { bytes, annotations }: SignatureBlob,
  signature: Buffer,
  identities: readonly SignerIdentity[],
  root: TrustedRoot,
): string {
  const { [CERTIFICATE]: certificate, [LOG_ENTRY]: entry } = annotations;
  if (certificate === undefined) throw new Disbelief('none of the keys made it, and it has no certificate');
  if (entry === undefined) throw new Disbelief('it is in no transparency log');
  return guarded(() => {
    const bundle = bundleFromJSON(annotatedBundle(bytes, signature, certificate, entry));
    const signer = new Verifier(toTrustMaterial(root)).verify(toSignedEntity(bundle, bytes));
    return requireIdentity(signer, identities);
  });
}

/** What a bundle says, and who says so: a key's name, or an identity. `root` is asked for when there is a certificate. */
export async function verifyBundle(
  bytes: Buffer,
  { keys, identities }: BundleTrust,
  root: () => Promise<TrustedRoot>,
): Promise<{ signer: string; payload: Buffer }> {
  const bundle = guarded(() => bundleFromJSON(JSON.parse(bytes.toString('utf8'))));
  if (bundle.content.$case !== 'dsseEnvelope') throw new Disbelief('its bundle has no statement');
  const { payload } = bundle.content.dsseEnvelope;
  if (bundle.verificationMaterial.content.$case === 'publicKey')
    return { signer: verifyByKey(bundle, keys), payload };
  if (identities.length === 0)
    throw new Disbelief('it is signed by a certificate, and no identities are trusted');
  const trusted = await root();
  const signer = guarded(() =>
    requireIdentity(new Verifier(toTrustMaterial(trusted)).verify(toSignedEntity(bundle)), identities),
  );
  return { signer, payload };
}

/** Whoever trusts a key believes it without a log. */
function verifyByKey(bundle: Bundle, keys: BundleTrust['keys']): string {
  const options = { tlogThreshold: 0, ctlogThreshold: 0, timestampThreshold: 0 };
  const entity = { ...toSignedEntity(bundle), tlogEntries: [], timestamps: [] };
  const signer = keys.find(({ key }) => {
    const material = { ...NOBODY, publicKey: () => ({ publicKey: key, validFor: () => true }) };
    try {
      new Verifier(material, options).verify(entity);
      return true;
    } catch {
      // Another key may have made it.
      return false;
    }
  });
  if (signer === undefined) throw new Disbelief('none of the keys made it');
  return signer.name;
}

function requireIdentity({ identity }: Signer, identities: readonly SignerIdentity[]): string {
  const subject = identity?.subjectAlternativeName;
  const issuer = identity?.extensions?.issuer;
  const isKnown = identities.some((known) => known.subject === subject && known.issuer === issuer);
  const name = `${subject ?? 'nobody'}, vouched for by ${issuer ?? 'nobody'}`;
  if (!isKnown) throw new Disbelief(`it is signed by ${name}`);
  return name;
}

interface LogEntry {
  SignedEntryTimestamp: string;
  Payload: { body: string; integratedTime: number; logIndex: number; logID: string };
}

function annotatedBundle(payload: Buffer, signature: Buffer, certificate: string, text: string): unknown {
  const { SignedEntryTimestamp, Payload } = JSON.parse(text) as LogEntry;
  const body = JSON.parse(Buffer.from(Payload.body, 'base64').toString('utf8')) as {
    kind: string;
    apiVersion: string;
  };
  return {
    mediaType: 'application/vnd.dev.sigstore.bundle+json;version=0.1',
    verificationMaterial: {
      x509CertificateChain: {
        certificates: [{ rawBytes: new X509Certificate(certificate).raw.toString('base64') }],
      },
      tlogEntries: [
        {
          logIndex: String(Payload.logIndex),
          logId: { keyId: Buffer.from(Payload.logID, 'hex').toString('base64') },
          kindVersion: { kind: body.kind, version: body.apiVersion },
          integratedTime: String(Payload.integratedTime),
          inclusionPromise: { signedEntryTimestamp: SignedEntryTimestamp },
          canonicalizedBody: Payload.body,
        },
      ],
    },
    messageSignature: {
      messageDigest: { algorithm: 'SHA2_256', digest: createHash('sha256').update(payload).digest('base64') },
      signature: signature.toString('base64'),
    },
  };
}

/** What the packages throw for hostile input is of many kinds; each means that the signature isn't believed. */
function guarded<T>(verify: () => T): T {
  try {
    return verify();
  } catch (error) {
    if (error instanceof Disbelief) throw error;
    throw new Disbelief(error instanceof Error ? error.message : String(error), { cause: error });
  }
}
