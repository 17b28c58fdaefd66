/** Where signatures are found, whatever registries and mirrors know of referrers, and that they are kept with the image. */

import { generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import type { Digest } from '../../../src/hosts/host.ts';
import { type BlobStore, openBlobStore } from '../../../src/images/blob-store.ts';
import { findGarbage, removeGarbage } from '../../../src/images/garbage.ts';
import { openRegistries } from '../../../src/images/registry/registries.ts';
import { RequiredSignatures } from '../../../src/images/signatures/required-signatures.ts';
import { PublicRoot } from '../../../src/images/signatures/trusted-root.ts';
import { makeTemporaryDirectory } from '../../support/stored-blob.ts';
import { type Fault, type FaultProxy, startFaultProxy, status } from '../registry/fault-proxy.ts';
import {
  canRunRegistry,
  certsD,
  makeImage,
  pull,
  push,
  QUICK,
  scratch,
  startRegistry,
  type TestRegistry,
} from '../registry/registry-fixture.ts';
import { type PushedArtifact, pushArtifact, pushReferrers, sha256 } from './artifacts.ts';

const signal = new AbortController().signal;
const INDEX = 'application/vnd.oci.image.index.v1+json';
const COSIGN = 'application/vnd.dev.cosign.artifact.sig.v1+json';

/** Answers what is asked of referrers as `fault` says. */
const referrersAre =
  (fault: Fault): Fault =>
  (context) =>
    context.asked.path.includes('/referrers/') ? fault(context) : 'untouched';

const listing =
  (manifests: object[], type = INDEX): Fault =>
  (context) =>
    status(
      200,
      { 'content-type': type },
      JSON.stringify({ schemaVersion: 2, mediaType: INDEX, manifests }),
    )(context);

describe.runIf(canRunRegistry)('a signature', () => {
  let directory: string;
  let registry: TestRegistry;
  let upstream: FaultProxy;
  let mirror: FaultProxy;
  let digest: Digest;
  let key: KeyObject;
  let otherKey: KeyObject;
  let repositories = 0;
  let repository: string;
  let store: BlobStore;

  beforeAll(async () => {
    directory = scratch('cimlet-finding-');
    registry = await startRegistry(directory);
    upstream = await startFaultProxy(registry.host);
    mirror = await startFaultProxy(registry.host);
    const layout = await makeImage(directory);
    digest = JSON.parse(readFileSync(join(layout, 'index.json'), 'utf8')).manifests[0].digest;
    const pair = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    key = pair.privateKey;
    const stranger = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    otherKey = stranger.privateKey;
    writeFileSync(join(directory, 'own.pub'), pair.publicKey.export({ type: 'spki', format: 'pem' }));
    writeFileSync(join(directory, 'other.pub'), stranger.publicKey.export({ type: 'spki', format: 'pem' }));
  });
  beforeEach(async () => {
    repository = `signed/app-${++repositories}`;
    store = openBlobStore(join(makeTemporaryDirectory(), 'images'));
    await push(join(directory, 'layout-app'), `${registry.host}/${repository}:v1`);
  });
  afterEach(() => {
    for (const proxy of [upstream, mirror]) {
      proxy.fault = undefined;
      proxy.asked.length = 0;
    }
  });
  afterAll(async () => {
    await upstream.close();
    await mirror.close();
    await registry.stop();
    rmSync(directory, { recursive: true, force: true });
  });

  /** Signs the image, under a tag or only by the digest of the signature. */
  function signImage(tag?: string, by = key): Promise<PushedArtifact> {
    const bytes = Buffer.from(JSON.stringify({ critical: { image: { 'docker-manifest-digest': digest } } }));
    const annotations = {
      'dev.cosignproject.cosign/signature': sign('sha256', bytes, by).toString('base64'),
    };
    const mediaType = 'application/vnd.dev.cosign.simplesigning.v1+json';
    const artifact = { artifactType: COSIGN, blobs: [{ mediaType, bytes, annotations }] };
    return pushArtifact(`http://${registry.host}`, repository, artifact, tag);
  }

  const cosignTag = () => `${digest.replace(':', '-')}.sig`;
  const hosts = () => ({
    alone: `server = "http://${upstream.host}"\n`,
    mirrored: `server = "http://${upstream.host}"\n[host."http://${mirror.host}"]\n`,
  });

  interface Session {
    hosts?: 'alone' | 'mirrored';
    keyFile?: string;
    mayWrite?: boolean;
    offline?: boolean;
  }

  /** Wants the signature, in a session of its own. */
  async function verify({
    hosts: which = 'alone',
    keyFile = 'own.pub',
    mayWrite = false,
    offline = false,
  }: Session = {}) {
    const configPath = certsD(directory, { [upstream.host]: hosts()[which] });
    const env = { DOCKER_CONFIG: '/nonexistent' };
    const registries = openRegistries({ env, backoff: QUICK, store, mayWrite, configPath });
    const publicRoot = new PublicRoot({ directory: join(store.directory, 'tuf'), mayWrite, offline });
    const signatures = new RequiredSignatures({ registries, store, mayWrite, offline, publicRoot });
    const reference = `${upstream.host}/${repository}:v1`;
    const platform = { os: 'windows', architecture: 'amd64' };
    const image = { digest, reference, platform, layers: [], bytes: 0 };
    const wanted = { spec: { cosign: { keys: [keyFile] } }, baseDirectory: directory };
    try {
      return await signatures.require(image, wanted, signal);
    } finally {
      await registries.close();
    }
  }

  const refused = { code: 'access-denied', message: expect.stringContaining('no cosign signature') };

  it.each<[string, Fault]>([
    ...[400, 404, 405, 406, 501].map((code): [string, Fault] => [`HTTP ${code}`, status(code)]),
    ['a page', status(200, { 'content-type': 'text/html' }, '<html>Welcome</html>')],
    ['some JSON', listing([], 'application/json')],
  ])('is found by the tag that stands for referrers where asking for them gives %s', async (_what, fault) => {
    await pushReferrers(`http://${registry.host}`, repository, digest, [await signImage()]);
    upstream.fault = referrersAre(fault);
    await verify();
  });

  it('is found at the registry when its mirror knows of none, by any of the two ways', async () => {
    mirror.fault = referrersAre(listing([]));
    await expect(verify({ hosts: 'mirrored' })).rejects.toMatchObject(refused);
    const signature = await signImage();
    upstream.fault = referrersAre(listing([signature]));
    await verify({ hosts: 'mirrored' });
    upstream.fault = undefined;
    await pushReferrers(`http://${registry.host}`, repository, digest, [signature]);
    await verify({ hosts: 'mirrored' });
  });

  it('is found at the registry when its mirror has an older one under the same tag', async () => {
    const older = await signImage(cosignTag(), otherKey);
    mirror.fault = ({ asked, answer, response }) => {
      if (!asked.path.includes('.sig')) return 'untouched';
      response.writeHead(200, { ...answer.headers, 'docker-content-digest': older.digest }).end();
      return 'spoiled';
    };
    await signImage(cosignTag());
    await verify({ hosts: 'mirrored' });
    await verify({ hosts: 'mirrored', keyFile: 'other.pub' });
  });

  it('is looked for where a host fails, and nobody says that there is none', async () => {
    await signImage(cosignTag());
    mirror.fault = status(503);
    await verify({ hosts: 'mirrored' });
    mirror.fault = ({ asked, ...rest }) =>
      asked.path.includes('/referrers/') ? listing([])({ asked, ...rest }) : status(404)({ asked, ...rest });
    upstream.fault = status(503);
    await expect(verify({ hosts: 'mirrored' })).rejects.toMatchObject({
      code: 'unavailable',
      message: expect.stringMatching(/no cosign signature.*HTTP 503/),
    });
  });

  it('is found among whatever else names the image', async () => {
    const others = Array.from({ length: 120 }, (_, index) => ({
      mediaType: 'application/vnd.oci.image.manifest.v1+json',
      digest: `sha256:${String(index).padStart(64, '0')}`,
      size: 100,
      ...(index % 2 === 0
        ? { artifactType: 'application/spdx+json' }
        : {
            artifactType: 'application/vnd.dev.sigstore.bundle.v0.3+json',
            annotations: { 'dev.sigstore.bundle.predicateType': 'https://slsa.dev/provenance/v1' },
          }),
    }));
    const signature = await signImage();
    upstream.fault = referrersAre(listing([...others, signature]));
    await verify();
    expect(upstream.asked.filter(({ path }) => path.includes('sha256:000'))).toEqual([]);
    // Lists that don't say what is in them.
    const untyped = others.map(({ mediaType, digest: other, size }) => ({ mediaType, digest: other, size }));
    upstream.fault = referrersAre(listing(untyped));
    await expect(verify()).rejects.toMatchObject(refused);
    await signImage(cosignTag());
    await verify();
  });

  it('is kept with its image, and believed without any registry', async () => {
    await signImage(cosignTag());
    await expect(verify({ offline: true })).rejects.toMatchObject({ code: 'unavailable' });
    await verify();
    await expect(verify({ offline: true }), 'what only plans keeps nothing').rejects.toMatchObject({
      code: 'unavailable',
    });
    await verify({ mayWrite: true });
    upstream.fault = status(503);
    upstream.asked.length = 0;
    await verify({ mayWrite: true });
    await verify({ offline: true });
    await expect(verify({ offline: true, keyFile: 'other.pub' })).rejects.toMatchObject({
      code: 'access-denied',
    });
    expect(upstream.asked).toEqual([]);
    await expect(verify({ keyFile: 'other.pub' }), 'there may be another one').rejects.toMatchObject({
      code: 'unavailable',
    });
  });

  it('is fetched again when what was kept is damaged', async () => {
    const { digest: kept } = await signImage(cosignTag());
    await verify({ mayWrite: true });
    writeFileSync(store.pathOf(kept as Digest), 'nonsense');
    await expect(verify({ offline: true })).rejects.toMatchObject({ code: 'unavailable' });
    await verify({ mayWrite: true });
    await verify({ offline: true });
  });

  it('is fetched again, and hinders nothing, when the list of what was kept is damaged', async () => {
    await signImage(cosignTag());
    await verify({ mayWrite: true });
    const lists = join(store.directory, 'signatures');
    for (const name of readdirSync(lists)) writeFileSync(join(lists, name), '{"schemaVersion":2,"mani');
    expect(await store.signaturesOf(digest)).toEqual([]);
    await expect(verify({ offline: true })).rejects.toMatchObject({ code: 'unavailable' });
    await verify({ mayWrite: true });
    await verify({ offline: true });
  });

  it('is found at the registry when what its mirror lists instead is nonsense', async () => {
    const signature = await signImage();
    await pushReferrers(`http://${registry.host}`, repository, digest, [signature]);
    const nonsense = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: INDEX, manifests: 'none' }));
    const tag = digest.replace(':', '-');
    upstream.fault = referrersAre(status(404));
    mirror.fault = (context) => {
      const [path = ''] = context.asked.path.split('?');
      if (path.includes('/referrers/')) return status(404)(context);
      const isList = path.endsWith(`/${tag}`) || path.includes(sha256(nonsense));
      if (!isList) return 'untouched';
      const headers = { 'content-type': INDEX, 'docker-content-digest': sha256(nonsense) };
      context.response.writeHead(200, { ...headers, 'content-length': nonsense.length });
      context.response.end(nonsense);
      return 'spoiled';
    };
    await verify({ hosts: 'mirrored' });
    await expect(verify({ hosts: 'mirrored', keyFile: 'other.pub' })).rejects.toMatchObject({
      code: 'unavailable',
      message: expect.stringMatching(/no(ne of the keys| cosign signature).*referrers in sha256/),
    });
  });

  it('stays as long as its image does, and no longer', async () => {
    await signImage(cosignTag());
    const root = makeTemporaryDirectory();
    store = openBlobStore(join(root, 'images'));
    const configPath = certsD(directory, { [upstream.host]: hosts().alone });
    await verify({ mayWrite: true });
    await pull(`${upstream.host}/${repository}:v1`, { root, configPath });
    const [image] = await store.listImages();
    const collect = async (manifests: string[]) => {
      const inUse = {
        references: new Set<string>(),
        manifests: new Set(manifests),
        layers: new Set<string>(),
      };
      const policy = { minAgeMs: 0, highPercent: 100, lowPercent: 100 };
      const now = Date.now() + 1000;
      const garbage = await findGarbage(store, { inUse, policy, disk: undefined, now });
      await removeGarbage(store, garbage, { now, signal });
    };
    await collect([digest]);
    await verify({ offline: true });
    await store.forgetImages([image!.reference]);
    await collect([]);
    expect(await store.listBlobs()).toEqual([]);
    onTestFinished(() => rmSync(root, { recursive: true, force: true }));
  });
});
