/** Pulling from Debian's docker-registry what skopeo and umoci pushed there. */

import { createHash } from 'node:crypto';
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { hasTool, requireOrSkip } from '../../support/requirements.ts';
import { makeTemporaryDirectory } from '../../support/stored-blob.ts';
import {
  canRunRegistry,
  certsD,
  everythingSaid,
  expectWhole,
  filesIn,
  makeImage,
  PASSWORD,
  plainHttp,
  pull,
  push,
  run,
  scratch,
  startRegistry,
  type TestRegistry,
  USER,
} from './registry-fixture.ts';

describe.runIf(canRunRegistry)('a real registry', () => {
  let directory: string;
  let layout: string;

  beforeAll(async () => {
    directory = scratch();
    layout = await makeImage(directory);
  });
  afterAll(() => rmSync(directory, { recursive: true, force: true }));

  describe('without signing in', () => {
    let registry: TestRegistry;
    let configPath: string;
    beforeAll(async () => {
      registry = await startRegistry(directory);
      configPath = certsD(directory, plainHttp(registry.host));
      await push(layout, `${registry.host}/windows/app:v1`);
    });
    afterAll(() => registry.stop());

    it('gives the bytes that were pushed, in a layout that skopeo reads', async () => {
      const root = makeTemporaryDirectory();
      const reference = `${registry.host}/windows/app:v1`;
      const image = await pull(reference, { root, configPath });
      expectWhole(root, image);
      const index = JSON.parse(readFileSync(join(layout, 'index.json'), 'utf8'));
      expect(image.digest).toBe(index.manifests[0].digest);
      for (const { blob } of image.layers) {
        const pushed = readFileSync(join(layout, 'blobs/sha256', blob.digest.slice(7)));
        expect(readFileSync(blob.file).equals(pushed)).toBe(true);
      }
      const { stdout } = await run('skopeo', ['inspect', '--raw', `oci:${root}/images:${reference}`]);
      expect(JSON.parse(stdout).layers).toHaveLength(3);
    });

    it('asks nothing again of what is here, and finds it with the registry gone', async () => {
      const root = makeTemporaryDirectory();
      const reference = `${registry.host}/windows/app:v1`;
      const first = await pull(reference, { root, configPath });
      const offline = {
        root,
        configPath: certsD(directory, { [registry.host]: 'server = "http://127.0.0.1:1"' }),
      };
      for (const policy of ['IfNotPresent', 'Never'] as const) {
        expect((await pull(reference, { ...offline, image: { policy } })).digest).toBe(first.digest);
      }
      await expect(pull(reference, { ...offline, image: { policy: 'Always' } })).rejects.toMatchObject({
        code: 'unavailable',
      });
    });

    it('writes nothing where nothing may be written', async () => {
      const root = makeTemporaryDirectory();
      await pull(`${registry.host}/windows/app:v1`, { root, configPath, mayWrite: false, resolveOnly: true });
      await expect(
        pull(`${registry.host}/windows/app:v1`, { root, configPath, image: { policy: 'Never' } }),
      ).rejects.toMatchObject({ code: 'not-found' });
    });

    it('follows a tag that moved only when asked to, and a pin always', async () => {
      const root = makeTemporaryDirectory();
      const reference = `${registry.host}/windows/moving:v1`;
      const other = await makeImage(directory, 'other');
      await push(layout, reference);
      const before = await pull(reference, { root, configPath });
      await push(other, reference);
      const kept = await pull(reference, { root, configPath });
      expect(kept.digest).toBe(before.digest);
      const index = JSON.parse(readFileSync(join(other, 'index.json'), 'utf8'));
      const { digest } = index.manifests[0] as { digest: string };
      const pinned = await pull(reference, { root: makeTemporaryDirectory(), configPath, image: { digest } });
      expect(pinned.digest).toBe(digest);
      const moved = await pull(reference, { root, configPath, image: { digest } });
      expect(moved.digest).toBe(digest);
      expect(
        (await pull(`${registry.host}/windows/moving@${before.digest}`, { root, configPath })).digest,
      ).toBe(before.digest);
      const always = await pull(reference, { root, configPath, image: { policy: 'Always' } });
      expect(always.digest).toBe(digest);
    });

    it('chooses the platform in an index, and fetches that image only', async () => {
      const root = makeTemporaryDirectory();
      const merged = join(directory, 'index');
      const linux = await makeImage(directory, 'elsewhere');
      mkdirSync(merged, { recursive: true });
      cpSync(linux, merged, { recursive: true });
      cpSync(layout, merged, { recursive: true });
      const entryOf = (from: string) =>
        JSON.parse(readFileSync(join(from, 'index.json'), 'utf8')).manifests[0];
      const { annotations: _ignored, ...windows } = entryOf(layout);
      const { annotations: _too, ...other } = entryOf(linux);
      const manifests = [{ ...other, platform: { os: 'linux', architecture: 'amd64' } }, windows];
      const bytes = JSON.stringify({
        schemaVersion: 2,
        mediaType: 'application/vnd.oci.image.index.v1+json',
        manifests,
      });
      const digest = createHash('sha256').update(bytes).digest('hex');
      writeFileSync(join(merged, 'blobs/sha256', digest), bytes);
      const top = {
        mediaType: 'application/vnd.oci.image.index.v1+json',
        digest: `sha256:${digest}`,
        size: bytes.length,
        annotations: { 'org.opencontainers.image.ref.name': 'v1' },
      };
      writeFileSync(join(merged, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests: [top] }));
      await push(merged, `${registry.host}/windows/both:v1`, ['--all']);

      const image = await pull(`${registry.host}/windows/both:v1`, { root, configPath });
      expectWhole(root, image);
      expect(image.digest).toBe(windows.digest);
      const pinnedByIndex = await pull(`${registry.host}/windows/both@sha256:${digest}`, {
        root,
        configPath,
      });
      expect(pinnedByIndex.digest).toBe(windows.digest);
      expect(filesIn(join(root, 'images/blobs/sha256'))).toHaveLength(6); // index, manifest, configuration, three layers
    });

    it('reads docker schema 2 images', async () => {
      const root = makeTemporaryDirectory();
      await push(layout, `${registry.host}/windows/docker:v1`, ['--format', 'v2s2']);
      expectWhole(root, await pull(`${registry.host}/windows/docker:v1`, { root, configPath }));
    });

    it.runIf(requireOrSkip('umoci', hasTool('umoci')))('reads what umoci made', async () => {
      const folder = join(directory, 'umoci');
      mkdirSync(folder);
      await run('umoci', ['init', '--layout', 'made'], { cwd: folder });
      await run('umoci', ['new', '--image', 'made:v1'], { cwd: folder });
      await run('umoci', ['config', '--image', 'made:v1', '--os', 'windows', '--architecture', 'amd64'], {
        cwd: folder,
      });
      mkdirSync(join(folder, 'tree/Files'), { recursive: true });
      writeFileSync(join(folder, 'tree/Files/a.txt'), 'from umoci');
      await run('umoci', ['insert', '--rootless', '--image', 'made:v1', 'tree', '/'], { cwd: folder });
      await push(join(folder, 'made'), `${registry.host}/windows/umoci:v1`);
      const root = makeTemporaryDirectory();
      const image = await pull(`${registry.host}/windows/umoci:v1`, { root, configPath });
      expectWhole(root, image);
      expect(image.layers).toHaveLength(1);
    });

    it('shares layers between images', async () => {
      const root = makeTemporaryDirectory();
      await push(layout, `${registry.host}/windows/twin:v1`);
      await pull(`${registry.host}/windows/app:v1`, { root, configPath });
      const missing: number[] = [];
      await pull(`${registry.host}/windows/twin:v1`, {
        root,
        configPath,
        // Each layer is told of once it is here, also when it was here before.
        progress: ({ blob }) => missing.push(blob!.total - blob!.done),
      });
      expect(missing).toEqual([0, 0, 0]);
    });

    it('keeps to limits of size and rate', async () => {
      const root = makeTemporaryDirectory();
      const reference = `${registry.host}/windows/app:v1`;
      await expect(pull(reference, { root, configPath, limits: { layerBytes: 1000 } })).rejects.toMatchObject(
        {
          code: 'failed-precondition',
          hint: expect.stringContaining('layerSize'),
        },
      );
      const slow = { bytesPerSecond: 20_000_000, connections: 1 };
      let last = 0;
      const progress = ({ done, total }: { done: number; total: number }) => {
        last = done / total;
      };
      expectWhole(root, await pull(reference, { root, configPath, limits: slow, progress }));
      expect(last).toBe(1);
    });

    it('says of what is not there what is not there', async () => {
      const root = makeTemporaryDirectory();
      for (const name of ['windows/app:v2', 'nobody/nothing:v1', `windows/app@sha256:${'0'.repeat(64)}`]) {
        await expect(pull(`${registry.host}/${name}`, { root, configPath })).rejects.toMatchObject({
          code: 'not-found',
          message: expect.stringContaining(registry.host),
        });
      }
    });

    it('is not reached in the clear unless that is configured', async () => {
      const root = makeTemporaryDirectory();
      const promise = pull(`${registry.host}/windows/app:v1`, { root });
      await expect(promise).rejects.toMatchObject({
        code: 'access-denied',
        hint: expect.stringContaining('http://'),
      });
    });

    it('is the last resort behind mirrors that are down or lack the image', async () => {
      const root = makeTemporaryDirectory();
      const empty = await startRegistry(directory);
      try {
        const mirrors = `[host."http://127.0.0.1:1"]\n[host."http://${empty.host}"]\n  capabilities = ["pull", "resolve"]\n`;
        const config = certsD(directory, {
          [registry.host]: `server = "http://${registry.host}"\n${mirrors}`,
        });
        expectWhole(root, await pull(`${registry.host}/windows/app:v1`, { root, configPath: config }));
        await push(layout, `${empty.host}/windows/app:v1`);
        const alone = certsD(directory, {
          _default: `server = "http://127.0.0.1:1"\n[host."http://${empty.host}"]\n`,
        });
        const elsewhere = makeTemporaryDirectory();
        expectWhole(
          elsewhere,
          await pull('registry.example/windows/app:v1', { root: elsewhere, configPath: alone }),
        );
      } finally {
        await empty.stop();
      }
    });
  });

  describe('with a password', () => {
    let registry: TestRegistry;
    let configPath: string;
    let reference: string;
    beforeAll(async () => {
      registry = await startRegistry(directory, { signIn: true });
      configPath = certsD(directory, plainHttp(registry.host));
      reference = `${registry.host}/windows/app:v1`;
      await push(layout, reference, ['--dest-creds', `${USER}:${PASSWORD}`]);
    });
    afterAll(() => registry.stop());

    it('from a file, a variable, docker config.json and a helper', async () => {
      const secret = join(directory, 'password');
      writeFileSync(secret, `${PASSWORD}\n`);
      const docker = join(directory, 'docker');
      mkdirSync(docker);
      const auth = Buffer.from(`${USER}:${PASSWORD}`).toString('base64');
      writeFileSync(join(docker, 'config.json'), JSON.stringify({ auths: { [registry.host]: { auth } } }));
      const bin = join(directory, 'bin');
      mkdirSync(bin);
      const helper = `#!/bin/sh\nread server\n[ "$server" = "${registry.host}" ] || { echo 'credentials not found in native keychain'; exit 1; }\necho '{"ServerURL":"'$server'","Username":"${USER}","Secret":"${PASSWORD}"}'\n`;
      writeFileSync(join(bin, 'docker-credential-test'), helper, { mode: 0o755 });
      const env = { DOCKER_CONFIG: '/nonexistent', PATH: `${bin}:${process.env.PATH}` };
      const rule = { registry: registry.host, username: USER };
      const ways = [
        { env, credentials: [{ ...rule, passwordFile: secret }] },
        {
          env: { ...env, PULL_PASSWORD: PASSWORD },
          credentials: [{ ...rule, passwordEnv: 'PULL_PASSWORD' }],
        },
        { env: { ...env, DOCKER_CONFIG: docker } },
        { env, credentials: [{ dockerConfig: join(docker, 'config.json') }] },
        { env, credentials: [{ helper: 'test' }] },
      ];
      for (const way of ways) {
        const root = makeTemporaryDirectory();
        expectWhole(root, await pull(reference, { root, configPath, ...way }));
      }
    });

    it('refuses nobody and a wrong password in one clear error that has no password in it', async () => {
      const root = makeTemporaryDirectory();
      const wrong = join(directory, 'wrong');
      writeFileSync(wrong, 'letmein-4242');
      const credentials = [{ registry: registry.host, username: USER, passwordFile: wrong }];
      for (const options of [{}, { credentials }]) {
        const error = await pull(reference, { root, configPath, ...options }).catch(
          (thrown: unknown) => thrown,
        );
        expect(error).toMatchObject({ code: 'access-denied', hint: expect.stringContaining('docker login') });
        const said = everythingSaid(error);
        expect(said).not.toContain('letmein-4242');
        expect(said).not.toContain(Buffer.from(`${USER}:letmein-4242`).toString('base64'));
      }
    });
  });

  describe('with TLS', () => {
    let registry: TestRegistry;
    let strict: TestRegistry;
    let ca: string;
    const file = (name: string) => join(directory, name);
    beforeAll(async () => {
      ca = file('ca.crt');
      const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2'];
      const issue = async (name: string, extension: string) => {
        const request = ['req', '-x509', ...key, '-subj', `/CN=${name}`, '-CA', ca, '-CAkey', file('ca.key')];
        const out = ['-keyout', file(`${name}.key`), '-out', file(`${name}.crt`)];
        await run('openssl', [
          ...request,
          '-addext',
          extension,
          '-addext',
          'basicConstraints=CA:FALSE',
          ...out,
        ]);
      };
      await run('openssl', [
        'req',
        '-x509',
        ...key,
        '-subj',
        '/CN=test CA',
        '-keyout',
        file('ca.key'),
        '-out',
        ca,
      ]);
      await issue('server', 'subjectAltName=IP:127.0.0.1');
      await issue('client', 'extendedKeyUsage=clientAuth');
      const tls = { certificate: file('server.crt'), key: file('server.key') };
      registry = await startRegistry(directory, { tls });
      strict = await startRegistry(directory, { tls: { ...tls, clientCa: ca } });
      await push(layout, `${registry.host}/windows/app:v1`);
    });
    afterAll(async () => {
      await registry.stop();
      await strict.stop();
    });

    it('trusts the CA that hosts.toml or a certificate folder names, and else nobody unknown', async () => {
      const reference = `${registry.host}/windows/app:v1`;
      const certificates = certsD(directory, {});
      mkdirSync(join(certificates, registry.host));
      cpSync(ca, join(certificates, registry.host, 'ca.crt'));
      for (const configPath of [
        certsD(directory, { [registry.host]: `ca = ${JSON.stringify(ca)}` }),
        certsD(directory, { [registry.host]: 'skip_verify = true' }),
        certificates,
      ]) {
        const root = makeTemporaryDirectory();
        expectWhole(root, await pull(reference, { root, configPath }));
      }
      await expect(pull(reference, { root: makeTemporaryDirectory() })).rejects.toMatchObject({
        code: 'access-denied',
        message: expect.stringContaining('not trusted'),
        hint: expect.stringContaining('hosts.toml'),
      });
    });

    it('shows a certificate of its own where one is asked for', async () => {
      const reference = `${strict.host}/windows/app:v1`;
      const trusting = `ca = ${JSON.stringify(ca)}\n`;
      const pair = `client = [[${JSON.stringify(file('client.crt'))}, ${JSON.stringify(file('client.key'))}]]\n`;
      const configPath = certsD(directory, { [strict.host]: trusting + pair });
      await expect(pull(reference, { root: makeTemporaryDirectory(), configPath })).rejects.toMatchObject({
        code: 'not-found',
      });
      const without = certsD(directory, { [strict.host]: trusting });
      await expect(
        pull(reference, { root: makeTemporaryDirectory(), configPath: without }),
      ).rejects.not.toMatchObject({ code: 'not-found' });
    });
  });
});
