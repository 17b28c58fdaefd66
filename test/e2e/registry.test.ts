/** Images from a registry, by the real program and Debian's docker-registry. */

import { spawn } from 'node:child_process';
import { generateKeyPairSync, sign } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { watch } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { describe, expect, it, onTestFinished } from 'vitest';
import { cutAfter, stall, startFaultProxy, status, times } from '../images/registry/fault-proxy.ts';
import {
  canRunRegistry,
  certsD,
  expectNoPartialBlobs,
  noise,
  PASSWORD,
  plainHttp,
  run,
  startRegistry,
  USER,
} from '../images/registry/registry-fixture.ts';
import { pushArtifact } from '../images/signatures/artifacts.ts';
import { layerItems } from '../support/host-layers.ts';
import { makeTemporaryDirectory } from '../support/stored-blob.ts';
import { BASE, flip, PATCH, tarOf, World } from './world.ts';

const AUTHORIZATION = Buffer.from(`${USER}:${PASSWORD}`).toString('base64');
const MAIN = resolve(import.meta.dirname, '../../src/main.ts');

async function startWorld(layers = [BASE, PATCH]) {
  const world = new World();
  const registry = await startRegistry(world.directory, { signIn: true });
  onTestFinished(() => registry.stop());
  const proxy = await startFaultProxy(registry.host);
  onTestFinished(() => proxy.close());
  await world.image('app', layers);
  const target = `docker://${registry.host}/windows/app:v1`;
  const creds = ['--dest-tls-verify=false', '--dest-creds', `${USER}:${PASSWORD}`];
  await run('skopeo', ['copy', '--quiet', ...creds, `oci:${world.path('images/app')}`, target]);
  mkdirSync(world.path('docker'));
  world.write('docker/config.json', JSON.stringify({ auths: { [proxy.host]: { auth: AUTHORIZATION } } }));
  const env = {
    CIMLET_REGISTRY_CONFIG: certsD(world.directory, plainHttp(proxy.host)),
    DOCKER_CONFIG: world.path('docker'),
    CIMLET_DEBUG: '1',
  };
  world.app({ view: 'Extracted' });
  const text = readFileSync(world.manifest, 'utf8');
  const source = `registry: "${proxy.host}/windows/app:v1"`;
  writeFileSync(world.manifest, text.replace('ociLayout: ../images/app', source));
  rmSync(world.path('images'), { recursive: true });
  const cimlet = (args: string[], code = 0) =>
    world.run([...args, '-f', world.manifest], code, { env }).then((result) => {
      expect(result.stdout + result.stderr).not.toContain(PASSWORD);
      expect(result.stdout + result.stderr).not.toContain(AUTHORIZATION);
      return result;
    });
  return { world, registry, proxy, env, cimlet };
}

