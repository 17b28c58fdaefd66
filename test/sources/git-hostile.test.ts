/** Repositories that mean harm, and machines whose git is set up to help them. */

import { execFileSync } from 'node:child_process';
import { existsSync, lstatSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import fc from 'fast-check';
import { afterEach, expect, it, vi } from 'vitest';
import { CimletError } from '../../src/errors.ts';
import { whyUnwritable } from '../../src/sources/path-rules.ts';
import { isRoot, requireOrSkip } from '../support/requirements.ts';
import { type GitWorld, makeGitWorld, openGitSource } from './git-fixture.ts';
import { NEVER, textsOf } from './support.ts';

afterEach(() => void vi.unstubAllEnvs());

type Entry = [
  mode: '100644' | '100755' | '120000' | '40000' | '160000',
  name: string,
  content: string | Buffer | Entry[],
];

/** Makes a tree as no well-behaved git would, and pushes it past every check. */
function pushTree({ git, server }: GitWorld, entries: Entry[]): void {
  const bare = (args: string[], input?: string | Buffer) =>
    git(['-C', server, ...args], { input: input ?? '' });
  const write = (type: string, input: string | Buffer): string =>
    bare(['hash-object', '-t', type, '-w', '--stdin', '--literally'], input);
  const objectOf = ([mode, , content]: Entry): string => {
    if (mode === '160000') return String(content);
    return Array.isArray(content) ? treeOf(content) : write('blob', content);
  };
  const treeOf = (children: Entry[]): string =>
    write(
      'tree',
      Buffer.concat(
        children.flatMap((entry) => [
          Buffer.from(`${entry[0]} `),
          Buffer.from(entry[1], 'latin1'),
          Buffer.from([0]),
          Buffer.from(objectOf(entry), 'hex'),
        ]),
      ),
    );
  const commit = bare(['commit-tree', treeOf(entries), '-m', 'x']);
  bare(['update-ref', 'refs/heads/main', commit]);
}

/** Everything below a folder, and what it is. */
function writtenBelow(folder: string): Record<string, string> {
  const entries = readdirSync(folder, { recursive: true, withFileTypes: true });
  return Object.fromEntries(
    entries
      .filter((entry) => !entry.isDirectory())
      .map((entry) => {
        const path = join(entry.parentPath, entry.name);
        return [relative(folder, path), entry.isFile() ? readFileSync(path, 'utf8') : 'no file'];
      }),
  );
}

it('makes links to files of the repository into files, and follows none out of it', async () => {
  const world = makeGitWorld();
  writeFileSync(join(world.world, 'outside.yaml'), 'outside');
  pushTree(world, [
    ['120000', 'absolute.yaml', join(world.world, 'outside.yaml')],
    ['120000', 'circle.yaml', 'circle.yaml'],
    ['120000', 'dangling.yaml', 'nowhere.yaml'],
    [
      '40000',
      'deep',
      [
        ['120000', 'copy.yaml', '../real.yaml'],
        ['120000', 'out.yaml', '../../../../../../../../etc/passwd'],
        ['120000', 'twice.yaml', 'copy.yaml'],
      ],
    ],
    ['120000', 'folder', 'deep'],
    ['120000', 'parent', '..'],
    ['100644', 'real.yaml', 'real'],
  ]);
  const revision = await openGitSource(world.world, { url: world.server }).sync(NEVER);
  expect(writtenBelow(revision.directory)).toEqual({
    'deep/copy.yaml': 'real',
    'deep/twice.yaml': 'real',
    'real.yaml': 'real',
  });
  expect(revision.warnings.join('\n')).toMatch(
    /absolute\.yaml is left out: it is a link out of the repository/,
  );
  expect(revision.warnings.join('\n')).toMatch(/circle\.yaml is left out: it is a link to links without end/);
  expect(revision.warnings.join('\n')).toMatch(
    /dangling\.yaml is left out: it is a link to a folder or to nothing/,
  );
  expect(revision.warnings.join('\n')).toMatch(
    /deep\/out\.yaml is left out: it is a link out of the repository/,
  );
  expect(revision.warnings.join('\n')).toMatch(/folder is left out: it is a link to a folder or to nothing/);
  expect(lstatSync(join(revision.directory, 'deep/copy.yaml')).isFile()).toBe(true);
});

it('writes a link to a file that is outside of the path it fetches', async () => {
  const world = makeGitWorld();
  pushTree(world, [
    ['40000', 'base', [['100644', 'a.yaml', 'base']]],
    ['40000', 'fleet', [['120000', 'a.yaml', '../base/a.yaml']]],
  ]);
  const revision = await openGitSource(world.world, { url: world.server, path: 'fleet' }).sync(NEVER);
  expect(textsOf(revision)).toEqual({ 'a.yaml': 'base' });
});

it('writes nothing outside its folder, whatever names a tree has', async () => {
  const world = makeGitWorld();
  pushTree(world, [
    ['40000', '..', [['100644', 'escaped.yaml', 'x']]],
    ['40000', '.git', [['100644', 'config', 'x']]],
    ['100644', '.. ', 'x'],
    ['100644', '..\\escaped.yaml', 'x'],
    ['100644', 'C:escaped.yaml', 'x'],
    ['40000', 'GIT~1', [['100644', 'hooks', 'x']]],
    ['100644', 'aux.yaml', 'x'],
    ['100644', 'good.yaml', 'good'],
    ['100644', 'Good.yaml', 'the same on Windows'],
    ['100644', 'not\xffutf8.yaml', 'x'],
  ]);
  const revision = await openGitSource(world.world, { url: world.server }).sync(NEVER);
  expect(writtenBelow(revision.directory)).toEqual({ 'good.yaml': 'good' });
  expect(revision.warnings).toHaveLength(9);
  expect(readdirSync(join(world.world, 'cache/revisions'))).toHaveLength(1);
});

it('has one of paths that are the same on Windows', async () => {
  const world = makeGitWorld();
  pushTree(world, [
    ['100644', 'App', 'a file'],
    ['40000', 'Fleet', [['100644', 'a.yaml', 'first']]],
    ['40000', 'app', [['100644', 'a.yaml', 'below a folder with the name of a file']]],
    ['40000', 'fleet', [['100644', 'b.yaml', 'in a folder spelled otherwise']]],
  ]);
  const revision = await openGitSource(world.world, { url: world.server }).sync(NEVER);
  expect(writtenBelow(revision.directory)).toEqual({ App: 'a file', 'Fleet/a.yaml': 'first' });
  expect(revision.warnings).toHaveLength(2);
});

it('writes nothing outside its folder and stays on its feet, whatever a tree is made of', async () => {
  const name = fc.oneof(
    fc.constantFrom(
      '..',
      '.',
      '.git',
      'a',
      'A',
      'a.yaml',
      'b.yaml',
      'c',
      '../x.yaml',
      '/x.yaml',
      'a\\\\b',
      'con',
    ),
    fc.stringMatching(/^[a-z.~:-]{1,6}$/),
  );
  const target = fc.constantFrom(
    '..',
    '../..',
    'a.yaml',
    'c/a.yaml',
    '/etc/passwd',
    '../../../../etc/passwd',
    '',
  );
  const { entries } = fc.letrec<{ entries: Entry[] }>((tie) => ({
    entries: fc.array(
      fc.oneof(
        { depthSize: 'small' },
        fc.tuple(fc.constantFrom('100644', '100755'), name, fc.constantFrom('text', '')),
        fc.tuple(fc.constant('120000'), name, target),
        fc.tuple(fc.constant('40000'), name, tie('entries')),
      ) as fc.Arbitrary<Entry>,
      { maxLength: 5, depthIdentifier: 'tree' },
    ),
  }));
  await fc.assert(
    fc.asyncProperty(entries, async (tree) => {
      const world = makeGitWorld();
      pushTree(world, tree);
      const outcome = await openGitSource(world.world, { url: world.server })
        .sync(NEVER)
        .catch((error: unknown) => error);
      if (outcome instanceof Error) expect(outcome).toBeInstanceOf(CimletError);
      expect(readdirSync(world.world).sort()).toEqual(['cache', 'server.git', 'work']);
      const revisions = join(world.world, 'cache/revisions');
      const kept = existsSync(revisions)
        ? readdirSync(revisions, { recursive: true, withFileTypes: true })
        : [];
      expect(kept.filter((entry) => !entry.isFile() && !entry.isDirectory())).toEqual([]);
      expect(
        kept.filter(
          (entry) =>
            entry.isFile() && readFileSync(join(entry.parentPath, entry.name), 'utf8').includes('root:'),
        ),
      ).toEqual([]);
    }),
    { numRuns: 12 },
  );
});

it('lets no path through that leads out, or that Windows would read as another', () => {
  const name = fc.oneof(
    fc.constantFrom(
      '..',
      '.',
      '',
      '.git',
      '.GIT',
      'git~1',
      'con',
      'NUL.txt',
      'a:b',
      'a\\b',
      'x.',
      'x ',
      'ok',
      'ok.yaml',
    ),
    fc.string({ unit: 'binary', maxLength: 8 }),
  );
  fc.assert(
    fc.property(fc.array(name, { minLength: 1, maxLength: 4 }), (names) => {
      const path = names.join('/');
      fc.pre(whyUnwritable(path) === undefined);
      expect(relative('/root', join('/root', path))).toBe(path);
      expect(path).not.toMatch(/[<>:"|?*\\]|\p{Cc}|[. ](\/|$)|(^|\/)\.git(\/|$)/iu);
    }),
  );
});

it('writes the bytes that were committed: no attribute, filter or line end changes them', async () => {
  const world = makeGitWorld();
  pushTree(world, [
    [
      '100644',
      '.gitattributes',
      '*.yaml text eol=crlf ident filter=evil working-tree-encoding=UTF-16\n* export-ignore\n',
    ],
    [
      '100644',
      '.gitmodules',
      `[submodule "x"]\n\tpath = x\n\turl = ext::sh -c 'touch ${world.world}/harmed'\n`,
    ],
    ['100755', 'a.yaml', '$Id$\nline\n'],
    ['160000', 'x', '0123456789012345678901234567890123456789'],
  ]);
  const revision = await openGitSource(world.world, { url: world.server }).sync(NEVER);
  expect(textsOf(revision)).toEqual({ 'a.yaml': '$Id$\nline\n' });
  expect(lstatSync(join(revision.directory, 'a.yaml')).mode & 0o111).toBe(0);
  expect(revision.warnings).toEqual(["x is left out: submodules aren't fetched"]);
  expect(existsSync(join(world.world, 'harmed'))).toBe(false);
});

it('takes nothing from the configuration and environment that git finds on this machine', async () => {
  const world = makeGitWorld();
  world.push({ 'a.yaml': 'right' });
  const harm = `touch ${join(world.world, 'harmed')}`;
  const home = join(world.world, 'home');
  mkdirSync(join(home, 'hooks'), { recursive: true });
  for (const hook of ['post-checkout', 'reference-transaction', 'post-index-change']) {
    writeFileSync(join(home, 'hooks', hook), `#!/bin/sh\n${harm}\n`, { mode: 0o755 });
  }
  const config = [
    `[url "file://${home}/nowhere"]\n\tinsteadOf = file://`,
    `[core]\n\thooksPath = ${home}/hooks\n\tsshCommand = "${harm}"\n\tfsmonitor = "${harm}"\n\tattributesFile = x`,
    `[credential]\n\thelper = "!${harm}"`,
    `[init]\n\ttemplateDir = ${home}`,
    `[uploadpack]\n\tpackObjectsHook = "${harm}"`,
  ].join('\n');
  writeFileSync(join(home, '.gitconfig'), config);
  vi.stubEnv('HOME', home);
  vi.stubEnv('XDG_CONFIG_HOME', home);
  vi.stubEnv('GIT_CONFIG_GLOBAL', join(home, '.gitconfig'));
  vi.stubEnv('GIT_CONFIG_SYSTEM', join(home, '.gitconfig'));
  vi.stubEnv('GIT_CONFIG_COUNT', '1');
  vi.stubEnv('GIT_CONFIG_KEY_0', 'core.hooksPath');
  vi.stubEnv('GIT_CONFIG_VALUE_0', join(home, 'hooks'));
  vi.stubEnv('GIT_DIR', home);
  vi.stubEnv('GIT_TEMPLATE_DIR', home);
  vi.stubEnv('GIT_EXEC_PATH', home);
  const revision = await openGitSource(world.world, { url: world.server }).sync(NEVER);
  expect(textsOf(revision)).toEqual({ 'a.yaml': 'right' });
  expect(existsSync(join(world.world, 'harmed'))).toBe(false);
});

it('does not take the folder around its cache for the repository', async () => {
  const world = makeGitWorld();
  world.push({ 'a.yaml': 'right' });
  world.git(['init', '--quiet', world.world]);
  world.git(['-C', world.world, 'config', `url.file:///nowhere.insteadOf`, 'file://']);
  const revision = await openGitSource(world.world, { url: world.server }).sync(NEVER);
  expect(textsOf(revision)).toEqual({ 'a.yaml': 'right' });
});

it('says that this machine has no git', async () => {
  const { world, server } = makeGitWorld();
  vi.stubEnv('PATH', join(world, 'nothing-here'));
  await expect(openGitSource(world, { url: server }).sync(NEVER)).rejects.toMatchObject({
    code: 'unsupported-host',
    hint: expect.stringContaining('install git'),
  });
});

it('looks for git where it is told to first', async () => {
  const { world, server, push } = makeGitWorld();
  push({ 'a.yaml': 'here' });
  vi.stubEnv('CIMLET_GIT_PATH', process.env.PATH);
  vi.stubEnv('PATH', join(world, 'nothing-here'));
  expect(textsOf(await openGitSource(world, { url: server }).sync(NEVER))).toEqual({ 'a.yaml': 'here' });
});

it('says that git was killed', async () => {
  const { world, server } = makeGitWorld();
  mkdirSync(join(world, 'bin'));
  writeFileSync(join(world, 'bin/git'), '#!/bin/sh\nkill -9 $$\n', { mode: 0o755 });
  vi.stubEnv('PATH', join(world, 'bin'));
  await expect(openGitSource(world, { url: server }).sync(NEVER)).rejects.toMatchObject({
    code: 'unavailable',
    message: expect.stringContaining('git was killed (SIGKILL)'),
  });
});

it.runIf(requireOrSkip('root', isRoot))('runs nothing in a repository of another user', async () => {
  const { world, server, push } = makeGitWorld();
  push({ 'a.yaml': '' });
  execFileSync('chown', ['-R', '65534', server]);
  await expect(openGitSource(world, { url: server }).sync(NEVER)).rejects.toMatchObject({
    code: 'access-denied',
    hint: expect.stringContaining('must belong to the user'),
  });
});

it.each(['../outside', '/etc', 'a/../../b'])('refuses the path %s', (path) => {
  const { world, server } = makeGitWorld();
  expect(() => openGitSource(world, { url: server, path })).toThrow(
    expect.objectContaining({ code: 'invalid-manifest' }),
  );
});
