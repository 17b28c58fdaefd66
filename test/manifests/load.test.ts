import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmod, mkdir, symlink, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { loadManifests } from '../../src/manifests/load.ts';
import { formatProblem, loadText, manifest, problemsOf, withFolder } from './support.ts';

const image = (name: string) => manifest('Image', { source: { ociLayout: 'x' } }, { name });
const sha256 = (text: string) => `sha256:${createHash('sha256').update(text).digest('hex')}`;

async function namesIn(inputs: string[]): Promise<string[]> {
  const { resources, problems } = await loadManifests(inputs);
  expect(problems).toEqual([]);
  return resources.map(({ metadata }) => metadata.name);
}

describe('where manifests come from', () => {
  it('a folder: *.yaml, *.yml and *.json below it, sorted, without hidden ones', () =>
    withFolder(
      {
        'b.yaml': image('b'),
        'a/z.yml': image('a-z'),
        'a/b.json': image('a-b'),
        'c.txt': 'no manifest',
        '.hidden.yaml': 'no manifest: [',
        '.git/x.yaml': 'no manifest: [',
        'empty.yaml': '# nothing here yet\n',
      },
      async (folder) => {
        expect(await namesIn([folder])).toEqual(['a-b', 'a-z', 'b']);
      },
    ));

  it('files, in the order they are named, each once', () =>
    withFolder({ 'a.yaml': image('a'), 'b.conf': image('b') }, async (folder) => {
      const [a, b] = [join(folder, 'a.yaml'), join(folder, 'b.conf')];
      expect(await namesIn([b, a, b, folder])).toEqual(['b', 'a']);
    }));

  it('each real folder once, however many links lead there', () =>
    withFolder({ 'level-0/a.yaml': image('a') }, async (folder) => {
      for (let level = 1; level <= 40; level++) {
        await mkdir(join(folder, `level-${level}`));
        for (const name of ['left', 'right'])
          await symlink(`../level-${level - 1}`, join(folder, `level-${level}`, name));
      }
      expect(await namesIn([join(folder, 'level-40')])).toEqual(['a']);
    }));

  it('links to files and folders, but not in circles', () =>
    withFolder({ 'real/a.yaml': image('a') }, async (folder) => {
      await mkdir(join(folder, 'manifests'));
      await symlink('../real', join(folder, 'manifests/linked'));
      await symlink('..', join(folder, 'real/up'));
      await symlink('nowhere', join(folder, 'manifests/dangling'));
      expect(await namesIn([join(folder, 'manifests')])).toEqual(['a']);
    }));

  it('standard input', async () => {
    const { resources, files, problems } = await loadText(image('a'));
    expect(problems).toEqual([]);
    expect(resources[0]).toMatchObject({
      kind: 'Image',
      position: { file: '-', line: 1, column: 1 },
      baseDirectory: process.cwd(),
    });
    expect(files).toEqual([{ path: '-', digest: sha256(image('a')) }]);
  });

  it('names files as the user did, and knows their folders', () =>
    withFolder({ 'x/a.yaml': `# first\n\n${image('a')}` }, async (folder) => {
      const { resources, files } = await loadManifests([folder]);
      expect(resources[0]?.position).toEqual({ file: join(folder, 'x/a.yaml'), line: 3, column: 1 });
      expect(resources[0]?.baseDirectory).toBe(join(folder, 'x'));
      expect(files.map(({ path }) => path)).toEqual([join(folder, 'x/a.yaml')]);
    }));

  it('reads UTF-8 with a byte order mark', () =>
    withFolder({ 'a.yaml': `\uFEFF${image('a')}` }, async (folder) => {
      expect(await namesIn([folder])).toEqual(['a']);
    }));
});

describe('the revision', () => {
  const files = { 'a.yaml': image('a'), 'b/c.yaml': image('c') };
  const revisionOf = (tree: Record<string, string>) =>
    withFolder(tree, async (folder) => (await loadManifests([folder])).revision);

  it('is the same wherever the folder is', async () => {
    const revision = await revisionOf(files);
    expect(revision).toMatch(/^folder@sha256:[a-f0-9]{64}$/);
    expect(await revisionOf(files)).toBe(revision);
  });

  it.each<[string, Record<string, string>]>([
    ['content', { ...files, 'a.yaml': `${image('a')}\n` }],
    ['name', { 'a2.yaml': image('a'), 'b/c.yaml': image('c') }],
    ['number', { ...files, 'd.yaml': '# empty' }],
  ])('changes with the %s of files', async (_what, changed) => {
    expect(await revisionOf(changed)).not.toBe(await revisionOf(files));
  });
});