describe.runIf(canRunRegistry)('images from a registry', () => {
  it('are planned without writing anything, applied, and then there without the registry', async () => {
    const { world, registry, proxy, cimlet } = await startWorld();
    const planned = await cimlet(['plan', '--detailed-exitcode'], 2);
    expect(planned.stdout).toContain('Image/app');
    expect(proxy.asked.filter(({ kind, method }) => kind === 'blob' && method === 'GET')).toHaveLength(2); // configuration, asked twice: 401
    expect(existsSync(join(world.root, 'images'))).toBe(false);

    await cimlet(['apply', '--yes']);
    expect(readFileSync(join(world.mountPoint, 'dir/c.txt'), 'utf8')).toBe('gamma');
    expectNoPartialBlobs(world.root);
    await registry.stop();
    await cimlet(['plan', '--detailed-exitcode']);
    await cimlet(['plan', '--offline']);
    expectNoSecretBelow(world.root);
  });

  it('are unpacked while later layers are still on their way', async () => {
    const last = layerItems({ last: noise(50_000, 'last').toString('latin1') });
    const { world, proxy, env } = await startWorld([BASE, PATCH, last]);
    const firstIsCommitted = Promise.withResolvers<void>();
    proxy.fault = async ({ asked, answer }) => {
      // No other blob of the image is as large.
      if (asked.kind === 'blob' && answer.body.length > 50_000) await firstIsCommitted.promise;
      return 'untouched' as const;
    };
    const args = [MAIN, 'apply', '--yes', '-f', world.manifest, '--root', world.root];
    const child = spawn(process.execPath, args, {
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    const closed = once(child, 'close');
    const lines: string[] = [];
    for await (const line of createInterface({ input: child.stdout })) {
      lines.push(line);
      if (/^Snapshot\/\w+ done/.test(line)) firstIsCommitted.resolve();
    }
    expect(await closed).toEqual([0, null]);
    const at = (pattern: RegExp) => lines.findIndex((line) => pattern.test(line));
    expect(at(/^Snapshot\/\w+ done/)).toBeLessThan(at(/^Image\/app done/));
    expect(statSync(join(world.mountPoint, 'last')).size).toBeGreaterThan(50_000);
    expect((await world.run(['events', 'Image/app'])).stdout).toMatch(/Fetched +\S+ +[^\n]*sha256:/);
  });

  it('are fetched again when a layer has to be built and its blob is gone or damaged', async () => {
    const { world, cimlet } = await startWorld();
    await cimlet(['apply', '--yes']);
    const blobs = world.path('root/images/blobs/sha256');
    const largest = readdirSync(blobs)
      .map((name) => join(blobs, name))
      .sort((a, b) => statSync(b).size - statSync(a).size);
    rmSync(world.layerFile(1, /^region/));
    for (const file of largest) rmSync(file);
    await cimlet(['apply', '--yes']);
    await cimlet(['plan', '--detailed-exitcode']);

    rmSync(world.layerFile(1, /^region/));
    for (const file of readdirSync(blobs).map((name) => join(blobs, name))) flip(file);
    const failed = await cimlet(['apply', '--yes'], 1);
    expect(failed.stderr).toMatch(/corrupt|digest|damaged/i);
    await cimlet(['apply', '--yes']);
    await cimlet(['plan', '--detailed-exitcode']);
  });

  it('that are not to be fetched, or can not be, block with the reason', async () => {
    const { world, proxy, cimlet } = await startWorld();
    const manifest = readFileSync(world.manifest, 'utf8');
    const { stdout } = await cimlet(['plan', '--offline'], 1);
    expect(stdout).toContain('no registry is to be asked');
    writeFileSync(world.manifest, manifest.replace('windows/app:v1', 'windows/app:v2'));
    const missing = await cimlet(['plan'], 1);
    expect(missing.stdout).toContain(`${proxy.host}/windows/app:v2`);
    expect(missing.stdout).toMatch(/HTTP 404\s.*hint: check repository and tag/s);
    writeFileSync(world.manifest, manifest);
    const plain = await cimlet(['plan', '--registry-config', makeTemporaryDirectory()], 1);
    expect(plain.stdout.replace(/\n +/g, ' ')).toMatch(/speaks no TLS .*hint: .*server = "http:\/\/\.\.\."/);
    writeFileSync(world.manifest, manifest.replace('windows/app:v1', 'Windows/app:v1'));
    expect((await cimlet(['plan'], 1)).stdout).toContain('capital letters');
    world.write('docker/config.json', '{"auths": {}}');
    writeFileSync(world.manifest, manifest);
    expect((await cimlet(['plan'], 1)).stdout).toContain('HTTP 401');
    world.write('docker/config.json', `{"auths": ${PASSWORD}`);
    expect((await cimlet(['plan'], 1)).stdout).toContain('not a JSON object');
  });

  it('follow the newest tag that a policy allows, saying which', async () => {
    const { world, registry, proxy, cimlet } = await startWorld();
    const manifest = readFileSync(world.manifest, 'utf8');
    const policy = `registry: "${proxy.host}/windows/app"}, policy: {semver: 1.x}`;
    writeFileSync(world.manifest, manifest.replace(/registry: "[^"]*"\}/, policy));
    const creds = `--src-tls-verify=false --dest-tls-verify=false --src-creds ${USER}:${PASSWORD} --dest-creds ${USER}:${PASSWORD}`;
    const tag = async (from: string, to: string) =>
      run('skopeo', [
        'copy',
        ...creds.split(' '),
        `docker://${registry.host}/windows/app:${from}`,
        `docker://${registry.host}/windows/app:${to}`,
      ]);
    expect((await cimlet(['plan'], 1)).stdout).toContain('"1.x": it has 1 tag');
    await tag('v1', 'v1.2.0');
    await cimlet(['apply', '--yes']);
    expect(readFileSync(join(world.mountPoint, 'dir/c.txt'), 'utf8')).toBe('gamma');

    await world.image('app', [BASE]);
    const target = `docker://${registry.host}/windows/app:1.10.0`;
    const push = ['--dest-tls-verify=false', '--dest-creds', `${USER}:${PASSWORD}`];
    await run('skopeo', ['copy', '--quiet', ...push, `oci:${world.path('images/app')}`, target]);
    await tag('v1', '2.0.0');
    const planned = await cimlet(['plan', '--detailed-exitcode'], 2);
    expect(planned.stdout).toContain('windows/app:1.10.0');
    expect(planned.stdout).toContain('windows/app:v1.2.0');
    await cimlet(['apply', '--yes']);
    expect(existsSync(join(world.mountPoint, 'dir/c.txt'))).toBe(false);
    await cimlet(['plan', '--detailed-exitcode']);
    const described = await world.run(['describe', 'image/app']);
    expect(described.stdout).toContain(`${proxy.host}/windows/app:1.10.0`);
  });

  it('stay while something was made of them; gc removes what is left, and says so first', async () => {
    const { world, proxy, cimlet } = await startWorld();
    const collect = async (...flags: string[]) =>
      (await world.run(['gc', '--min-age', '0s', ...flags])).stdout;
    expect(await collect()).toBe('Nothing to remove.\n');
    await cimlet(['apply', '--yes']);
    const tar = world.path('by-hand.tar');
    writeFileSync(tar, tarOf(layerItems({ 'x.txt': 'by hand' })));
    await world.run(['layer', 'import', tar]);
    expect(await collect()).toBe('Nothing to remove.\n');

    await world.run(['delete', 'mount/app', 'chain/app', 'image/app', '--yes']);
    const reference = `${proxy.host}/windows/app:v1`;
    const dry = await collect('--dry-run');
    expect(dry).toContain(`Image ${reference}, `);
    expect(dry).toMatch(/^Would remove 5 things, /m);
    expect(await collect('--dry-run')).toBe(dry);
    expect(await collect('--keep-storage', '1Gi')).toBe('Nothing to remove.\n');
    expect(await collect()).toBe(dry.replace('Would remove', 'Removed'));
    expect(readdirSync(world.path('root/images/blobs/sha256'))).toEqual([]);
    expect(await collect()).toBe('Nothing to remove.\n');
    expect((await world.run(['get', 'snapshots', '-o', 'json'])).stdout).toContain('"kind": "Snapshot"');
    await cimlet(['apply', '--yes']);
    expect(readFileSync(join(world.mountPoint, 'dir/c.txt'), 'utf8')).toBe('gamma');
  });

  it('are not unpacked until somebody trusted has signed them', async () => {
    const { world, registry, cimlet } = await startWorld();
    const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'prime256v1' });
    world.write('manifests/cosign.pub', publicKey.export({ type: 'spki', format: 'pem' }).toString());
    const manifest = readFileSync(world.manifest, 'utf8');
    const verify = 'windows/app:v1"}, verify: {cosign: {keys: [./cosign.pub]}}';
    writeFileSync(world.manifest, manifest.replace('windows/app:v1"}', verify));
    const refused = await cimlet(['apply', '--yes'], 1);
    expect(refused.stdout.replace(/\s+/g, ' ')).toContain('is not signed by anybody spec.verify trusts');
    expect(await world.observe()).toMatchObject({ layers: [], mounts: [] });

    const [digest = ''] =
      /sha256:[0-9a-f]{64}/.exec(
        (
          await run('skopeo', [
            'inspect',
            '--tls-verify=false',
            '--creds',
            `${USER}:${PASSWORD}`,
            '--override-os',
            'windows',
            `docker://${registry.host}/windows/app:v1`,
          ])
        ).stdout,
      ) ?? [];
    const payload = Buffer.from(
      JSON.stringify({ critical: { image: { 'docker-manifest-digest': digest } } }),
    );
    const signature = sign('sha256', payload, privateKey).toString('base64');
    const authorization = `Basic ${AUTHORIZATION}`;
    const artifact = {
      blobs: [
        {
          mediaType: 'application/vnd.dev.cosign.simplesigning.v1+json',
          bytes: payload,
          annotations: { 'dev.cosignproject.cosign/signature': signature },
        },
      ],
    };
    const tag = `${digest.replace(':', '-')}.sig`;
    await pushArtifact(`http://${registry.host}`, 'windows/app', artifact, tag, { authorization });
    await cimlet(['apply', '--yes']);
    expect(readFileSync(join(world.mountPoint, 'dir/c.txt'), 'utf8')).toBe('gamma');
    await cimlet(['plan', '--detailed-exitcode']);
    await registry.stop();
    await cimlet(['plan', '--detailed-exitcode']);
    await cimlet(['plan', '--offline']);
    const other = generateKeyPairSync('ec', { namedCurve: 'prime256v1' }).publicKey;
    world.write('manifests/cosign.pub', other.export({ type: 'spki', format: 'pem' }).toString());
    expect((await cimlet(['plan', '--offline'], 1)).stdout.replace(/\s+/g, ' ')).toContain(
      'is not signed by anybody spec.verify trusts',
    );
  });

  it('keep the layers that came while another one is not to be had', async () => {
    const big = layerItems({ big: noise(3 << 20, 'big').toString('latin1') });
    const { world, proxy, cimlet } = await startWorld([BASE, big]);
    const cut = times(1, ({ kind }) => kind === 'blob', cutAfter(2 << 20));
    proxy.fault = (context) => {
      if (context.asked.kind !== 'blob' || context.answer.body.length <= 1 << 20) return 'untouched';
      return context.asked.range === undefined ? cut(context) : status(403)(context);
    };
    await cimlet(['apply', '--yes'], 1);
    proxy.fault = undefined;
    const kept = () =>
      ['blobs/sha256', 'ingest'].map((name) => readdirSync(join(world.root, 'images', name)));
    const [, beginnings] = kept();
    expect(beginnings).toHaveLength(1);
    await world.run(['gc', '--min-age', '0s']);
    // Documents are asked for again; of layers nothing is.
    expect(kept()).toEqual([[expect.any(String)], beginnings]);
    proxy.asked.length = 0;
    await cimlet(['apply', '--yes']);
    const layers = proxy.asked.filter(({ kind, range }) => kind === 'blob' && range !== undefined);
    expect(layers.length).toBeGreaterThan(0);
    expect(statSync(join(world.mountPoint, 'big')).size).toBeGreaterThan(3 << 20);
  });

  it("are in nobody else's way while they are fetched: gc waits its turn", async () => {
    const { world, proxy, cimlet } = await startWorld();
    const asked = Promise.withResolvers<void>();
    const released = Promise.withResolvers<void>();
    proxy.fault = async ({ asked: { kind, method } }) => {
      if (kind === 'blob' && method === 'GET') {
        asked.resolve();
        await released.promise;
      }
      return 'untouched' as const;
    };
    const applying = cimlet(['apply', '--yes']);
    await asked.promise;
    const refused = await world.run(['gc', '--min-age', '0s'], 1);
    expect(refused.stderr).toMatch(/in use by cimlet apply/);
    await world.run(['gc', '--min-age', '0s', '--dry-run']);
    released.resolve();
    await applying;
    expect(readFileSync(join(world.mountPoint, 'dir/c.txt'), 'utf8')).toBe('gamma');
    const before = readdirSync(world.path('root/images/blobs/sha256'));
    await world.run(['gc', '--min-age', '0s']);
    expect(readdirSync(world.path('root/images/blobs/sha256'))).toEqual(before);
  });

  it('are taken up where a killed run left them', async () => {
    const big = layerItems({ big: noise(6 << 20, 'big').toString('latin1') });
    const { world, proxy, env, cimlet } = await startWorld([big]);
    proxy.fault = (context) =>
      context.asked.kind === 'blob' && context.answer.body.length > 4 << 20
        ? stall(4 << 20)(context)
        : 'untouched';
    const ingest = world.path('root/images/ingest');
    mkdirSync(ingest, { recursive: true });
    const changes = watch(ingest);
    const child = spawn(
      process.execPath,
      [MAIN, 'apply', '--yes', '-f', world.manifest, '--root', world.root],
      {
        env: { ...process.env, ...env },
        stdio: 'ignore',
      },
    );
    for await (const _change of changes) {
      if (readdirSync(ingest).some((name) => statSync(join(ingest, name)).size > 2 << 20)) break;
    }
    child.kill('SIGKILL');
    await once(child, 'close');
    expectNoPartialBlobs(world.root);
    proxy.fault = undefined;
    proxy.asked.length = 0;
    await cimlet(['apply', '--yes']);
    const [range] = proxy.asked.flatMap((asked) => asked.range ?? []);
    expect(Number(/\d+/.exec(range ?? '')?.[0])).toBeGreaterThan(1 << 20);
  });
});

/** Not in the state database, nor in any other file. */
function expectNoSecretBelow(directory: string): void {
  for (const name of readdirSync(directory, { recursive: true, encoding: 'utf8' })) {
    const file = join(directory, name);
    if (!statSync(file).isFile()) continue;
    const bytes = readFileSync(file);
    expect([bytes.includes(PASSWORD), bytes.includes(AUTHORIZATION)]).toEqual([false, false]);
  }
}
