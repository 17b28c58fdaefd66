/** Notary Project signatures in both envelopes, signed by openssl with certificates that openssl made. */

import { execFileSync } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { encode } from 'cborg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Digest } from '../../../src/hosts/host.ts';
import type { SignatureManifest } from '../../../src/images/signatures/evidence.ts';
import { readTrustPolicy, readTrustStores } from '../../../src/images/signatures/notation-policy.ts';
import { verifyImage } from '../../../src/images/signatures/verify-image.ts';
import { hasTool, requireOrSkip } from '../../support/requirements.ts';
import { scratch } from '../registry/registry-fixture.ts';
import { evidenceOf, sha256 } from './artifacts.ts';

const canSign = requireOrSkip('openssl', hasTool('openssl'));
const DIGEST = sha256('the image') as Digest;
const REPOSITORY = 'registry.example.com/app';
const PAYLOAD_TYPE = 'application/vnd.cncf.notary.payload.v1+json';

describe.runIf(canSign)('notation', () => {
  let directory: string;

  beforeAll(() => {
    directory = scratch('cimlet-notation-');
    makeAuthority('ca', '/C=US/ST=WA/O=acme/CN=root');
    makeAuthority('strangers', '/C=US/ST=WA/O=acme/CN=root');
    makeLeaf('leaf', 'ca', '/C=US/ST=WA/O=acme/CN=release', 'codeSigning');
    makeLeaf('server', 'ca', '/C=US/ST=WA/O=acme/CN=release', 'serverAuth');
    makeLeaf('strange', 'strangers', '/C=US/ST=WA/O=acme/CN=release', 'codeSigning');
    makeLeaf('other', 'ca', '/C=US/ST=WA/O=other/CN=release', 'codeSigning');
    mkdirSync(join(directory, 'trust/x509/ca/acme'), { recursive: true });
    writeFileSync(join(directory, 'trust/x509/ca/acme/ca.pem'), readFileSync(join(directory, 'ca.crt')));
    policy('strict', { override: {} });
  });
  afterAll(() => rmSync(directory, { recursive: true, force: true }));

  function openssl(args: string[]): void {
    execFileSync('openssl', args, { cwd: directory, stdio: ['ignore', 'ignore', 'pipe'] });
  }

  function makeAuthority(name: string, subject: string): void {
    const extensions = [
      '-addext',
      'basicConstraints=critical,CA:true',
      '-addext',
      'keyUsage=critical,keyCertSign',
    ];
    openssl([
      'req',
      '-x509',
      '-newkey',
      'rsa:2048',
      '-nodes',
      '-days',
      '30',
      '-subj',
      subject,
      ...extensions,
      '-keyout',
      `${name}.key`,
      '-out',
      `${name}.crt`,
    ]);
  }

  function makeLeaf(name: string, authority: string, subject: string, usage: string): void {
    openssl([
      'req',
      '-newkey',
      'rsa:2048',
      '-nodes',
      '-subj',
      subject,
      '-keyout',
      `${name}.key`,
      '-out',
      `${name}.csr`,
    ]);
    writeFileSync(
      join(directory, 'extensions'),
      `keyUsage=critical,digitalSignature\nextendedKeyUsage=${usage}\n`,
    );
    openssl([
      'x509',
      '-req',
      '-in',
      `${name}.csr`,
      '-CA',
      `${authority}.crt`,
      '-CAkey',
      `${authority}.key`,
      '-CAcreateserial',
      '-days',
      '30',
      '-extfile',
      'extensions',
      '-out',
      `${name}.crt`,
    ]);
  }

  function policy(
    level: string,
    more: { override?: Record<string, string>; identities?: string[]; scopes?: string[] },
  ): void {
    const { override, identities = ['x509.subject: C=US, ST=WA, O=acme'], scopes = [REPOSITORY] } = more;
    const trustPolicies = [
      {
        name: 'acme',
        registryScopes: scopes,
        signatureVerification: { level, override },
        trustStores: ['ca:acme'],
        trustedIdentities: identities,
      },
    ];
    writeFileSync(join(directory, 'trustpolicy.json'), JSON.stringify({ version: '1.0', trustPolicies }));
  }

  interface Signing {
    leaf?: string;
    chain?: string[];
    about?: string;
    headers?: Record<string, unknown>;
    critical?: string[];
    format?: 'jws' | 'cose';
  }

  function sign(bytes: Buffer, key: string): Buffer {
    writeFileSync(join(directory, 'signed'), bytes);
    const pss = ['-sigopt', 'rsa_padding_mode:pss', '-sigopt', 'rsa_pss_saltlen:digest'];
    openssl(['dgst', '-sha256', '-sign', `${key}.key`, ...pss, '-out', 'signature', 'signed']);
    return readFileSync(join(directory, 'signature'));
  }

  function envelope({
    leaf = 'leaf',
    chain = ['leaf', 'ca'],
    about = DIGEST,
    headers = {},
    critical = ['io.cncf.notary.signingScheme'],
    format = 'jws',
  }: Signing): SignatureManifest {
    const payload = Buffer.from(
      JSON.stringify({
        targetArtifact: { mediaType: 'application/vnd.oci.image.manifest.v1+json', digest: about, size: 7 },
      }),
    );
    const certificates = chain.map(
      (name) => new X509Certificate(readFileSync(join(directory, `${name}.crt`))).raw,
    );
    const named = { 'io.cncf.notary.signingScheme': 'notary.x509', ...headers };
    const bytes =
      format === 'jws'
        ? jws(payload, { alg: 'PS256', cty: PAYLOAD_TYPE, crit: critical, ...named }, certificates, leaf)
        : cose(
            payload,
            new Map<unknown, unknown>([[1, -37], [2, critical], [3, PAYLOAD_TYPE], ...Object.entries(named)]),
            certificates,
            leaf,
          );
    const mediaType = format === 'jws' ? 'application/jose+json' : 'application/cose';
    return evidenceOf(DIGEST, 'application/vnd.cncf.notary.signature', { mediaType, bytes });
  }

  function jws(
    payload: Buffer,
    headers: Record<string, unknown>,
    certificates: Buffer[],
    key: string,
  ): Buffer {
    const parts = [Buffer.from(JSON.stringify(headers)), payload].map((part) => part.toString('base64url'));
    const signature = sign(Buffer.from(parts.join('.')), key).toString('base64url');
    const x5c = certificates.map((certificate) => certificate.toString('base64'));
    return Buffer.from(
      JSON.stringify({ payload: parts[1], protected: parts[0], header: { x5c }, signature }),
    );
  }

  function cose(
    payload: Buffer,
    headers: Map<unknown, unknown>,
    certificates: Buffer[],
    key: string,
  ): Buffer {
    const headerBytes = encode(headers);
    const signature = sign(
      Buffer.from(encode(['Signature1', headerBytes, new Uint8Array(), new Uint8Array(payload)])),
      key,
    );
    const unprotected = new Map([[33, certificates.map((certificate) => new Uint8Array(certificate))]]);
    const body = encode([headerBytes, unprotected, new Uint8Array(payload), new Uint8Array(signature)]);
    // Tag 18: COSE_Sign1.
    return Buffer.concat([Buffer.from([0xd2]), body]);
  }

  const verify = (...signatures: SignatureManifest[]) => verifyAt(new Date(), ...signatures);

  const verifyAt = (now: Date, ...signatures: SignatureManifest[]) =>
    verifyImage({
      now,
      spec: { notation: { trustPolicy: 'trustpolicy.json', trustStore: 'trust' } },
      baseDirectory: directory,
      image: `${REPOSITORY}:v1`,
      repository: REPOSITORY,
      signatures,
      publicRoot: () => Promise.reject(new Error('nobody has an identity')),
    });

  const refused = (message: RegExp) => ({ code: 'access-denied', message: expect.stringMatching(message) });

  it.each(['jws', 'cose'] as const)('believes a %s envelope by a trusted certificate', async (format) => {
    policy('strict', {});
    const found = await verify(envelope({ format }));
    expect(found).toEqual({ signer: 'C=US, ST=WA, O=acme, CN=release', warnings: [] });
    const later = { 'io.cncf.notary.expiry': format === 'jws' ? '2099-01-01T00:00:00Z' : 4_070_908_800 };
    await verify(
      envelope({
        format,
        headers: later,
        critical: ['io.cncf.notary.signingScheme', 'io.cncf.notary.expiry'],
      }),
    );
  });

  it.each([
    ['another image', { about: sha256('another') }, /it is about sha256:/],
    ["a key that is not the certificate's", { leaf: 'other' }, /does not fit its payload/],
    [
      'a certificate of strangers',
      { leaf: 'strange', chain: ['strange', 'strangers'] },
      /none of its certificates is in ca:acme/,
    ],
    [
      'a chain that does not hold',
      { leaf: 'strange', chain: ['strange', 'ca'] },
      /was not made by the next one/,
    ],
    ['a chain without its root', { chain: ['leaf'] }, /end before the root/],
    ['a certificate for servers', { leaf: 'server', chain: ['server', 'ca'] }, /not for signing code/],
    [
      'a subject that is not trusted',
      { leaf: 'other', chain: ['other', 'ca'] },
      /O=other.*whom policy acme doesn't name/,
    ],
    ['an authority itself', { leaf: 'ca', chain: ['ca', 'ca'] }, /by an authority itself/],
    [
      'a signature that expired',
      { headers: { 'io.cncf.notary.expiry': '2020-01-01T00:00:00Z' } },
      /it expired 2020-01-01/,
    ],
    ['a header nobody knows', { critical: ['com.example.new'] }, /needs com\.example\.new to be understood/],
    [
      'another scheme',
      { headers: { 'io.cncf.notary.signingScheme': 'notary.x509.signingAuthority' } },
      /is not supported/,
    ],
  ] as const)('refuses %s', async (_what, signing, message) => {
    policy('strict', {});
    for (const format of ['jws', 'cose'] as const) {
      const signature = envelope({ ...(signing as Signing), format });
      await expect(verify(signature)).rejects.toMatchObject(refused(message));
      // One that is believed is enough.
      await verify(signature, envelope({ format }));
    }
  });

  it('refuses what is no envelope, and no signature at all', async () => {
    policy('strict', {});
    const broken = envelope({});
    for (const bytes of [Buffer.from('{}'), Buffer.from('nonsense'), Buffer.alloc(0)])
      await expect(
        verify(evidenceOf(DIGEST, broken.artifactType, { mediaType: 'application/jose+json', bytes })),
      ).rejects.toMatchObject(refused(/envelope can't be read/));
    for (const bytes of [Buffer.from([0xd2]), Buffer.from('nonsense'), Buffer.alloc(0)])
      await expect(
        verify(evidenceOf(DIGEST, broken.artifactType, { mediaType: 'application/cose', bytes })),
      ).rejects.toMatchObject(refused(/envelope can't be read/));
    await expect(verify()).rejects.toMatchObject(refused(/has no notation signature/));
  });

  it('refuses certificates that are not valid any more, unless the policy only logs that', async () => {
    policy('strict', {});
    const later = new Date(Date.now() + 60 * 86_400_000);
    await expect(verifyAt(later, envelope({}))).rejects.toMatchObject(refused(/not valid now/));
    policy('permissive', {});
    expect((await verifyAt(later, envelope({}))).warnings).toEqual([
      expect.stringContaining('not valid now'),
    ]);
  });

  it('goes by the level of the policy', async () => {
    policy('permissive', {});
    const old = envelope({ headers: { 'io.cncf.notary.expiry': '2020-01-01T00:00:00Z' } });
    expect((await verify(old)).warnings).toEqual([expect.stringContaining('it expired 2020')]);
    policy('permissive', { override: { expiry: 'enforce' } });
    await expect(verify(old)).rejects.toMatchObject(refused(/it expired/));
    policy('audit', {});
    expect((await verify(envelope({ leaf: 'other', chain: ['other', 'ca'] }))).warnings).toHaveLength(1);
    await expect(verify(envelope({ about: sha256('another') }))).rejects.toMatchObject(
      refused(/it is about/),
    );
    policy('skip', {});
    await verify();
    policy('strict', { identities: ['*'] });
    await verify(envelope({ leaf: 'other', chain: ['other', 'ca'] }));
  });

  it('says what is wrong with a policy or a store', async () => {
    policy('sometimes', {});
    await expect(verify()).rejects.toMatchObject({
      code: 'invalid-manifest',
      message: expect.stringContaining('unknown level "sometimes"'),
    });
    policy('strict', { scopes: ['elsewhere.example.com/app'] });
    await expect(verify()).rejects.toMatchObject({
      code: 'not-found',
      message: expect.stringContaining(REPOSITORY),
    });
    policy('strict', { scopes: ['*'] });
    expect((await readTrustPolicy(join(directory, 'trustpolicy.json'), REPOSITORY)).name).toBe('acme');
    policy('strict', { identities: ['acme'] });
    await expect(verify()).rejects.toMatchObject({
      message: expect.stringContaining('which is no x509.subject'),
    });
    for (const override of [{ authenticity: 'Enforce' }, { authenticity: 'skip' }, { other: 'log' }]) {
      policy('strict', { override });
      await expect(verify()).rejects.toMatchObject({
        code: 'invalid-manifest',
        message: expect.stringContaining('overrides'),
      });
    }
    policy('constructor', {});
    await expect(verify()).rejects.toMatchObject({ message: expect.stringContaining('unknown level') });
    writeFileSync(join(directory, 'trustpolicy.json'), '{');
    await expect(verify()).rejects.toMatchObject({ code: 'invalid-manifest' });
    await expect(readTrustStores(join(directory, 'trust'), ['ca:absent'])).rejects.toMatchObject({
      code: 'not-found',
    });
    // Who vouches for times vouches for no signer.
    expect(await readTrustStores(join(directory, 'trust'), ['tsa:acme', 'signingAuthority:acme'])).toEqual(
      [],
    );
    await expect(readTrustStores(join(directory, 'trust'), ['ca:..'])).rejects.toMatchObject({
      code: 'invalid-manifest',
    });
  });
});