describe('what cannot be read', () => {
  it('an argument that is not there throws', async () => {
    await expect(loadManifests(['no/such/folder'])).rejects.toMatchObject({
      code: 'not-found',
      message: `read manifests no/such/folder: no such file or directory (ENOENT)`,
    });
  });

  it('a link in a folder that leads nowhere is a problem', () =>
    withFolder({ 'a.yaml': image('a') }, async (folder) => {
      await symlink('nowhere', join(folder, 'b.yaml'));
      const { problems, resources } = await loadManifests([folder]);
      expect(resources).toHaveLength(1);
      expect(problems.map((problem) => formatProblem(problem, folder))).toEqual([
        'b.yaml:1:1: [unreadable] read b.yaml: no such file or directory (ENOENT)',
      ]);
    }));

  it.each<[string, Record<string, string>, string, string]>([
    [
      'a folder without manifests',
      { 'x.txt': 'x' },
      '',
      ' holds no manifest (searched for *.yaml, *.yml and *.json)',
    ],
    [
      'a folder with empty ones',
      { 'x.yaml': '# later' },
      '',
      ' holds no manifest (searched for *.yaml, *.yml and *.json)',
    ],
    ['an empty file', { 'x.yaml': '' }, '/x.yaml', ' holds no manifest'],
  ])('%s', (_name, files, input, message) =>
    withFolder(files, async (folder) => {
      const { problems } = await loadManifests([folder + input]);
      expect(problems).toEqual([
        {
          position: { file: folder + input, line: 1, column: 1 },
          field: '',
          code: 'unreadable',
          message: `${folder}${input}${message}`,
        },
      ]);
    }),
  );

  it.each<[string, string | Uint8Array, string]>([
    [
      'UTF-16',
      Buffer.from('\uFEFFkind: Image', 'utf16le'),
      "[syntax] a.yaml isn't UTF-8 text; save it as UTF-8",
    ],
    ['Latin-1', Buffer.from('name: caf\xe9', 'latin1'), "[syntax] a.yaml isn't UTF-8 text; save it as UTF-8"],
    [
      'more than 4 MiB',
      ' '.repeat(4 * 1024 * 1024 + 1),
      '[unreadable] read a.yaml: larger than 4 MiB, which no manifest is',
    ],
  ])('%s', (_name, content, expected) =>
    withFolder({ 'a.yaml': content, 'b.yaml': image('b') }, async (folder) => {
      const { problems, resources } = await loadManifests([folder]);
      expect(problems.map((problem) => formatProblem(problem, folder))).toEqual([`a.yaml:1:1: ${expected}`]);
      expect(resources.map(({ metadata }) => metadata.name)).toEqual(['b']);
    }),
  );

  it('endless input ends at the same limit', async () => {
    const { problems } = await loadManifests(['/dev/zero']);
    expect(problems.map(({ message }) => message)).toEqual([
      'read /dev/zero: larger than 4 MiB, which no manifest is',
    ]);
  });

  it('a pipe in a folder is a problem, and nobody waits for it', () =>
    withFolder({ 'a.yaml': image('a') }, async (folder) => {
      execFileSync('mkfifo', [join(folder, 'b.yaml')]);
      const { problems } = await loadManifests([folder]);
      expect(problems.map((problem) => formatProblem(problem, folder))).toEqual([
        'b.yaml:1:1: [unreadable] read b.yaml: is no regular file',
      ]);
    }));

  it('is cancelled by its signal', () =>
    withFolder({ 'a.yaml': image('a') }, async (folder) => {
      const signal = AbortSignal.abort();
      await expect(loadManifests([folder], { signal })).rejects.toMatchObject({ code: 'cancelled' });
    }));
});

describe('a messy folder', () => {
  it('gives every problem at its place', async () => {
    const folder = resolve(import.meta.dirname, 'golden/messy');
    const { problems, resources } = await loadManifests([folder]);
    const text = problems.map((problem) => formatProblem(problem, folder)).join('\n');
    await expect(`${text}\n`).toMatchFileSnapshot('golden/messy.txt');
    expect(resources.map(({ kind, metadata }) => `${kind}/${metadata.name}`)).toEqual([
      'Image/good3',
      'Image/good',
      'Mount/good',
    ]);
  });

  it('stops telling after a hundred problems of one document', async () => {
    const spec = Object.fromEntries(Array.from({ length: 5000 }, (_, i) => [`x${i}`, i]));
    expect(await problemsOf(manifest('Image', spec))).toHaveLength(100);
  });
});

it('examples/manifests is valid', async () => {
  const { problems, resources } = await loadManifests([
    resolve(import.meta.dirname, '../../examples/manifests'),
  ]);
  expect(problems).toEqual([]);
  expect(resources.length).toBeGreaterThan(0);
});

it('an unreadable folder inside is a problem', async (context) => {
  if (process.getuid?.() === 0) return context.skip('root can read everything');
  await withFolder({ 'a.yaml': image('a'), 'b/x.yaml': image('x') }, async (folder) => {
    await chmod(join(folder, 'b'), 0);
    const { problems } = await loadManifests([folder]);
    await chmod(join(folder, 'b'), 0o700);
    expect(problems.map((problem) => formatProblem(problem, folder))).toEqual([
      'b:1:1: [unreadable] read b: permission denied (EACCES)',
    ]);
  });
});

it('reads thousands of files', () =>
  withFolder(
    Object.fromEntries(Array.from({ length: 2000 }, (_, i) => [`${i}.yaml`, image(`app-${i}`)])),
    async (folder) => {
      await writeFile(join(folder, 'last.yaml'), image('last'));
      expect((await namesIn([folder])).length).toBe(2001);
    },
  ));
