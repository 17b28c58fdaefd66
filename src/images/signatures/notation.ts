/**
 * Notary Project signatures verified by a trust policy: integrity, authenticity, expiry. Timestamps of a TSA and
 * revocation lists are not read: where the policy enforces them, the certificates must be valid now, and name no OCSP server.
 * Source: notaryproject specifications/trust-store-trust-policy.md, "Signature Verification".
 */

import type { X509Certificate } from 'node:crypto';
import { isErrorCode } from '../../errors.ts';
import { parseNotationPayload } from '../documents.ts';
import { Disbelief, NOTATION_ARTIFACT, type SignatureManifest } from './evidence.ts';
import {
  CONTENT_TYPE,
  CRITICAL,
  EXPIRY,
  type NotationEnvelope,
  openEnvelope,
  SIGNING_SCHEME,
} from './notation-envelope.ts';
import { parseSubject, type TrustPolicy, type Validation } from './notation-policy.ts';

export interface NotationTrust {
  policy: TrustPolicy;
  /** Certificates of the policy's stores. */
  anchors: readonly X509Certificate[];
  now: Date;
}

const PAYLOAD = 'application/vnd.cncf.notary.payload.v1+json';
const SCHEME = 'notary.x509';
/** Headers that must be understood, and are. */
const UNDERSTOOD = [SIGNING_SCHEME, 'io.cncf.notary.signingTime', EXPIRY];
const CODE_SIGNING = '1.3.6.1.5.5.7.3.3';

/** Who signed the image, and what the policy only logs. Throws `Disbelief` with the reason of each signature. */
export function verifyNotation(
  manifests: readonly SignatureManifest[],
  trust: NotationTrust,
): { signer: string; warnings: string[] } {
  if (trust.policy.authenticity === 'skip')
    return { signer: `nobody asked (policy ${trust.policy.name})`, warnings: [] };
  const reasons: string[] = [];
  for (const manifest of manifests.filter(({ artifactType }) => artifactType === NOTATION_ARTIFACT)) {
    for (const { mediaType, bytes } of manifest.blobs) {
      try {
        return verifyEnvelope(openEnvelope(mediaType, bytes), manifest, trust);
      } catch (error) {
        if (!(error instanceof Disbelief)) throw error;
        reasons.push(`${manifest.descriptor.digest.slice(0, 19)}: ${error.message}`);
      }
    }
  }
  throw new Disbelief(reasons.length === 0 ? 'it has no notation signature' : reasons.join('; '));
}

function verifyEnvelope(
  { payload, headers, chain }: NotationEnvelope,
  { subject }: SignatureManifest,
  { policy, anchors, now }: NotationTrust,
): { signer: string; warnings: string[] } {
  const warnings: string[] = [];
  const check = (validation: Validation, isMet: boolean, reason: string): void => {
    if (isMet || validation === 'skip') return;
    if (validation === 'enforce') throw new Disbelief(reason);
    warnings.push(reason);
  };
  const critical = [headers.get(CRITICAL) ?? []].flat();
  const strange = critical.find((name) => !UNDERSTOOD.includes(String(name)));
  if (strange !== undefined) throw new Disbelief(`it needs ${String(strange)} to be understood`);
  if (headers.get(CONTENT_TYPE) !== PAYLOAD)
    throw new Disbelief(`its payload is ${String(headers.get(CONTENT_TYPE))}`);
  if (headers.get(SIGNING_SCHEME) !== SCHEME)
    throw new Disbelief(`its signing scheme ${String(headers.get(SIGNING_SCHEME))} is not supported`);
  const target = readTarget(payload);
  if (target !== subject) throw new Disbelief(`it is about ${target}`);

  const [leaf, ...issuers] = chain;
  if (leaf === undefined) throw new Disbelief('it has no certificate');
  requireChain(leaf, issuers);
  const isAnchored = chain.some((certificate) =>
    anchors.some((anchor) => anchor.fingerprint256 === certificate.fingerprint256),
  );
  check(policy.authenticity, isAnchored, `none of its certificates is in ${policy.stores.join(', ')}`);
  const signer = leaf.subject.replaceAll('\n', ', ');
  check(
    policy.authenticity,
    isTrusted(leaf, policy),
    `it is signed by ${signer}, whom policy ${policy.name} doesn't name`,
  );
  const isValid = chain.every(
    ({ validFrom, validTo }) => new Date(validFrom) <= now && now <= new Date(validTo),
  );
  check(policy.authenticTimestamp, isValid, 'one of its certificates is not valid now');
  const expiry = timeOf(headers.get(EXPIRY));
  check(policy.expiry, expiry === undefined || now <= expiry, `it expired ${expiry?.toISOString()}`);
  const isRevocable = chain.some(({ infoAccess = '' }) => infoAccess.includes('OCSP'));
  check(policy.revocation, !isRevocable, 'whether its certificates were revoked is not looked up');
  return { signer, warnings };
}

function readTarget(payload: Buffer): string {
  try {
    return parseNotationPayload(payload, 'its payload');
  } catch (error) {
    if (!isErrorCode(error, 'corrupt')) throw error;
    throw new Disbelief(error.message, { cause: error });
  }
}

/** Each certificate made by the next, the last by itself; a leaf that may sign code, issuers that may issue. */
function requireChain(leaf: X509Certificate, issuers: readonly X509Certificate[]): void {
  const usages = leaf.keyUsage ?? [];
  if (usages.length > 0 && !usages.includes(CODE_SIGNING))
    throw new Disbelief('its certificate is not for signing code');
  if (leaf.ca && issuers.length > 0) throw new Disbelief('it is signed by an authority itself');
  let below = leaf;
  for (const issuer of issuers) {
    if (!issuer.ca || !below.checkIssued(issuer) || !below.verify(issuer.publicKey))
      throw new Disbelief(
        `its certificate ${below.subject.replaceAll('\n', ', ')} was not made by the next one`,
      );
    below = issuer;
  }
  // A signer that is its own root is no authority, and not asked to be one.
  const isRoot = below === leaf ? below.issuer === below.subject : below.checkIssued(below);
  if (!isRoot || !below.verify(below.publicKey)) throw new Disbelief('its certificates end before the root');
}

function isTrusted({ subject }: X509Certificate, { identities }: TrustPolicy): boolean {
  const own = parseSubject(subject);
  return identities.some(
    (wanted) => wanted === '*' || [...wanted].every(([attribute, value]) => own.get(attribute) === value),
  );
}

/** RFC 3339 in a JWS, seconds in COSE. */
function timeOf(value: unknown): Date | undefined {
  if (value === undefined) return undefined;
  const time =
    typeof value === 'number' || typeof value === 'bigint'
      ? new Date(Number(value) * 1000)
      : new Date(String(value));
  if (Number.isNaN(time.getTime())) throw new Disbelief(`its expiry ${String(value)} is no time`);
  return time;
}
