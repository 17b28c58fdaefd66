import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, renameSync, rmSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { mkdir, open, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import fc from 'fast-check';
import { expect, it, onTestFinished, vi } from 'vitest';
import type { CimletError } from '../../src/errors.ts';
import { loadManifestContents, loadManifests } from '../../src/manifests/load.ts';
import { createFolderSource } from '../../src/sources/folder-source.ts';
import type { Source } from '../../src/sources/source.ts';
import { imageManifest, NEVER, syncUntil, temporaryFolder, textsOf } from './support.ts';

type FolderConfig = Parameters<typeof createFolderSource>[0]['folder'];

/** The interval is out of the way: what these tests see, they were told by the system. */
function openSource(world: string, folder: Partial<FolderConfig> = {}): Source {
  const source = createFolderSource(
    { name: 'local', folder: { path: 'manifests', ...folder }, interval: '1h' },
    { baseDirectory: world, cacheDirectory: join(world, 'cache') },
  );
  onTestFinished(() => source.close());
  return source;
}

function makeWorld(): { world: string; folder: string } {
  const world = temporaryFolder();
  const folder = join(world, 'manifests');
  mkdirSync(folder);
  writeFileSync(join(folder, 'a.yaml'), imageManifest('a'));
  return { world, folder };
}

it('names a revision as `cimlet plan` names the folder', async () => {
  const { world, folder } = makeWorld();
  mkdirSync(join(folder, 'deeper'));
  writeFileSync(join(folder, 'deeper', 'ü.json'), '{}');
  writeFileSync(join(folder, 'notes.txt'), 'no manifest');
  const revision = await openSource(world).sync(NEVER);
  const loaded = await loadManifests([folder]);
  expect(revision.name).toBe(loaded.revision);
  expect(revision.name).toMatch(/^folder@sha256:[0-9a-f]{64}$/);
  expect(loadManifestContents(revision.manifests)).toEqual({
    ...loaded,
    files: loaded.files,
  });
});

it('is the same revision until bytes or names change, whatever happens to times', async () => {
  const { world, folder } = makeWorld();
  const source = openSource(world);
  const first = await source.sync(NEVER);
  writeFileSync(join(folder, 'a.yaml'), imageManifest('a'));
  expect(await source.sync(NEVER)).toBe(first);
  await rename(join(folder, 'a.yaml'), join(folder, 'b.yaml'));
  expect((await source.sync(NEVER)).name).not.toBe(first.name);
});

it.each(['Events', 'Polling'] as const)(
  'reads again what changed and nothing else matters, with %s',
  async (watch) => {
    const { world, folder } = makeWorld();
    for (const name of ['b', 'c']) writeFileSync(join(folder, `${name}.yaml`), imageManifest(name));
    // By this clock they were written long ago, so that their times are enough to know them by.
    vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + 60_000 });
    onTestFinished(() => void vi.useRealTimers());
    utimesSync(join(folder, 'b.yaml'), 1_700_000_000, 1_700_000_000);
    const source = openSource(world, { watch });
    await source.sync(NEVER);
    writeFileSync(join(folder, 'b.yaml'), imageManifest('other'));
    utimesSync(join(folder, 'b.yaml'), 1_700_000_000, 1_700_000_000);
    rmSync(join(folder, 'c.yaml'));
    const revision = await source.sync(NEVER);
    expect(textsOf(revision)).toEqual({ 'a.yaml': imageManifest('a'), 'b.yaml': imageManifest('other') });
    expect(revision.name).toBe((await loadManifests([folder])).revision);
  },
);

