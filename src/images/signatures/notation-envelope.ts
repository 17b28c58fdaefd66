/**
 * Notary Project signatures as they are stored: a JWS or a COSE_Sign1 with the signer's certificates. Opening one checks the signature over
 * its payload, and nothing else. Sources: notaryproject specifications/signature-envelope-jws.md and -cose.md; RFC 7515, 9052.
 */

import { constants, type KeyObject, verify, X509Certificate } from 'node:crypto';
import { decode, encode } from 'cborg';
import { Disbelief } from './evidence.ts';

export interface NotationEnvelope {
  payload: Buffer;
  /** Signed headers, by the names that both formats share. */
  headers: ReadonlyMap<string, unknown>;
  /** Leaf first. */
  chain: X509Certificate[];
}

export const SIGNING_SCHEME = 'io.cncf.notary.signingScheme';
export const EXPIRY = 'io.cncf.notary.expiry';
export const CONTENT_TYPE = 'content type';
export const CRITICAL = 'critical';

const JWS_ALGORITHMS: Record<string, Algorithm> = {
  PS256: { hash: 'sha256', kind: 'rsa' },
  PS384: { hash: 'sha384', kind: 'rsa' },
  PS512: { hash: 'sha512', kind: 'rsa' },
  ES256: { hash: 'sha256', kind: 'ec' },
  ES384: { hash: 'sha384', kind: 'ec' },
  ES512: { hash: 'sha512', kind: 'ec' },
};
/** Source: IANA COSE registry. */
const COSE_ALGORITHMS: Record<number, string> = {
  [-37]: 'PS256',
  [-38]: 'PS384',
  [-39]: 'PS512',
  [-7]: 'ES256',
  [-35]: 'ES384',
  [-36]: 'ES512',
};
const COSE_SIGN1 = 18;
const EPOCH_TIME = 1;
const X5CHAIN = 33;

interface Algorithm {
  hash: string;
  kind: 'rsa' | 'ec';
}

/** Throws `Disbelief` for what is no such envelope, or isn't signed by its own leaf certificate. */
export function openEnvelope(mediaType: string, bytes: Buffer): NotationEnvelope {
  try {
    return mediaType === 'application/cose' ? openCose(bytes) : openJws(bytes);
  } catch (error) {
    if (error instanceof Disbelief) throw error;
    throw new Disbelief(`its envelope can't be read: ${String(error)}`, { cause: error });
  }
}

interface Jws {
  payload: string;
  protected: string;
  header: { x5c: string[] };
  signature: string;
}

function openJws(bytes: Buffer): NotationEnvelope {
  const jws = JSON.parse(bytes.toString('utf8')) as Jws;
  const { alg, cty, crit, ...rest } = JSON.parse(
    Buffer.from(jws.protected, 'base64url').toString('utf8'),
  ) as Record<string, unknown>;
  const chain = jws.header.x5c.map((der) => new X509Certificate(Buffer.from(der, 'base64')));
  const signed = Buffer.from(`${jws.protected}.${jws.payload}`, 'ascii');
  requireSignature(String(alg), chain, signed, Buffer.from(jws.signature, 'base64url'));
  return {
    payload: Buffer.from(jws.payload, 'base64url'),
    headers: new Map([...Object.entries(rest), [CONTENT_TYPE, cty], [CRITICAL, crit]]),
    chain,
  };
}

function openCose(bytes: Buffer): NotationEnvelope {
  const tags = { [COSE_SIGN1]: untag, [EPOCH_TIME]: untag };
  const read = (data: Uint8Array): unknown => decode(data, { useMaps: true, tags });
  const [protectedBytes, unprotected, payload, signature] = read(bytes) as [
    Uint8Array,
    Map<unknown, unknown>,
    Uint8Array,
    Uint8Array,
  ];
  const {
    1: alg,
    2: crit,
    3: cty,
    ...rest
  } = Object.fromEntries(read(protectedBytes) as Map<string | number, unknown>);
  const certificates = [unprotected.get(X5CHAIN)].flat() as Uint8Array[];
  const chain = certificates.map((der) => new X509Certificate(der));
  const signed = Buffer.from(encode(['Signature1', protectedBytes, new Uint8Array(), payload]));
  requireSignature(COSE_ALGORITHMS[Number(alg)] ?? String(alg), chain, signed, Buffer.from(signature));
  return {
    payload: Buffer.from(payload),
    headers: new Map([...Object.entries(rest), [CONTENT_TYPE, cty], [CRITICAL, crit]]),
    chain,
  };
}

function untag(value: unknown): unknown {
  return typeof value === 'function' ? (value as () => unknown)() : value;
}

function requireSignature(
  name: string,
  [leaf]: readonly X509Certificate[],
  signed: Buffer,
  signature: Buffer,
): void {
  const algorithm = JWS_ALGORITHMS[name];
  if (algorithm === undefined)
    throw new Disbelief(`its algorithm ${name} is not one of the Notary Project's`);
  if (leaf === undefined) throw new Disbelief('it has no certificate');
  if (!isSignedBy(leaf.publicKey, algorithm, signed, signature))
    throw new Disbelief('its signature does not fit its payload');
}

function isSignedBy(key: KeyObject, { hash, kind }: Algorithm, signed: Buffer, signature: Buffer): boolean {
  if (key.asymmetricKeyType !== kind) return false;
  const how =
    kind === 'ec'
      ? ({ key, dsaEncoding: 'ieee-p1363' } as const)
      : { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST };
  return verify(hash, signed, how, signature);
}
