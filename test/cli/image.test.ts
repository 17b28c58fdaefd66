/** `cimlet image`: what it writes, others read; what others write, it reads. */

import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  canRunRegistry,
  certsD,
  expectNoPartialBlobs,
  makeImage,
  PASSWORD,
  plainHttp,
  push,
  run,
  scratch,
  startRegistry,
  type TestRegistry,
  USER,
} from '../images/registry/registry-fixture.ts';
import { expectProgram, runProgram } from '../support/program.ts';
import { hasTool, requireOrSkip } from '../support/requirements.ts';

const hasSkopeo = requireOrSkip('skopeo', hasTool('skopeo'));
const WINDOWS = ['--override-os', 'windows', '--override-arch', 'amd64'];

describe.runIf(canRunRegistry && hasSkopeo)('images of a root', () => {
  let directory: string;
  let registry: TestRegistry;
  let env: Record<string, string>;
  let digest: string;
  let source: string;
  let roots = 0;

  beforeAll(async () => {
    directory = scratch('cimlet-image-');
    registry = await startRegistry(directory, { signIn: true });
    const layout = await makeImage(directory);
    digest = JSON.parse(readFileSync(join(layout, 'index.json'), 'utf8')).manifests[0].digest;
    await push(layout, `${registry.host}/windows/app:v1`, ['--dest-creds', `${USER}:${PASSWORD}`]);
    mkdirSync(join(directory, 'docker'));
    const auth = Buffer.from(`${USER}:${PASSWORD}`).toString('base64');
    writeFileSync(
      join(directory, 'docker/config.json'),
      JSON.stringify({ auths: { [registry.host]: { auth } } }),
    );
    env = {
      CIMLET_REGISTRY_CONFIG: certsD(directory, plainHttp(registry.host)),
      DOCKER_CONFIG: join(directory, 'docker'),
    };
    source = `${registry.host}/windows/app:v1`;
  });
  afterAll(async () => {
    await registry.stop();
    rmSync(directory, { recursive: true, force: true });
  });

  function newRoot() {
    const root = join(directory, `root-${++roots}`);
    const cimlet = (args: string[], code = 0) =>
      expectProgram(['--root', root, ...args], code, { cwd: directory, env });
    return { root, cimlet };
  }

  const inspect = async (place: string, flags: string[] = []) =>
    JSON.parse((await run('skopeo', ['inspect', '--no-tags', ...flags, place])).stdout) as {
      Digest: string;
      Layers: string[];
    };

  it('come from a registry, go to an archive, and from there into another root, unchanged', async () => {
    const one = newRoot();
    const copied = await one.cimlet(['image', 'copy', `docker://${source}`, source]);
    expect(copied.stdout).toMatch(/^Copied [^\n]*\n$/);
    // Node 22 says first that SQLite is experimental.
    expect(copied.stderr).toMatch(/^(downloading \d{1,2}%\n)*downloading 100%\n(exporting 100%\n)?$(?!\n)/m);
    const listed = JSON.parse((await one.cimlet(['image', 'ls', '-o', 'json'])).stdout);
    expect(listed.items).toMatchObject([
      { reference: source, digest, platforms: [{ isWhole: true, platform: { os: 'windows' } }] },
    ]);
    const archive = join(directory, 'app.tar');
    await one.cimlet(['image', 'save', source, '-o', archive]);
    const first = readFileSync(archive);
    await one.cimlet(['image', 'save', source, '-o', archive]);
    expect(readFileSync(archive).equals(first)).toBe(true);
    expect(readdirSync(directory).filter((name) => name.includes('tmp-'))).toEqual([]);
    // One tar, read as either kind.
    expect((await inspect(`oci-archive:${archive}:${source}`, WINDOWS)).Digest).toBe(digest);
    expect((await inspect(`docker-archive:${archive}`, WINDOWS)).Layers).toHaveLength(3);

    const two = newRoot();
    const { stdout } = await two.cimlet(['image', 'load', '-i', 'app.tar']);
    expect(stdout).toContain(`Loaded ${source}`);
    const table = (await two.cimlet(['image', 'ls'])).stdout;
    expect(table).toMatch(/^IMAGE +DIGEST +PLATFORM +SIZE +ASKED/);
    expect(table).toContain('windows/amd64 10.0.26100.1742');
    const inspected = JSON.parse((await two.cimlet(['image', 'inspect', source, '-o', 'json'])).stdout);
    expect(inspected).toMatchObject({ digest, layers: [{}, {}, {}] });
    expectNoPartialBlobs(two.root);

    await two.cimlet(['image', 'rm', source]);
    expect((await two.cimlet(['image', 'ls'])).stderr).toContain('No images in');
    expect((await two.cimlet(['image', 'rm', source], 1)).stderr).toContain('image ls lists them');
  });

  it('go to a registry, which then has what others push and pull', async () => {
    const { cimlet } = newRoot();
    await cimlet(['image', 'copy', `docker://${source}`, `oci:here:v1`]);
    expect((await inspect(`oci:${join(directory, 'here')}:v1`, WINDOWS)).Digest).toBe(digest);
    await cimlet(['image', 'copy', 'oci:here:v1', `docker://${registry.host}/copies/app:v2`]);
    // Again: everything is there.
    await cimlet(['image', 'copy', 'oci:here:v1', `docker://${registry.host}/copies/app:v3`]);
    const creds = ['--tls-verify=false', '--creds', `${USER}:${PASSWORD}`, ...WINDOWS];
    expect((await inspect(`docker://${registry.host}/copies/app:v2`, creds)).Digest).toBe(digest);
    const target = `dir:${join(directory, 'pulled')}`;
    await run('skopeo', [
      'copy',
      '--quiet',
      '--src-tls-verify=false',
      '--src-creds',
      `${USER}:${PASSWORD}`,
      `docker://${registry.host}/copies/app:v3`,
      target,
    ]);
  });

  it('with several platforms are copied for one, or whole', async () => {
    const { cimlet } = newRoot();
    const linux = await makeImage(directory, 'tux');
    const entry = (layout: string) =>
      JSON.parse(readFileSync(join(layout, 'index.json'), 'utf8')).manifests[0];
    const index = Buffer.from(
      JSON.stringify({
        schemaVersion: 2,
        mediaType: 'application/vnd.oci.image.index.v1+json',
        manifests: [
          { ...entry(join(directory, 'layout-app')), annotations: undefined },
          { ...entry(linux), annotations: undefined, platform: { os: 'linux', architecture: 'amd64' } },
        ],
      }),
    );
    const both = join(directory, 'both');
    await run('cp', ['-r', join(directory, 'layout-app'), both]);
    await run('cp', ['-r', `${linux}/blobs`, both]);
    const hex = createHash('sha256').update(index).digest('hex');
    writeFileSync(join(both, 'blobs/sha256', hex), index);
    const top = {
      mediaType: 'application/vnd.oci.image.index.v1+json',
      digest: `sha256:${hex}`,
      size: index.length,
    };
    const named = { ...top, annotations: { 'org.opencontainers.image.ref.name': 'v1' } };
    writeFileSync(join(both, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests: [named] }));

    await cimlet(['image', 'copy', 'oci:both:v1', 'oci:windows-only:v1']);
    expect((await inspect(`oci:${join(directory, 'windows-only')}:v1`, WINDOWS)).Digest).toBe(digest);
    await cimlet(['image', 'copy', '--all', 'oci:both:v1', `docker://${registry.host}/both/app:v1`]);
    await cimlet([
      'image',
      'copy',
      '--all',
      `docker://${registry.host}/both/app:v1`,
      'oci-archive:both.tar:v1',
    ]);
    const raw = await run('skopeo', ['inspect', '--raw', `oci-archive:${join(directory, 'both.tar')}:v1`]);
    expect(createHash('sha256').update(raw.stdout).digest('hex')).toBe(hex);
    const refused = await runProgram(
      ['image', 'copy', 'oci:both:v1', 'oci:never:v1', '--platform', 'linux/arm64'],
      { cwd: directory },
    );
    expect(refused).toMatchObject({ code: 1, stderr: expect.stringContaining('it offers windows/amd64') });
    expect(existsSync(join(directory, 'never'))).toBe(false);
  });

  it('come from archives of docker save, the same each time', async () => {
    const archive = join(directory, 'docker.tar');
    const from = `oci:${join(directory, 'layout-app')}:v1`;
    await run('skopeo', [
      'copy',
      '--quiet',
      ...WINDOWS,
      from,
      `docker-archive:${archive}:example.com/app:v1`,
    ]);
    const [one, two] = [newRoot(), newRoot()];
    for (const { cimlet } of [one, two]) await cimlet(['image', 'load', '-i', archive]);
    const list = async ({ cimlet }: typeof one) =>
      JSON.parse((await cimlet(['image', 'ls', '-o', 'json'])).stdout).items;
    expect(await list(one)).toEqual(await list(two));
    expect(await list(one)).toMatchObject([
      { reference: 'example.com/app:v1', platforms: [{ isWhole: true }] },
    ]);
    await expect(
      inspect(`oci:${join(one.root, 'images')}:example.com/app:v1`, WINDOWS),
    ).resolves.toMatchObject({ Layers: { length: 3 } });
    const renamed = newRoot();
    await renamed.cimlet(['image', 'load', '-i', archive, '--name', 'other.example.com/app:v9']);
    expect(await list(renamed)).toMatchObject([{ reference: 'other.example.com/app:v9' }]);
  });

  it('are all taken from an archive of several, or the one that is named', async () => {
    const { cimlet } = newRoot();
    await makeImage(directory, 'other');
    const names = ['example.com/app:v1', 'example.com/same:v1', 'example.com/other:v1'];
    for (const [name, layout] of names.map((each) => [each, each.includes('other') ? 'other' : 'app']))
      await cimlet(['image', 'copy', `oci:layout-${layout}:v1`, String(name)]);
    await cimlet(['image', 'save', ...names, '-o', 'several.tar']);
    const dockers = join(directory, 'several-docker.tar');
    // The other kind that such a tar is.
    const members = join(directory, 'several');
    mkdirSync(members);
    await run('tar', ['-xf', join(directory, 'several.tar'), '-C', members]);
    await run('tar', ['-cf', dockers, '-C', members, 'manifest.json', 'blobs']);
    for (const archive of ['several.tar', dockers]) {
      const all = newRoot();
      const { stdout } = await all.cimlet(['image', 'load', '-i', archive]);
      expect(stdout.match(/^Loaded \S+(?=:)/gm)).toEqual(names.map((name) => `Loaded ${name}`));
      const listed = JSON.parse((await all.cimlet(['image', 'ls', '-o', 'json'])).stdout).items;
      expect(listed.map(({ reference }: { reference: string }) => reference).sort()).toEqual(
        [...names].sort(),
      );
      expectNoPartialBlobs(all.root);
      const one = newRoot();
      await one.cimlet(['image', 'load', '-i', `${archive}:${names[2]}`]);
      expect((await one.cimlet(['image', 'ls'])).stdout).not.toContain('example.com/app');
      const refused = await one.cimlet(['image', 'load', '-i', archive, '--name', 'example.com/x:v1'], 1);
      expect(refused.stderr).toContain('holds several images');
    }
  });

  it('go into a layout of somebody else, whose own entries stay as they are', async () => {
    const { cimlet } = newRoot();
    const theirs = join(directory, 'theirs');
    await run('cp', ['-r', join(directory, 'layout-app'), theirs]);
    const index = JSON.parse(readFileSync(join(theirs, 'index.json'), 'utf8'));
    const [entry] = index.manifests;
    const untagged = {
      ...entry,
      annotations: { 'com.example': 'kept' },
      artifactType: 'application/x-theirs',
    };
    writeFileSync(join(theirs, 'index.json'), JSON.stringify({ ...index, manifests: [entry, untagged] }));
    await cimlet(['image', 'copy', 'oci:layout-app:v1', 'oci:theirs:v2']);
    const after = JSON.parse(readFileSync(join(theirs, 'index.json'), 'utf8'));
    expect(after.manifests.slice(0, 2)).toEqual([entry, untagged]);
    expect(after.manifests).toHaveLength(3);
  });

  it("are not called by a digest that they don't have", async () => {
    const { cimlet } = newRoot();
    const other = `sha256:${'0'.repeat(64)}`;
    const refused = await cimlet(
      ['image', 'load', '-i', 'layout-app:v1', '--name', `example.com/app@${other}`],
      1,
    );
    expect(refused.stderr).toContain(`the copy is ${digest}, not ${other}`);
    await cimlet(['image', 'load', '-i', 'layout-app:v1', '--name', `example.com/app@${digest}`]);
  });

  it('damaged on the way are refused, and nothing is left under their name', async () => {
    const { root, cimlet } = newRoot();
    const broken = join(directory, 'broken');
    await run('cp', ['-r', join(directory, 'layout-app'), broken]);
    const blobs = join(broken, 'blobs/sha256');
    for (const name of readdirSync(blobs)) {
      const bytes = readFileSync(join(blobs, name));
      if (bytes.length < 100_000) continue;
      bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] ?? 0) ^ 1;
      writeFileSync(join(blobs, name), bytes);
    }
    const refused = await cimlet(['image', 'load', '-i', `${broken}:v1`, '--name', 'example.com/app:v1'], 1);
    expect(refused.stderr).toMatch(/blob sha256:[0-9a-f]+ in .*: its bytes have digest/);
    expectNoPartialBlobs(root);
    expect((await cimlet(['image', 'ls'])).stderr).toContain('No images');
    const archived = await cimlet(['image', 'copy', `oci:${broken}:v1`, 'oci-archive:broken.tar:v1'], 1);
    expect(archived.stderr).toContain('its bytes have digest');
    expect(existsSync(join(directory, 'broken.tar'))).toBe(false);
  });

  it.each([
    [
      ['image', 'copy', './here', 'oci:x:v1'],
      'begin it with docker://, oci:, oci-archive: or docker-archive:',
    ],
    [['image', 'copy', 'oci:', 'oci:x:v1'], 'names no path'],
    [['image', 'copy', 'oci:absent:v1', 'oci:x:v1'], 'no such file or directory'],
    [['image', 'save', 'example.com/app'], 'name the tar with -o'],
    [['image', 'save', 'example.com/app', '-o', 'x.tar'], 'example.com/app:latest'],
    [['image', 'load', '-i', 'layout-app/oci-layout'], 'layout-app/oci-layout'],
    [['image', 'inspect', 'example.com/app', '--platform', 'windows'], 'windows/amd64'],
  ])('%j is answered with what to do', async (args, message) => {
    const { cimlet } = newRoot();
    const { stderr } = await cimlet(args, 1);
    expect(stderr.replace(/\s+/g, ' ')).toContain(message);
    expect(stderr).not.toContain('    at ');
  });
});