it('is what the folder is, whatever happened to it in between', async () => {
  const path = fc.constantFrom(
    'a.yaml',
    'b.json',
    'sub/a.yaml',
    'sub/deeper/c.yml',
    'notes.txt',
    '.hidden.yaml',
    'link.yaml',
  );
  const change = fc.oneof(
    fc.record({ kind: fc.constant('write' as const), path }),
    fc.record({ kind: fc.constant('remove' as const), path }),
    fc.record({ kind: fc.constant('rename' as const), path, to: path }),
    fc.record({ kind: fc.constant('link' as const), path, to: path }),
  );
  vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + 60_000 });
  onTestFinished(() => void vi.useRealTimers());
  let length = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(change, { maxLength: 12 }), async (changes) => {
      const world = temporaryFolder();
      const at = (name: string): string => join(world, 'manifests', name);
      mkdirSync(at('sub/deeper'), { recursive: true });
      const source = openSource(world, { ignore: ['nothing'] });
      for (const step of changes) {
        const { kind } = step;
        if (kind === 'remove') rmSync(at(step.path), { force: true });
        if (kind === 'rename' && existsSync(at(step.path))) renameSync(at(step.path), at(step.to));
        if (kind === 'link') {
          rmSync(at(step.path), { force: true });
          symlinkSync(at(step.to), at(step.path));
        }
        // Of lengths that never come again: a write right after another may have the same times.
        if (kind === 'write') {
          rmSync(at(step.path), { force: true });
          writeFileSync(at(step.path), `# ${'x'.repeat(++length)}`);
        }
        const { revision, problems } = await loadManifests([join(world, 'manifests')]);
        const outcome = await source.sync(NEVER).then(
          ({ name }) => name,
          ({ code }: CimletError) => code,
        );
        const isWhole = problems.every(
          ({ code, message }) => code !== 'unreadable' || message.includes('holds no manifest'),
        );
        expect(outcome).toBe(isWhole ? revision : 'unavailable');
      }
    }),
    { numRuns: 60 },
  );
});

it('keeps what was read: a revision does not follow the files', async () => {
  const { world, folder } = makeWorld();
  const revision = await openSource(world).sync(NEVER);
  writeFileSync(join(folder, 'a.yaml'), 'something else');
  expect(textsOf(revision)).toEqual({ 'a.yaml': imageManifest('a') });
});

it.each<[string, Partial<FolderConfig>, string[]]>([
  ['everything', {}, ['a.yaml', 'apps/x/b.yaml', 'apps/y/c.yaml']],
  ['included files', { include: ['apps/**'] }, ['apps/x/b.yaml', 'apps/y/c.yaml']],
  ['all but ignored ones', { ignore: ['apps/x/'] }, ['a.yaml', 'apps/y/c.yaml']],
  ['included ones without ignored ones', { include: ['apps/'], ignore: ['**/c.*'] }, ['apps/x/b.yaml']],
])('takes %s', async (_, globs, expected) => {
  const { world, folder } = makeWorld();
  for (const file of ['apps/x/b.yaml', 'apps/y/c.yaml']) {
    mkdirSync(join(folder, file, '..'), { recursive: true });
    writeFileSync(join(folder, file), imageManifest('x'));
  }
  const { manifests } = await openSource(world, globs).sync(NEVER);
  expect(manifests.map(({ relativeName }) => relativeName)).toEqual(expected);
});

it('refuses a revision that lacks a file it should have, and takes it when the file is ignored', async () => {
  const { world, folder } = makeWorld();
  symlinkSync('nowhere.yaml', join(folder, 'dangling.yaml'));
  await expect(openSource(world).sync(NEVER)).rejects.toMatchObject({
    code: 'unavailable',
    message: expect.stringContaining('dangling.yaml'),
  });
  const { manifests } = await openSource(world, { ignore: ['dangling.yaml'] }).sync(NEVER);
  expect(manifests).toHaveLength(1);
});

it('says that the folder is missing, and that it is none', async () => {
  const { world, folder } = makeWorld();
  const source = openSource(world);
  rmSync(folder, { recursive: true });
  await expect(source.sync(NEVER)).rejects.toMatchObject({ code: 'not-found' });
  writeFileSync(folder, '');
  await expect(source.sync(NEVER)).rejects.toMatchObject({ code: 'failed-precondition' });
});

it('has the accepted revision in force after a restart, though the folder is gone or broken by then', async () => {
  const { world, folder } = makeWorld();
  const before = openSource(world);
  expect(await before.accepted()).toBeUndefined();
  const revision = await before.sync(NEVER);
  await before.accept(revision);
  await before.close();
  rmSync(folder, { recursive: true });
  const after = openSource(world);
  await expect(after.sync(NEVER)).rejects.toMatchObject({ code: 'not-found' });
  expect(await after.accepted()).toEqual(revision);
  expect(await openSource(world, { ignore: ['x'] }).accepted()).toBeUndefined();
});

it('takes a stored revision that was cut off for none', async () => {
  const { world } = makeWorld();
  const source = openSource(world);
  await source.accept(await source.sync(NEVER));
  writeFileSync(join(world, 'cache', 'accepted.json'), '{"configuration": "');
  expect(await source.accepted()).toBeUndefined();
});

