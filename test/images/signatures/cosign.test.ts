/** Cosign's signatures, made by openssl and by Sigstore's signing library, found in Debian's docker-registry. */

import { execFileSync } from 'node:child_process';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Digest } from '../../../src/hosts/host.ts';
import { openBlobStore } from '../../../src/images/blob-store.ts';
import { openRegistries, type Registries } from '../../../src/images/registry/registries.ts';
import { RequiredSignatures } from '../../../src/images/signatures/required-signatures.ts';
import { PublicRoot } from '../../../src/images/signatures/trusted-root.ts';
import type { VerificationSpec } from '../../../src/images/signatures/verify-image.ts';
import type { ResolvedImage } from '../../../src/images/types.ts';
import { hasTool, requireOrSkip } from '../../support/requirements.ts';
import { startFaultProxy } from '../registry/fault-proxy.ts';
import {
  canRunRegistry,
  certsD,
  makeImage,
  plainHttp,
  push,
  QUICK,
  scratch,
  startRegistry,
  type TestRegistry,
} from '../registry/registry-fixture.ts';
import { type Artifact, pushArtifact, pushReferrers, sha256 } from './artifacts.ts';
import { ISSUER, SIGNER, startSigstore, type TestSigstore } from './sigstore.ts';

const canSign = requireOrSkip('openssl', hasTool('openssl'));
const signal = new AbortController().signal;
const KEYS: Record<string, string[]> = {
  p256: ['-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-256'],
  p384: ['-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-384'],
  p521: ['-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-521'],
  rsa: ['-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:2048'],
  ed25519: ['-algorithm', 'ED25519'],
  other: ['-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-256'],
};

