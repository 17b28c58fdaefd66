/** A Sigstore of the tests' own: real certificates, log entries and bundles, by Sigstore's own signing library. */

import { createHash, generateKeyPairSync } from 'node:crypto';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { fulcioHandler, initializeCA, initializeCTLog, initializeTLog, rekorHandler } from '@sigstore/mock';
import { DSSEBundleBuilder, FulcioSigner, MessageSignatureBundleBuilder, RekorWitness } from '@sigstore/sign';

export interface TestSigstore {
  /** trusted_root.json. */
  trustedRoot: string;
  /** A bundle as cosign 3 attaches it: a statement about an image. */
  signStatement(statement: unknown, signer?: string): Promise<string>;
  /** Certificate, signature and log entry as cosign 2 annotates them. */
  signPayload(payload: Buffer, signer?: string): Promise<Record<string, string>>;
  close(): Promise<void>;
}

export const ISSUER = 'https://accounts.example.com';
export const SIGNER = 'release@example.com';

export async function startSigstore(): Promise<TestSigstore> {
  const keys = () => generateKeyPairSync('ec', { namedCurve: 'prime256v1' });
  const ctLog = await initializeCTLog(keys());
  const ca = await initializeCA(keys(), ctLog);
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', async () => {
      const handler = handlers.find(({ path }) => request.url === path);
      const answer = await handler?.fn(Buffer.concat(chunks).toString());
      response.writeHead(answer?.statusCode ?? 404, { 'content-type': answer?.contentType ?? 'text/plain' });
      response.end(answer?.response);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const tlog = await initializeTLog(url, keys());
  const handlers = [fulcioHandler(ca), rekorHandler(tlog)];

  const raw = (key: Buffer | Uint8Array) => Buffer.from(key).toString('base64');
  const log = (publicKey: Buffer, id: Buffer | Uint8Array) => ({
    baseUrl: url,
    hashAlgorithm: 'SHA2_256',
    publicKey: {
      rawBytes: raw(publicKey),
      keyDetails: 'PKIX_ECDSA_P256_SHA_256',
      validFor: { start: '2020-01-01T00:00:00Z' },
    },
    logId: { keyId: raw(id) },
  });
  const root = ca.rootCertificate;
  const ctId = ctLog.logID as unknown as { buffer: ArrayBuffer };
  const trustedRoot = JSON.stringify({
    mediaType: 'application/vnd.dev.sigstore.trustedroot+json;version=0.1',
    tlogs: [log(tlog.publicKey, createHash('sha256').update(tlog.publicKey).digest())],
    ctlogs: [log(ctLog.publicKey, Buffer.from(ctId.buffer))],
    certificateAuthorities: [
      {
        subject: { organization: 'example', commonName: 'example' },
        uri: url,
        certChain: { certificates: [{ rawBytes: raw(Buffer.from(root.buffer)) }] },
        validFor: { start: '2020-01-01T00:00:00Z' },
      },
    ],
    timestampAuthorities: [],
  });

  const parts = (subject: string) => ({
    signer: new FulcioSigner({
      fulcioBaseURL: url,
      identityProvider: { getToken: async () => token(subject) },
    }),
    witnesses: [new RekorWitness({ rekorBaseURL: url, entryType: 'intoto' })],
  });
  return {
    trustedRoot,
    async signStatement(statement, subject = SIGNER) {
      const { bundleToJSON } = await import('@sigstore/bundle');
      const bundle = await new DSSEBundleBuilder(parts(subject)).create({
        type: 'application/vnd.in-toto+json',
        data: Buffer.from(JSON.stringify(statement)),
      });
      return JSON.stringify(bundleToJSON(bundle));
    },
    async signPayload(payload, subject = SIGNER) {
      const bundle = await new MessageSignatureBundleBuilder(parts(subject)).create({ data: payload });
      const { verificationMaterial, content } = bundle;
      const material = verificationMaterial.content;
      const der =
        material.$case === 'certificate'
          ? material.certificate.rawBytes
          : material.$case === 'x509CertificateChain'
            ? material.x509CertificateChain.certificates[0]?.rawBytes
            : undefined;
      const [entry] = verificationMaterial.tlogEntries;
      return {
        'dev.cosignproject.cosign/signature': content.messageSignature.signature.toString('base64'),
        'dev.sigstore.cosign/certificate': pem(Buffer.from(der ?? [])),
        'dev.sigstore.cosign/bundle': JSON.stringify({
          SignedEntryTimestamp: entry?.inclusionPromise?.signedEntryTimestamp.toString('base64'),
          Payload: {
            body: entry?.canonicalizedBody.toString('base64'),
            integratedTime: Number(entry?.integratedTime),
            logIndex: Number(entry?.logIndex),
            logID: entry?.logId?.keyId.toString('hex'),
          },
        }),
      };
    },
    close: () => new Promise((resolve) => server.close(() => resolve())),
  };
}

/** Nobody but the tests' authority reads it, and that one believes it. */
function token(subject: string): string {
  const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');
  return `${part({ alg: 'none' })}.${part({ sub: subject, iss: ISSUER })}.`;
}

function pem(der: Buffer): string {
  const lines = der.toString('base64').match(/.{1,64}/g) ?? [];
  return ['-----BEGIN CERTIFICATE-----', ...lines, '-----END CERTIFICATE-----', ''].join('\n');
}