it('sees a file saved in place, an atomic save, a new file, a new folder and a removal', async () => {
  const { world, folder } = makeWorld();
  const source = openSource(world);
  await source.sync(NEVER);
  const has = (path: string, text: string) => (revision: Parameters<typeof textsOf>[0]) =>
    textsOf(revision)[path] === text;

  await syncUntil(source, has('a.yaml', 'saved'), () => writeFile(join(folder, 'a.yaml'), 'saved'));
  await syncUntil(source, has('a.yaml', 'renamed'), async () => {
    await writeFile(join(folder, '.a.yaml.swp'), 'renamed');
    await rename(join(folder, '.a.yaml.swp'), join(folder, 'a.yaml'));
  });
  await syncUntil(source, has('b.yaml', 'new'), () => writeFile(join(folder, 'b.yaml'), 'new'));
  await syncUntil(source, has('sub/c.yaml', 'below'), async () => {
    await mkdir(join(folder, 'sub'));
    await writeFile(join(folder, 'sub', 'c.yaml'), 'below');
  });
  await syncUntil(source, has('sub/c.yaml', 'changed'), () =>
    writeFile(join(folder, 'sub', 'c.yaml'), 'changed'),
  );
  await syncUntil(
    source,
    ({ manifests }) => manifests.length === 2,
    () => rm(join(folder, 'sub'), { recursive: true }),
  );
  for (const text of ['back', 'and changed']) {
    await syncUntil(source, has('sub/c.yaml', text), async () => {
      await mkdir(join(folder, 'sub'), { recursive: true });
      await writeFile(join(folder, 'sub', 'c.yaml'), text);
    });
  }
  const left = await syncUntil(
    source,
    ({ manifests }) => manifests.length === 1,
    async () => {
      await rm(join(folder, 'sub'), { recursive: true });
      await rm(join(folder, 'b.yaml'));
    },
  );
  expect(textsOf(left)).toEqual({ 'a.yaml': 'renamed' });
});

it('sees the folder coming back after it was removed', async () => {
  const { world, folder } = makeWorld();
  const source = openSource(world);
  await source.sync(NEVER);
  for (const text of ['again', 'and again']) {
    await syncUntil(
      source,
      (revision) => textsOf(revision)['a.yaml'] === text,
      async () => {
        await rm(folder, { recursive: true });
        await mkdir(folder);
        await writeFile(join(folder, 'a.yaml'), text);
      },
    );
  }
});

it.each(['.', 'sub'])('sees what is done in a folder that was moved away and back: %s', async (moved) => {
  const { world, folder } = makeWorld();
  const source = openSource(world);
  const file = join(moved, 'b.yaml');
  const here = join(folder, moved);
  const away = join(world, 'away');
  const shows = (text: string | undefined) => (revision: Parameters<typeof textsOf>[0]) =>
    textsOf(revision)[file] === text;
  await mkdir(here, { recursive: true });
  await syncUntil(source, shows('first'), () => writeFile(join(folder, file), 'first'));
  for (const text of ['second', 'third', 'fourth']) {
    await rename(here, away);
    if (text === 'third') {
      const isGone = () => source.sync(NEVER).then(shows(undefined), () => true);
      for await (const _ of source.changes(NEVER)) if (await isGone()) break;
    }
    await rename(away, here);
    await syncUntil(source, () => true);
    await syncUntil(source, shows(text), () => writeFile(join(folder, file), text));
  }
});

it('sees every swap of a mounted ConfigMap', async () => {
  const world = temporaryFolder();
  const folder = join(world, 'manifests');
  // What the kubelet's atomic writer does: k8s.io/kubernetes/pkg/volume/util/atomic_writer.go.
  const publish = async (version: string): Promise<void> => {
    const data = `..2026_${version}`;
    await mkdir(join(folder, data), { recursive: true });
    await writeFile(join(folder, data, 'a.yaml'), version);
    await symlink(data, join(folder, '..data_tmp'));
    await rename(join(folder, '..data_tmp'), join(folder, '..data'));
  };
  await publish('0');
  symlinkSync('..data/a.yaml', join(folder, 'a.yaml'));
  const source = openSource(world);
  await source.sync(NEVER);
  for (const version of ['1', '2', '3']) {
    await syncUntil(
      source,
      (revision) => textsOf(revision)['a.yaml'] === version,
      async () => {
        await publish(version);
        await rm(join(folder, `..2026_${Number(version) - 1}`), { recursive: true });
      },
    );
  }
});