describe.runIf(canRunRegistry && canSign)('cosign', () => {
  let directory: string;
  let registry: TestRegistry;
  let registries: Registries;
  let sigstore: TestSigstore;
  let digest: Digest;
  let repositories = 0;

  beforeAll(async () => {
    directory = scratch('cimlet-cosign-');
    registry = await startRegistry(directory);
    sigstore = await startSigstore();
    for (const [name, flags] of Object.entries(KEYS)) {
      openssl(['genpkey', ...flags, '-out', `${name}.key`]);
      openssl(['pkey', '-in', `${name}.key`, '-pubout', '-out', `${name}.pub`]);
    }
    writeFileSync(join(directory, 'trusted_root.json'), sigstore.trustedRoot);
    const layout = await makeImage(directory);
    digest = JSON.parse(readFileSync(join(layout, 'index.json'), 'utf8')).manifests[0].digest;
    registries = openRegistries({
      env: { DOCKER_CONFIG: '/nonexistent' },
      backoff: QUICK,
      store: openBlobStore(join(directory, 'images')),
      mayWrite: false,
      configPath: certsD(directory, plainHttp(registry.host)),
    });
  });
  afterAll(async () => {
    await registries.close();
    await sigstore.close();
    await registry.stop();
    rmSync(directory, { recursive: true, force: true });
  });

  function openssl(args: string[]): void {
    execFileSync('openssl', args, { cwd: directory, stdio: ['ignore', 'ignore', 'pipe'] });
  }

  /** A payload as cosign writes it. */
  const payloadOf = (about: string) =>
    Buffer.from(
      JSON.stringify({
        critical: {
          identity: { 'docker-reference': 'example.com/app' },
          image: { 'docker-manifest-digest': about },
          type: 'cosign container image signature',
        },
        optional: null,
      }),
    );

  function signWith(name: string, payload: Buffer, hash = 'sha256'): Record<string, string> {
    writeFileSync(join(directory, 'payload'), payload);
    const how =
      name === 'ed25519'
        ? ['pkeyutl', '-sign', '-rawin', '-in', 'payload']
        : ['dgst', `-${hash}`, '-out', 'signature'];
    if (name === 'ed25519') openssl([...how, '-inkey', `${name}.key`, '-out', 'signature']);
    else openssl([...how, '-sign', `${name}.key`, 'payload']);
    const signature = readFileSync(join(directory, 'signature')).toString('base64');
    return { 'dev.cosignproject.cosign/signature': signature };
  }

  const simple = (payload: Buffer, annotations: Record<string, string>): Artifact => ({
    blobs: [{ mediaType: 'application/vnd.dev.cosign.simplesigning.v1+json', bytes: payload, annotations }],
  });

  const bundled = (bytes: string): Artifact => ({
    artifactType: 'application/vnd.dev.sigstore.bundle.v0.3+json',
    configType: 'application/vnd.oci.empty.v1+json',
    blobs: [{ mediaType: 'application/vnd.dev.sigstore.bundle.v0.3+json', bytes: Buffer.from(bytes) }],
  });

  const statementOf = (about: string, predicateType = 'https://sigstore.dev/cosign/sign/v1') => ({
    _type: 'https://in-toto.io/Statement/v1',
    subject: [{ digest: { sha256: about.slice(7) } }],
    predicateType,
    predicate: {},
  });

  async function newRepository(): Promise<string> {
    const repository = `signed/app-${++repositories}`;
    await push(join(directory, 'layout-app'), `${registry.host}/${repository}:v1`);
    return repository;
  }

  const base = () => `http://${registry.host}`;
  const tagOf = (about = digest) => `${about.replace(':', '-')}.sig`;

  function verify(
    repository: string,
    cosign: VerificationSpec['cosign'],
    image: Partial<ResolvedImage> = {},
    from: Registries = registries,
    host = registry.host,
  ): Promise<ResolvedImage> {
    const signatures = new RequiredSignatures({
      registries: from,
      store: openBlobStore(join(directory, 'images')),
      mayWrite: false,
      offline: false,
      publicRoot: new PublicRoot({ directory: join(directory, 'tuf'), mayWrite: false, offline: true }),
    });
    const resolved: ResolvedImage = {
      digest,
      reference: `${host}/${repository}:v1`,
      platform: { os: 'windows', architecture: 'amd64' },
      layers: [],
      bytes: 0,
      ...image,
    };
    return signatures.require(resolved, { spec: { cosign }, baseDirectory: directory }, signal);
  }

  const refused = (message: string | RegExp) => ({
    code: 'access-denied',
    message: expect.stringMatching(message),
  });

  it.each([
    ['p256', 'sha256'],
    // Cosign signs so whatever the curve; other tools take the curve's own size.
    ['p384', 'sha256'],
    ['p384', 'sha384'],
    ['p521', 'sha256'],
    ['p521', 'sha512'],
    ['rsa', 'sha256'],
    ['ed25519', 'sha512'],
  ])('believes a signature by a %s key over %s, and by no other', async (name, hash) => {
    const repository = await newRepository();
    const payload = payloadOf(digest);
    await pushArtifact(base(), repository, simple(payload, signWith(name, payload, hash)), tagOf());
    await verify(repository, { keys: [`${name}.pub`] });
    await verify(repository, { keys: ['other.pub', `${name}.pub`] });
    await expect(verify(repository, { keys: ['other.pub'] })).rejects.toMatchObject(
      refused(/signed\/app.*none of the keys made it/),
    );
  });

  it('wants a signature that is there, and about this image', async () => {
    const repository = await newRepository();
    await expect(verify(repository, { keys: ['p256.pub'] })).rejects.toMatchObject(
      refused('it has no cosign signature'),
    );
    const other = payloadOf(sha256('another image'));
    await pushArtifact(base(), repository, simple(other, signWith('p256', other)), tagOf());
    await expect(verify(repository, { keys: ['p256.pub'] })).rejects.toMatchObject(
      refused('its payload is about sha256:'),
    );
    // A payload that was changed after it was signed.
    const changed = payloadOf(digest);
    await pushArtifact(base(), repository, simple(changed, signWith('p256', other)), tagOf());
    await expect(verify(repository, { keys: ['p256.pub'] })).rejects.toMatchObject(
      refused('none of the keys made it'),
    );
    await pushArtifact(
      base(),
      repository,
      simple(Buffer.from('{"critical": 1}'), signWith('p256', other)),
      tagOf(),
    );
    await expect(verify(repository, { keys: ['p256.pub'] })).rejects.toMatchObject(
      refused('its payload: critical'),
    );
  });

  it('believes a signature of the index that leads to the image', async () => {
    const repository = await newRepository();
    const index = sha256('an index') as Digest;
    const payload = payloadOf(index);
    await pushArtifact(base(), repository, simple(payload, signWith('p256', payload)), tagOf(index));
    await expect(verify(repository, { keys: ['p256.pub'] })).rejects.toMatchObject(
      refused('no cosign signature'),
    );
    await verify(repository, { keys: ['p256.pub'] }, { indexes: [index] });
  });

  it('finds signatures by the tag that stands for referrers, and by all pages of the referrers API', async () => {
    const repository = await newRepository();
    const payload = payloadOf(digest);
    const artifact = {
      ...simple(payload, signWith('p256', payload)),
      artifactType: 'application/vnd.dev.cosign.artifact.sig.v1+json',
    };
    const pushed = await pushArtifact(base(), repository, artifact);
    await expect(verify(repository, { keys: ['p256.pub'] })).rejects.toMatchObject(
      refused('no cosign signature'),
    );
    const proxy = await startFaultProxy(registry.host);
    let lastPage = 2;
    proxy.fault = ({ asked, response }) => {
      if (!asked.path.includes('/referrers/')) return 'untouched';
      const mediaType = 'application/vnd.oci.image.index.v1+json';
      const page = Number(/page=(\d+)/.exec(asked.path)?.[1] ?? 0);
      const link = `<${asked.path.replace(/\?.*/, '')}?page=${page + 1}>; rel="next"`;
      const isLast = page === lastPage;
      response.writeHead(200, { 'content-type': mediaType, ...(isLast ? {} : { link }) });
      response.end(JSON.stringify({ schemaVersion: 2, mediaType, manifests: isLast ? [pushed] : [] }));
      return 'spoiled';
    };
    const proxied = openRegistries({
      env: { DOCKER_CONFIG: '/nonexistent' },
      backoff: QUICK,
      store: openBlobStore(join(directory, 'images')),
      mayWrite: false,
      configPath: certsD(directory, plainHttp(proxy.host)),
    });
    try {
      await verify(repository, { keys: ['p256.pub'] }, {}, proxied, proxy.host);
      lastPage = Number.POSITIVE_INFINITY;
      await expect(verify(repository, { keys: ['p256.pub'] }, {}, proxied, proxy.host)).rejects.toMatchObject(
        {
          code: 'unsupported-host',
          message: expect.stringContaining('more than 1000 pages'),
        },
      );
    } finally {
      await proxied.close();
      await proxy.close();
    }
    await pushReferrers(base(), repository, digest, [pushed]);
    await verify(repository, { keys: ['p256.pub'] });
  });

  it('believes identities whose certificate and log entry hold, and no others', async () => {
    const trusted = { trustedRoot: 'trusted_root.json', identities: [{ issuer: ISSUER, subject: SIGNER }] };
    const annotated = await newRepository();
    const payload = payloadOf(digest);
    await pushArtifact(base(), annotated, simple(payload, await sigstore.signPayload(payload)), tagOf());
    const attached = await newRepository();
    const pushed = await pushArtifact(
      base(),
      attached,
      bundled(await sigstore.signStatement(statementOf(digest))),
    );
    await pushReferrers(base(), attached, digest, [pushed]);
    for (const repository of [annotated, attached]) {
      await verify(repository, trusted);
      for (const identity of [
        { issuer: ISSUER, subject: 'other@example.com' },
        { issuer: 'https://elsewhere.example.com', subject: SIGNER },
        { issuer: ISSUER, subject: `x${SIGNER}` },
        { issuer: ISSUER, subject: '.*' },
      ])
        await expect(verify(repository, { ...trusted, identities: [identity] })).rejects.toMatchObject(
          refused(`it is signed by ${SIGNER}`),
        );
      await expect(verify(repository, { keys: ['p256.pub'] })).rejects.toMatchObject(
        refused('image .* is not signed'),
      );
    }
    // Somebody else's Sigstore.
    const other = await startSigstore();
    writeFileSync(join(directory, 'other_root.json'), other.trustedRoot);
    await other.close();
    for (const repository of [annotated, attached])
      await expect(verify(repository, { ...trusted, trustedRoot: 'other_root.json' })).rejects.toMatchObject(
        refused('image .* is not signed'),
      );
  });

  it('takes statements only for what they are about, and only signatures', async () => {
    const trusted = { trustedRoot: 'trusted_root.json', identities: [{ issuer: ISSUER, subject: SIGNER }] };
    for (const [statement, message] of [
      [
        statementOf(digest, 'https://slsa.dev/provenance/v1'),
        'is a https://slsa.dev/provenance/v1, no signature',
      ],
      [statementOf(sha256('another')), 'its statement is about sha256:'],
      ['{}', 'its statement'],
    ] as const) {
      const repository = await newRepository();
      const pushed = await pushArtifact(base(), repository, bundled(await sigstore.signStatement(statement)));
      await pushReferrers(base(), repository, digest, [pushed]);
      await expect(verify(repository, trusted)).rejects.toMatchObject(refused(message));
    }
    const repository = await newRepository();
    const broken = await pushArtifact(base(), repository, bundled('{"mediaType": "nonsense"}'));
    await pushReferrers(base(), repository, digest, [broken]);
    await expect(verify(repository, trusted)).rejects.toMatchObject(refused('image .* is not signed'));
  });

  it('says what is wrong with a key', async () => {
    const repository = await newRepository();
    await expect(verify(repository, { keys: ['absent.pub'] })).rejects.toMatchObject({
      code: 'not-found',
      message: expect.stringContaining('absent.pub'),
    });
    await expect(verify(repository, { keys: ['p256.key'] })).rejects.toMatchObject({
      code: 'invalid-manifest',
      message: expect.stringContaining('is a private one'),
    });
    await expect(verify(repository, { keys: ['trusted_root.json'] })).rejects.toMatchObject({
      code: 'invalid-manifest',
      message: expect.stringContaining('is no public key in PEM'),
    });
  });
});
