/** Envelopes that notation itself signed, as the Notary Project publishes them (notation-go/NOTICE). */

import { X509Certificate } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import type { Digest } from '../../../src/hosts/host.ts';
import { verifyImage } from '../../../src/images/signatures/verify-image.ts';
import { makeTemporaryDirectory } from '../../support/stored-blob.ts';
import { evidenceOf, sha256 } from './artifacts.ts';

const REPOSITORY = 'registry.example.com/app';
const SIGNED = 'sha256:19dbd2e48e921426ee8ace4dc892edfb2ecdc1d1a72d5416c83670c30acecef0' as Digest;
const SIGNED_BY_CHAIN = 'sha256:60043cf45eaebc4c0867fea485a039b598f52fd09fd5b07b0b2d2f88fad9d74e' as Digest;
const vector = (name: string) => readFileSync(join(import.meta.dirname, 'notation-go', name));

/** The last certificate of a JWS: that of the authority, or the signer's own. */
function rootOf(name: string): string {
  const { header } = JSON.parse(vector(name).toString('utf8')) as { header: { x5c: string[] } };
  return new X509Certificate(Buffer.from(header.x5c.at(-1) ?? '', 'base64')).toString();
}

interface Case {
  file: string;
  mediaType: string;
  subject: Digest;
  root: string;
  name: string;
}

const CASES: Case[] = [
  {
    file: 'jws_signature.sig',
    mediaType: 'application/jose+json',
    subject: SIGNED,
    root: 'jws_signature.sig',
    name: 'alpine',
  },
  // The same key signed both.
  {
    file: 'cose_signature.sig',
    mediaType: 'application/cose',
    subject: SIGNED,
    root: 'jws_signature.sig',
    name: 'alpine',
  },
  {
    file: 'ca_valid_sig_env.json',
    mediaType: 'application/jose+json',
    subject: SIGNED_BY_CHAIN,
    root: 'ca_valid_sig_env.json',
    name: 'Notation Test Root',
  },
];

function verify({ mediaType, subject, root }: Case, bytes: Buffer, about = subject) {
  const directory = makeTemporaryDirectory();
  const store = join(directory, 'trust/x509/ca/published');
  mkdirSync(store, { recursive: true });
  writeFileSync(join(store, 'root.pem'), rootOf(root));
  const policy = {
    name: 'published',
    registryScopes: [REPOSITORY],
    signatureVerification: { level: 'strict' },
    trustStores: ['ca:published'],
    trustedIdentities: ['x509.subject: C=US, ST=WA, L=Seattle, O=Notary'],
  };
  writeFileSync(join(directory, 'policy.json'), JSON.stringify({ version: '1.0', trustPolicies: [policy] }));
  const signature = evidenceOf(about, 'application/vnd.cncf.notary.signature', { mediaType, bytes });
  return verifyImage({
    spec: { notation: { trustPolicy: 'policy.json', trustStore: 'trust' } },
    baseDirectory: directory,
    image: `${REPOSITORY}:v1`,
    repository: REPOSITORY,
    signatures: [signature],
    publicRoot: () => Promise.reject(new Error('nobody has an identity')),
    now: new Date('2030-01-01T00:00:00Z'),
  });
}

it.each(CASES)('$file is believed, of what it is about, by whom its root is trusted', async (vectorCase) => {
  const bytes = vector(vectorCase.file);
  const { signer, warnings } = await verify(vectorCase, bytes);
  expect([signer, warnings]).toEqual([`C=US, ST=WA, L=Seattle, O=Notary, CN=${vectorCase.name}`, []]);
  await expect(verify(vectorCase, bytes, sha256('another') as Digest)).rejects.toMatchObject({
    code: 'access-denied',
    message: expect.stringContaining('it is about'),
  });
  const other = vectorCase.root === 'jws_signature.sig' ? 'ca_valid_sig_env.json' : 'jws_signature.sig';
  await expect(verify({ ...vectorCase, root: other }, bytes)).rejects.toMatchObject({
    code: 'access-denied',
    message: expect.stringContaining('none of its certificates'),
  });
});

it.each(CASES)('$file with another byte anywhere is not believed', async (vectorCase) => {
  const bytes = vector(vectorCase.file);
  const whole = bytes.toString('latin1');
  // What isn't signed may change: it names the program that signed.
  const agent = /[Ss]igningAgent.{0,24}/s.exec(whole);
  for (let at = 7; at < bytes.length; at += 97) {
    if (agent !== null && at >= agent.index - 24 && at < agent.index + agent[0].length) continue;
    const spoilt = Buffer.from(bytes);
    spoilt[at] = (spoilt[at] ?? 0) ^ 0x01;
    await expect(verify(vectorCase, spoilt), `byte ${at}`).rejects.toMatchObject({ code: 'access-denied' });
  }
});