it('sees the folder itself being a link that is set anew', async () => {
  const world = temporaryFolder();
  for (const release of ['1', '2', '3']) {
    mkdirSync(join(world, 'releases', release), { recursive: true });
    writeFileSync(join(world, 'releases', release, 'a.yaml'), release);
  }
  symlinkSync('releases/1', join(world, 'manifests'));
  const source = openSource(world);
  await source.sync(NEVER);
  for (const release of ['2', '3']) {
    await syncUntil(
      source,
      (revision) => textsOf(revision)['a.yaml'] === release,
      async () => {
        await symlink(`releases/${release}`, join(world, 'next'));
        await rename(join(world, 'next'), join(world, 'manifests'));
      },
    );
  }
});

it('is not led in circles by links, and follows each folder once', async () => {
  const { world, folder } = makeWorld();
  for (const name of ['one', 'two', 'three']) symlinkSync('.', join(folder, name));
  const source = openSource(world);
  expect((await source.sync(NEVER)).manifests).toHaveLength(1);
  await syncUntil(
    source,
    (revision) => textsOf(revision)['a.yaml'] === 'changed',
    () => writeFile(join(folder, 'a.yaml'), 'changed'),
  );
});

it('finds changes by looking where the system tells nothing', async () => {
  const { world, folder } = makeWorld();
  const source = openSource(world, { watch: 'Polling', pollInterval: '20ms' });
  await source.sync(NEVER);
  for (const text of ['longer than before', 'much longer than before', 'short']) {
    await syncUntil(
      source,
      (revision) => textsOf(revision)['a.yaml'] === text,
      () => writeFile(join(folder, 'a.yaml'), text),
    );
  }
});

/** Saves as editors do, from a process of its own: every text is the file's name, a count, and the name again. */
const SAVER = `
  const { renameSync, writeFileSync, openSync, writeSync, closeSync } = require('node:fs');
  const [folder, files, rounds] = process.argv.slice(1);
  for (let round = 1; round <= Number(rounds); round++) {
    for (let file = 0; file < Number(files); file++) {
      const text = \`# \${file} \${round} \${'x'.repeat(50000)} \${file} \${round}\\n\`;
      const path = \`\${folder}/\${file}.yaml\`;
      if (file % 2 === 0) { writeFileSync(path + '~', text); renameSync(path + '~', path); continue; }
      const open = openSync(path, 'w');
      for (let at = 0; at < text.length; at += 10000) writeSync(open, text.slice(at, at + 10000));
      closeSync(open);
    }
  }`;

it('ends at the last of many saves, and has no file in two states at once on the way', async () => {
  const world = temporaryFolder();
  const folder = join(world, 'manifests');
  mkdirSync(folder);
  const [files, rounds] = [20, 40];
  const source = openSource(world);
  await source.sync(NEVER);
  const torn: string[] = [];
  const last = await syncUntil(
    source,
    (revision) => {
      const texts = Object.values(textsOf(revision));
      // Files with an even number are replaced and so always whole; the others are what they are while nobody writes.
      torn.push(
        ...texts.filter((text) => /^# \d*[02468] /.test(text) && !/^# (\d+ \d+) x+ \1\n$/.test(text)),
      );
      return texts.length === files && texts.every((text) => / 40\n$/.test(text));
    },
    () => {
      const saver = spawn(process.execPath, ['-e', SAVER, folder, String(files), String(rounds)], {
        stdio: 'inherit',
      });
      onTestFinished(() => void saver.kill());
    },
  );
  expect(last.manifests).toHaveLength(files);
  expect(torn).toEqual([]);
});

it('says that files never rest, instead of making a revision of several moments', async () => {
  const { world, folder } = makeWorld();
  const source = openSource(world);
  const ending = new AbortController();
  const writing = (async () => {
    const file = await open(join(folder, 'a.yaml'), 'w');
    try {
      for (let count = 0; !ending.signal.aborted; count++) await file.write(`# ${count}\n`);
    } finally {
      await file.close();
    }
  })();
  try {
    let outcome: unknown;
    while (!(outcome instanceof Error)) outcome = await source.sync(NEVER).catch((error: unknown) => error);
    expect(outcome).toMatchObject({ code: 'busy' });
  } finally {
    ending.abort();
    await writing;
  }
  expect((await source.sync(NEVER)).manifests).toHaveLength(1);
});

it('ends its changes and what it is doing when it is closed', async () => {
  const { world } = makeWorld();
  const source = openSource(world);
  const told: unknown[] = [];
  const following = (async () => {
    for await (const change of source.changes(NEVER)) told.push(change);
  })();
  await source.close();
  await following;
  await expect(source.sync(NEVER)).rejects.toMatchObject({ code: 'cancelled' });
});
