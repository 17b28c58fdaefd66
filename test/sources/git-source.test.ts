import { readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { loadManifestContents } from '../../src/manifests/load.ts';
import type { Resource } from '../../src/manifests/resources.ts';
import { createGitSource } from '../../src/sources/git-source.ts';
import type { Revision } from '../../src/sources/source.ts';
import { makeGitWorld, openGitSource } from './git-fixture.ts';
import { imageManifest, NEVER, syncUntil, textsOf } from './support.ts';

/** The bare repository in a source's cache. */
function repositoryIn(cache: string): string {
  const name = readdirSync(cache).find((each) => each.startsWith('repository-'));
  return join(cache, name ?? 'there is none');
}

const SHA1 = /^[0-9a-f]{40}$/;

it('names the revision of the default branch by branch and commit, and has its manifests and files', async () => {
  const { world, server, push } = makeGitWorld();
  const commit = push({ 'm/a.yaml': imageManifest('a', '../images/a.tar'), 'images/a.tar': 'bytes' });
  expect(commit).toMatch(SHA1);
  const revision = await openGitSource(world, { url: server }).sync(NEVER);
  expect(revision.name).toBe(`main@sha1:${commit}`);
  expect(textsOf(revision)).toEqual({ 'm/a.yaml': imageManifest('a', '../images/a.tar') });
  expect(readFileSync(join(revision.directory, 'images/a.tar'), 'utf8')).toBe('bytes');
  const { resources, problems } = loadManifestContents(revision.manifests);
  expect(problems).toEqual([]);
  expect(resources[0]).toMatchObject({
    position: { file: 'm/a.yaml' },
    baseDirectory: join(revision.directory, 'm'),
  });
});

it('follows a branch through pushes and rewritten history, and is the same revision in between', async () => {
  const { world, server, git, push } = makeGitWorld();
  const source = openGitSource(world, { url: server, ref: { branch: 'main' } });
  const first = push({ 'a.yaml': 'first' });
  const revision = await source.sync(NEVER);
  expect(revision.name).toBe(`main@sha1:${first}`);
  expect(await source.sync(NEVER)).toBe(revision);

  push({ 'a.yaml': 'second', 'b.yaml': 'b' });
  expect(textsOf(await source.sync(NEVER))).toEqual({ 'a.yaml': 'second', 'b.yaml': 'b' });

  git(['reset', '--quiet', '--hard', first]);
  push({ 'a.yaml': 'rewritten' }, { commit: ['--amend'] });
  expect(textsOf(await source.sync(NEVER))).toEqual({ 'a.yaml': 'rewritten' });

  git(['push', '--quiet', '--force', 'origin', `${first}:refs/heads/main`]);
  expect((await source.sync(NEVER)).name).toBe(revision.name);
});

it('has only what changed between two revisions parsed, also by a process after this one', async () => {
  const { world, server, push } = makeGitWorld();
  const names = ['a', 'b', 'c', 'd'];
  const files = Object.fromEntries(names.map((name) => [`${name}.yaml`, imageManifest(name)]));
  const parsedAnew = (manifests: Revision['manifests'], known: readonly Resource[]) => {
    const { resources, problems } = loadManifestContents(manifests);
    expect(problems).toEqual([]);
    const specs = new Set(known.map(({ spec }) => spec));
    return {
      resources,
      anew: resources.filter(({ spec }) => !specs.has(spec)).map(({ metadata }) => metadata.name),
    };
  };
  push(files);
  const source = openGitSource(world, { url: server });
  const first = await source.sync(NEVER);
  const { resources } = parsedAnew(first.manifests, []);

  push({ ...files, 'b.yaml': imageManifest('b', 'elsewhere'), 'e.yaml': imageManifest('e') });
  const second = await source.sync(NEVER);
  const after = parsedAnew(second.manifests, resources);
  expect(after.anew).toEqual(['b', 'e']);
  expect(after.resources.map(({ baseDirectory }) => baseDirectory)).toEqual(Array(5).fill(second.directory));
  // The first revision's are where they were.
  expect(parsedAnew(first.manifests, [...resources, ...after.resources]).resources[0]?.baseDirectory).toBe(
    first.directory,
  );
  await source.accept(second);
  await source.close();

  const restarted = openGitSource(world, { url: server });
  const inForce = await restarted.accepted();
  const restored = parsedAnew(inForce?.manifests ?? [], []);
  const third = await restarted.sync(NEVER);
  expect(parsedAnew(third.manifests, restored.resources).anew).toEqual([]);
});

it('keeps the accepted revision in force while its branch is gone, and over a restart', async () => {
  const { world, server, git, push } = makeGitWorld();
  push({ 'a.yaml': 'main' });
  push({ 'a.yaml': 'fleet' }, { branch: 'fleet' });
  const ref = { branch: 'fleet' };
  const source = openGitSource(world, { url: server, ref });
  const revision = await source.sync(NEVER);
  await source.accept(revision);

  git(['push', '--quiet', 'origin', ':refs/heads/fleet']);
  await expect(source.sync(NEVER)).rejects.toMatchObject({
    code: 'not-found',
    message: expect.stringContaining('branch fleet'),
  });
  expect(await source.accepted()).toEqual(revision);
  await source.close();
  rmSync(server, { recursive: true });

  const after = openGitSource(world, { url: server, ref });
  await expect(after.sync(NEVER)).rejects.toMatchObject({ code: 'not-found' });
  expect(await after.accepted()).toEqual(revision);
  expect(readFileSync(join(revision.directory, 'a.yaml'), 'utf8')).toBe('fleet');
  expect(await openGitSource(world, { url: server }).accepted()).toBeUndefined();
});

it('follows tags, annotated or not, when they are made anew', async () => {
  const { world, server, git, push } = makeGitWorld();
  const source = openGitSource(world, { url: server, ref: { tag: 'stable' } });
  const first = push({ 'a.yaml': '1' });
  await expect(source.sync(NEVER)).rejects.toMatchObject({ code: 'not-found' });
  git(['tag', 'stable']);
  git(['push', '--quiet', 'origin', 'stable']);
  expect((await source.sync(NEVER)).name).toBe(`stable@sha1:${first}`);
  const second = push({ 'a.yaml': '2' });
  git(['tag', '--force', '--annotate', '--message', 'x', 'stable']);
  git(['push', '--quiet', '--force', 'origin', 'stable']);
  const revision = await source.sync(NEVER);
  expect(revision.name).toBe(`stable@sha1:${second}`);
  expect(textsOf(revision)).toEqual({ 'a.yaml': '2' });
});

it.each([
  ['*', 'v1.10.0'],
  ['1.2.x', '1.2.9'],
  ['>=1.2 <1.10', '1.2.9'],
  ['^2.0.0-0', 'v2.0.0-rc.2'],
])('takes the highest version in %s: %s', async (semver, expected) => {
  const { world, server, git, push } = makeGitWorld();
  push({ 'a.yaml': '' });
  for (const tag of ['v1.2.3', '1.2.9', 'v1.10.0', 'v2.0.0-rc.1', 'v2.0.0-rc.2', 'v1', 'latest', 'x1.99.0']) {
    git(['tag', '--annotate', '--message', tag, tag]);
  }
  git(['push', '--quiet', '--tags', 'origin']);
  const revision = await openGitSource(world, { url: server, ref: { semver } }).sync(NEVER);
  expect(revision.name.split('@')[0]).toBe(expected);
  const none = openGitSource(world, { url: server, ref: { semver: '>=3' } }, 'other-cache');
  await expect(none.sync(NEVER)).rejects.toMatchObject({ code: 'not-found' });
});

it('stays at a commit, even one that no branch has any more', async () => {
  const { world, server, push } = makeGitWorld();
  const commit = push({ 'a.yaml': 'old' });
  push({ 'a.yaml': 'new' }, { commit: ['--amend'] });
  const revision = await openGitSource(world, { url: server, ref: { commit } }).sync(NEVER);
  expect(revision.name).toBe(`sha1:${commit}`);
  expect(textsOf(revision)).toEqual({ 'a.yaml': 'old' });
  const unknown = openGitSource(world, { url: server, ref: { commit: 'a'.repeat(40) } }, 'other-cache');
  await expect(unknown.sync(NEVER)).rejects.toMatchObject({ code: 'not-found' });
});

it('reads repositories whose objects are named by SHA-256', async () => {
  const { world, server, push } = makeGitWorld({ format: 'sha256' });
  const commit = push({ 'a.yaml': 'long names' });
  const revision = await openGitSource(world, { url: server }).sync(NEVER);
  expect(revision.name).toBe(`main@sha256:${commit}`);
  expect(textsOf(revision)).toEqual({ 'a.yaml': 'long names' });
});

it.each<[string, object, string[], string[]]>([
  ['everything', {}, ['apps/x/x.yaml', 'images/i.tar', 'root.yaml'], ['apps/x/x.yaml', 'root.yaml']],
  ['a folder', { path: './apps/' }, ['apps/x/x.yaml'], ['x/x.yaml']],
  [
    'a folder and what else is included',
    { path: 'apps', include: ['apps/**', 'images/'] },
    ['apps/x/x.yaml', 'images/i.tar'],
    ['x/x.yaml'],
  ],
  ['all but what is ignored', { ignore: ['**/*.tar', 'apps/'] }, ['root.yaml'], ['root.yaml']],
])('takes %s', async (_, config, files, manifests) => {
  const { world, server, push } = makeGitWorld();
  push({ 'apps/x/x.yaml': 'x', 'images/i.tar': 'i', 'root.yaml': 'r' });
  const revision = await openGitSource(world, { url: server, ...config }).sync(NEVER);
  expect(Object.keys(textsOf(revision))).toEqual(manifests);
  const [root = ''] = readdirSync(join(world, 'cache/revisions'));
  const written = readdirSync(join(world, 'cache/revisions', root), { recursive: true, withFileTypes: true });
  const paths = written.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  expect(paths.map((path) => path.split(`${root}/`)[1]).sort()).toEqual(files);
});

it('says that the folder is gone, and takes it again when it is back', async () => {
  const { world, server, push } = makeGitWorld();
  const source = openGitSource(world, { url: server, path: 'fleet' });
  push({ 'fleet/a.yaml': 'a', 'other.yaml': '' });
  const revision = await source.sync(NEVER);
  push({ fleet: null });
  await expect(source.sync(NEVER)).rejects.toMatchObject({
    code: 'not-found',
    message: expect.stringContaining('no folder fleet'),
  });
  push({ 'fleet/a.yaml': 'a' });
  expect(textsOf(await source.sync(NEVER))).toEqual(textsOf(revision));
});

it('says that a repository has no commit yet', async () => {
  const { world, server } = makeGitWorld();
  await expect(openGitSource(world, { url: server }).sync(NEVER)).rejects.toMatchObject({
    code: 'not-found',
  });
});

it('fetches three files of fifty thousand when three are asked for, and the changed one afterwards', async () => {
  const { world, server, git } = makeGitWorld();
  const files = Array.from({ length: 50_000 }, (_, index) => {
    const text = `value of file ${index}, which no other has\n`;
    return `M 100644 inline apps/${index % 500}/file-${index}.yaml\ndata ${text.length}\n${text}\n`;
  });
  const author = 'Ann <ann@example.com> 1700000000 +0000';
  const wanted = ['a', 'b', 'c'].map((name) => `M 100644 inline fleet/${name}.yaml\ndata 2\n${name}\n\n`);
  const stream = `commit refs/heads/main\ncommitter ${author}\ndata 3\nall\n${files.join('')}${wanted.join('')}\n`;
  git(['-C', server, 'fast-import', '--quiet'], { input: stream });
  const source = openGitSource(world, { url: server, path: 'fleet' });
  const first = await source.sync(NEVER);
  expect(textsOf(first)).toEqual({ 'a.yaml': 'a\n', 'b.yaml': 'b\n', 'c.yaml': 'c\n' });

  const repository = repositoryIn(join(world, 'cache'));
  const blobs = (): number =>
    git(['-C', repository, 'cat-file', '--batch-all-objects', '--batch-check=%(objecttype)'])
      .split('\n')
      .filter((type) => type === 'blob').length;
  const bytes = (folder: string): number =>
    readdirSync(folder, { recursive: true, encoding: 'utf8' })
      .map((name) => statSync(join(folder, name)).size)
      .reduce((sum, size) => sum + size, 0);
  expect(blobs()).toBe(3);
  expect(bytes(first.directory)).toBeLessThan(10_000);
  const fetchedFirst = bytes(join(repository, 'objects'));
  // Trees, since those say where the files are; the files themselves are more than that.
  expect(fetchedFirst).toBeLessThan(bytes(join(server, 'objects')) * 0.75);

  const change = 'M 100644 inline fleet/a.yaml\ndata 8\nchanged\n\n';
  git(['-C', server, 'fast-import', '--quiet'], {
    input: `commit refs/heads/main\ncommitter ${author}\ndata 3\none\nfrom refs/heads/main^0\n${change}\n`,
  });
  const second = await source.sync(NEVER);
  expect(textsOf(second)).toMatchObject({ 'a.yaml': 'changed\n' });
  expect(blobs()).toBe(4);
  // What is unchanged isn't fetched again.
  expect(bytes(join(repository, 'objects')) - fetchedFirst).toBeLessThan(100_000);
});

it('keeps the files of the accepted revision and of the last two, and no others', async () => {
  const { world, server, push } = makeGitWorld();
  const source = openGitSource(world, { url: server });
  const directories: string[] = [];
  for (let count = 0; count < 5; count++) {
    push({ 'a.yaml': `${count}` });
    const revision = await source.sync(NEVER);
    directories.push(revision.directory);
    if (count === 1) await source.accept(revision);
  }
  const kept = directories.map((directory) =>
    readdirSync(join(directory, '..')).includes(directory.split('/').at(-1) ?? ''),
  );
  expect(kept).toEqual([false, true, false, true, true]);
});

it('fetches anew when what it has is broken, or was left by a git that was killed', async () => {
  const { world, server, push } = makeGitWorld();
  const source = openGitSource(world, { url: server });
  push({ 'a.yaml': '0' });
  await source.sync(NEVER);
  const cache = join(world, 'cache');

  writeFileSync(join(repositoryIn(cache), 'shallow.lock'), '');
  push({ 'a.yaml': '1' });
  expect(textsOf(await source.sync(NEVER))).toEqual({ 'a.yaml': '1' });

  const packs = join(repositoryIn(cache), 'objects/pack');
  for (const name of readdirSync(packs)) {
    const path = join(packs, name);
    rmSync(path);
    writeFileSync(path, 'garbage');
  }
  push({ 'a.yaml': '2' });
  expect(textsOf(await source.sync(NEVER))).toEqual({ 'a.yaml': '2' });

  rmSync(join(repositoryIn(cache), 'HEAD'));
  push({ 'a.yaml': '3' });
  expect(textsOf(await source.sync(NEVER))).toEqual({ 'a.yaml': '3' });
  expect(readdirSync(cache).filter((name) => name.startsWith('repository-'))).toHaveLength(1);
});

it('writes its files again when somebody removed them', async () => {
  const { world, server, push } = makeGitWorld();
  push({ 'a.yaml': 'a' });
  const source = openGitSource(world, { url: server });
  await source.sync(NEVER);
  rmSync(join(world, 'cache'), { recursive: true });
  const { directory } = await source.sync(NEVER);
  expect(readFileSync(join(directory, 'a.yaml'), 'utf8')).toBe('a');
});

it('removes what a killed process left in the cache', async () => {
  const { world, server, push } = makeGitWorld();
  push({ 'a.yaml': '0' });
  await openGitSource(world, { url: server }).sync(NEVER);
  for (const name of ['tmp-x', 'rm-y', 'revisions/tmp-z']) writeFileSync(join(world, 'cache', name), '');
  await openGitSource(world, { url: server }).sync(NEVER);
  const left = readdirSync(join(world, 'cache'), { recursive: true, encoding: 'utf8' });
  expect(left.filter((name) => /(tmp|rm)-/.test(name))).toEqual([]);
});

it('says at once that there may be a new commit when somebody says so', async () => {
  const { world, server, push } = makeGitWorld();
  push({ 'a.yaml': 'first' });
  const source = openGitSource(world, { url: server });
  await source.sync(NEVER);
  await syncUntil(
    source,
    (revision) => textsOf(revision)['a.yaml'] === 'second',
    () => {
      push({ 'a.yaml': 'second' });
      source.touch();
    },
  );
});

it('says when to sync by its interval', async () => {
  const { world, server, push } = makeGitWorld();
  push({ 'a.yaml': 'first' });
  const source = createGitSource(
    { name: 'fleet', git: { url: server }, interval: '10ms' },
    { baseDirectory: world, cacheDirectory: join(world, 'cache') },
  );
  try {
    await source.sync(NEVER);
    await syncUntil(
      source,
      (revision) => textsOf(revision)['a.yaml'] === 'second',
      () => void push({ 'a.yaml': 'second' }),
    );
  } finally {
    await source.close();
  }
});
