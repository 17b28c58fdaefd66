/** The real program as a process: exit codes, streams, and a whole life of an image on a root. */

import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { makeExampleImage } from '../../examples/image.ts';
import type { HostState } from '../../src/hosts/host.ts';
import { checkDocument } from '../../src/manifests/validate.ts';
import type { Plan } from '../../src/reconciler/types.ts';
import { type RunOptions, runCimlet } from './run-cimlet.ts';

let work: string;
let root: string;
let manifests: string;

beforeAll(async () => {
  work = realpathSync(mkdtempSync(join(tmpdir(), 'cimlet-cli-')));
  root = join(work, 'root');
  manifests = join(work, 'manifests');
  mkdirSync(manifests);
  await makeExampleImage(join(work, 'images'));
  writeFileSync(join(manifests, 'app.yaml'), manifestOf('copy'));
});

afterAll(async () => {
  await run(['delete', 'mount/copy', 'chain/app', 'image/app', '--yes']);
  rmSync(work, { recursive: true, force: true });
});

function manifestOf(mountDirectory: string): string {
  return `apiVersion: cimlet.dev/v1alpha1
kind: Image
metadata: { name: app }
spec: { source: { ociLayout: ../images/hello }, platform: { os: windows, architecture: amd64 } }
---
apiVersion: cimlet.dev/v1alpha1
kind: LayerChain
metadata: { name: app }
spec: { format: ForkedCIM, layers: [{ image: app }] }
---
apiVersion: cimlet.dev/v1alpha1
kind: Mount
metadata: { name: copy }
spec: { chain: app, path: ${join(work, mountDirectory)}, view: Extracted }
`;
}

const run = (args: string[], options?: RunOptions) =>
  runCimlet(args, { ...options, env: { CIMLET_ROOT: root, ...options?.env } });

/** Every file of the root with its digest, and its mtime. */
function fingerprint(directory: string): string[] {
  return readdirSync(directory, { recursive: true, encoding: 'utf8' })
    .sort()
    .map((name) => {
      const path = join(directory, name);
      const stat = statSync(path);
      const content = stat.isFile() ? createHash('sha256').update(readFileSync(path)).digest('hex') : '';
      return `${name} ${stat.mtimeMs} ${content}`;
    });
}

describe('usage', () => {
  test('no arguments: help on standard output', async () => {
    const { code, stdout, stderr } = await run([]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toContain('Usage: cimlet [options] [command]');
  });

  test.each<[string[], string]>([
    [
      ['plan', 'manifests.yaml'],
      "error: too many arguments for 'plan'. Expected 0 arguments but got 1.\nhint: manifests are named with -f, for example: cimlet plan -f manifests/\n",
    ],
    [
      ['wait', 'mount/app', '--timeout', '2x'],
      "error: option '--timeout <duration>' argument '2x' is invalid. Name a duration such as 24h or 30m.\n",
    ],
    [
      ['snapshot', 'prepare', 'work', '--size', '2GB'],
      "error: option '--size <size>' argument '2GB' is invalid. Name a size such as 512Mi or 20Gi.\n",
    ],
    [
      ['image', 'load', '-i', '/nowhere/image.tar'],
      'error: open image /nowhere/image.tar: there is no such file or directory\nhint: a path in a manifest starts at its folder, one on the command line at the working folder\n',
    ],
  ])('a slip is told with what to write instead: %j', async (args, stderr) => {
    expect(await run([...args, '--root', join(work, 'slips')])).toEqual({ code: 1, stdout: '', stderr });
  });

  test('a root that is a file is told as what it is, by whatever command', async () => {
    const file = join(work, 'file');
    writeFileSync(file, '');
    for (const args of [
      ['get', 'all'],
      ['plan', '-f', manifests],
      ['apply', '-f', manifests, '--yes'],
    ])
      expect(await run([...args, '--root', file])).toEqual({
        code: 1,
        stdout: '',
        stderr: `error: root ${file} is no directory\nhint: name another one with --root or CIMLET_ROOT\n`,
      });
  });

  test.each<[string[], string]>([
    [['plna'], "error: unknown command 'plna'\n(Did you mean plan?)\n"],
    [['plan', '--filenam', 'x'], "error: unknown option '--filenam'\n(Did you mean --filename?)\n"],
    [
      ['plan'],
      'error: plan: no manifests named\nhint: name a file or a folder with -f, for example: cimlet plan -f manifests/\n',
    ],
    [
      ['doctor', '--host', 'windows'],
      'error: the windows host runs on Windows only\nhint: use --host embedded on Linux\n',
    ],
  ])('%j', async (args, stderr) => {
    expect(await run(args)).toEqual({ code: 1, stdout: '', stderr });
  });

  test('an empty root is not the current directory', async () => {
    for (const result of [
      await run(['get', 'all', '--root', '']),
      await run(['get', 'all'], { env: { CIMLET_ROOT: '' } }),
    ])
      expect(result).toMatchObject({ code: 1, stderr: expect.stringContaining('Name a directory.') });
  });

  test('a plan that knows no host is not saved', async () => {
    const file = join(work, 'offline.json');
    expect((await run(['plan', '-f', manifests, '--offline', '--out', file])).code).toBe(1);
    expect(existsSync(file)).toBe(false);
  });

  test('nothing to show says so, and whether the root is there at all', async () => {
    const absent = join(work, 'absent');
    for (const args of [
      ['describe', 'mounts'],
      ['get', 'all'],
    ]) {
      expect(await run([...args, '--root', work])).toEqual({
        code: 0,
        stdout: '',
        stderr: `Nothing found in ${work}.\n`,
      });
      expect((await run([...args, '--root', absent])).stderr).toBe(
        `Nothing found in ${absent}, which isn't there yet; --root names another.\n`,
      );
    }
  });

  test('a target of no known kind', async () => {
    const { code, stderr } = await run(['plan', '-f', manifests, '--target', 'pod/x']);
    expect(code).toBe(1);
    expect(stderr).toContain('Name a resource as image/NAME');
  });

  test('an error of plan --exit-code is 2, for 1 means differences', async () => {
    expect((await run(['plan', '--exit-code', '-f', join(work, 'nothing')])).code).toBe(2);
    expect((await run(['plan', '--detailed-exitcode', '-f', join(work, 'nothing')])).code).toBe(1);
  });

  test('CIMLET_DEBUG=1 shows where an error came from', async () => {
    const quiet = await run(['plan']);
    const loud = await run(['plan'], { env: { CIMLET_DEBUG: '1' } });
    expect(quiet.stderr).not.toContain('    at ');
    expect(loud.stderr).toContain('    at ');
  });
});

describe('validate', () => {
  test('from standard input, as JSON', async () => {
    const { code, stdout, stderr } = await run(['validate', '-f', '-', '-o', 'json'], {
      input: manifestOf('copy'),
    });
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(JSON.parse(stdout)).toMatchObject({ valid: true, problems: [], resources: { length: 3 } });
  });

  test('problems have their place and a suggestion, and stop plan and apply', async () => {
    const input = manifestOf('copy').replace('layers:', 'layer:');
    for (const command of ['validate', 'plan', 'apply', 'delete']) {
      const { code, stderr } = await run([command, '-f', '-'], { input });
      expect(code).toBe(1);
      expect(stderr).toMatch(/^-:\d+:\d+: .*\(did you mean .?layers.?\?\)$/m);
    }
    expect(existsSync(root)).toBe(false);
  });
});

test('offline: planned from files alone', async () => {
  const { code, stdout } = await run(['plan', '--offline', '-f', manifests, '-o', 'json']);
  expect(code).toBe(0);
  const plan = JSON.parse(stdout) as Plan;
  expect(plan.host.kind).toBe('offline');
  expect(checkDocument('plan', plan)).toEqual([]);
});

describe('the life of an image', () => {
  test('plan shows it and writes nothing', async () => {
    const fresh = join(work, 'fresh');
    const plan = await run(['plan', '-f', manifests, '--root', fresh]);
    expect(plan).toMatchObject({ code: 0, stderr: '' });
    expect(plan.stdout).toMatch(/\nPlan: 5 to create \(.* to unpack\)\.\n$/);
    expect(existsSync(fresh)).toBe(false);
    expect((await run(['plan', '-f', manifests, '--detailed-exitcode', '--root', fresh])).code).toBe(2);
    expect((await run(['plan', '-f', manifests, '--exit-code', '--root', fresh])).code).toBe(1);
  });

  test('apply does it, asking nobody where there is no terminal', async () => {
    const apply = await run(['apply', '-f', manifests]);
    expect(apply).toMatchObject({ code: 0, stderr: '' });
    expect(apply.stdout).toMatch(/\nSnapshot\/[0-9a-f]{12} unpacking 100%\n/);
    expect(apply.stdout).toMatch(/\nApplied: 5 succeeded, 0 failed, 0 skipped in \d+\.\d s\.\n$/);
    expect(readFileSync(join(work, 'copy/Windows/win.ini'), 'utf8')).not.toBe('');
  });

  test('then the plan is empty, and looking writes nothing', async () => {
    const before = fingerprint(root);
    expect(await run(['plan', '-f', manifests, '--detailed-exitcode'])).toEqual({
      code: 0,
      stdout: 'No changes. The host matches the manifests.\n',
      stderr: '',
    });
    for (const args of [['get', 'all'], ['describe', 'mount/copy'], ['events'], ['observe'], ['doctor']]) {
      expect(await run(args)).toMatchObject({ code: 0, stderr: '' });
    }
    expect(fingerprint(root)).toEqual(before);
  });

  test('get and describe', async () => {
    const table = await run(['get', 'mounts']);
    expect(table.stdout).toMatch(
      /^NAME +READY +STATUS +PATH +VIEW +ACCESS +AGE\ncopy +True +\w+ +\/.*copy +Extracted +ReadOnly +\d+s\n$/,
    );
    const wide = await run(['get', 'mounts', '-o', 'wide']);
    expect(wide.stdout).toMatch(/ applied as declared\n$/);
    const { items } = JSON.parse((await run(['get', 'snapshots', '-o', 'json'])).stdout);
    expect(items).toHaveLength(2);
    const described = await run(['describe', 'snapshot', items[0].name.slice(7, 19)]);
    expect(described.stdout).toContain(items[0].name);
    expect((await run(['describe', 'mount/copy', '-o', 'yaml'])).stdout).toContain('kind: Mount');
    expect(await run(['get', 'mount', 'nope'])).toMatchObject({ code: 1, stdout: '' });
  });

  test('events, of all and of one, with what went wrong told apart', async () => {
    const all = await run(['events']);
    expect(all.stdout).toMatch(/^LAST +TYPE +REASON +OBJECT +COUNT +MESSAGE\n/);
    expect(all.stdout).toMatch(/Normal +Created +Mount\/copy +1 /);
    const { items } = JSON.parse((await run(['events', 'mount/copy', '-o', 'json'])).stdout);
    expect(items.map(({ key, reason }: { key: string; reason: string }) => `${key} ${reason}`)).toEqual([
      'Mount/copy Created',
    ]);
    expect(await run(['events', 'mount/copy', '--warnings'])).toEqual({
      code: 0,
      stdout: '',
      stderr: `No events in ${root}.\n`,
    });
  });

  test('an observed state can be planned against elsewhere', async () => {
    const observed = await run(['observe', '-f', manifests, '-o', 'json']);
    const state = JSON.parse(observed.stdout) as HostState;
    expect(state.layers).toHaveLength(2);
    expect(checkDocument('host-state', state)).toEqual([]);
    const file = join(work, 'node.json');
    writeFileSync(file, observed.stdout);
    const elsewhere = join(work, 'elsewhere');
    const plan = await run(['plan', '-f', manifests, '--observed', file, '--root', elsewhere]);
    expect(plan).toMatchObject({ code: 0, stderr: '' });
    expect(existsSync(elsewhere)).toBe(false);
    writeFileSync(file, '{"formatVersion": 1}');
    expect((await run(['plan', '-f', manifests, '--observed', file])).stderr).toMatch(
      /not an observed state: /,
    );
  });

  test('drift is shown apart, and repaired', async () => {
    const layers = join(root, 'cim-layers');
    const region = readdirSync(layers).find((name) => name.startsWith('region_'))!;
    unlinkSync(join(layers, region));
    const data = JSON.parse((await run(['plan', '-f', manifests, '-o', 'json'])).stdout) as Plan;
    expect(checkDocument('plan', data)).toEqual([]);
    expect(data.summary).toMatchObject({ drift: data.actions.length, create: 0 });
    const plan = await run(['plan', '-f', manifests]);
    expect(plan.stdout).toMatch(/^Drift \(the host moved away from what was applied\)\n/);
    expect(plan.stdout).toContain(`${region} is gone`);
    expect((await run(['get', 'chains'])).stdout).toMatch(/app +False +Drifted/);
    expect((await run(['apply', '-f', manifests])).code).toBe(0);
    expect((await run(['plan', '-f', manifests, '--exit-code'])).code).toBe(0);
  });

  test('a saved plan is done exactly, or refused', async () => {
    const file = join(work, 'plan.json');
    writeFileSync(join(manifests, 'app.yaml'), manifestOf('moved'));
    expect((await run(['plan', '-f', manifests, '--out', file])).code).toBe(0);

    writeFileSync(join(manifests, 'app.yaml'), manifestOf('elsewhere'));
    const refused = await run(['apply', file]);
    expect(refused.code).toBe(1);
    expect(refused.stderr).toMatch(/app\.yaml changed/);
    expect(existsSync(join(work, 'copy/Windows'))).toBe(true);

    writeFileSync(join(manifests, 'app.yaml'), manifestOf('moved'));
    // The plan knows its root; another one is refused.
    const other = await run(['apply', file, '--root', join(work, 'other')]);
    expect(other.stderr).toMatch(/it was made for embedded host .*root, not for embedded host .*other/);
    expect(await runCimlet(['apply', file])).toMatchObject({ code: 0, stderr: '' });
    expect(existsSync(join(work, 'moved/Windows'))).toBe(true);
    expect(existsSync(join(work, 'copy/Windows'))).toBe(false);
  });

  test('a file that is no saved plan is refused', async () => {
    const file = join(work, 'no-plan.json');
    for (const content of ['{', '[]', '{"formatVersion":1,"plan":{},"inputs":{}}']) {
      writeFileSync(file, content);
      const { code, stderr } = await run(['apply', file]);
      expect(code).toBe(1);
      expect(stderr).toMatch(/^error: read .*no-plan\.json: not .*\nhint: cimlet plan --out/);
    }
  });

  test('what is blocked is an error, and touches nothing', async () => {
    const foreign = join(work, 'foreign');
    mkdirSync(foreign);
    writeFileSync(join(foreign, 'theirs'), 'x');
    const input = `apiVersion: cimlet.dev/v1alpha1
kind: Mount
metadata: { name: blocked }
spec: { image: app, path: ${foreign}, view: Extracted }
---
${manifestOf('moved').replaceAll('../images', join(work, 'images'))}`;
    const plan = await run(['plan', '-f', '-', '--exit-code'], { input });
    expect(plan.code).toBe(2);
    expect(plan.stdout).toMatch(/x +Mount\/blocked +-:1:1\n/);
    const apply = await run(['apply', '-f', '-', '-o', 'json'], { input });
    expect(apply.code).toBe(1);
    expect(JSON.parse(apply.stdout).plan.blocked).toHaveLength(1);
    expect(readdirSync(foreign)).toEqual(['theirs']);
  });

  test('what is suspended is left alone, which is no error', async () => {
    const suspended = `apiVersion: cimlet.dev/v1alpha1
kind: Mount
metadata: { name: suspended }
spec: { image: app, path: ${join(work, 'suspended')}, suspend: { reason: moving house } }
---
${manifestOf('moved').replaceAll('../images', join(work, 'images'))}`;
    const plan = ['plan', '-f', '-', '--no-prune'];
    const text = await run(plan, { input: suspended });
    expect(text).toMatchObject({ code: 0, stdout: expect.stringContaining('suspended: moving house') });
    for (const flag of ['--detailed-exitcode', '--exit-code']) {
      const { code, stdout } = await run([...plan, flag, '--target', 'mount/suspended'], {
        input: suspended,
      });
      expect([code, stdout.split('\n').at(-2)]).toEqual([0, expect.stringContaining('1 blocked')]);
    }
  });

  describe('cim', () => {
    const images = () => {
      const layers = join(root, 'cim-layers');
      return readdirSync(layers)
        .filter((name) => name.endsWith('.cim'))
        .map((name) => join(layers, name));
    };

    test('ls, stat, cat and tree', async () => {
      const chains = JSON.parse((await run(['get', 'chain', 'app', '-o', 'json'])).stdout);
      const top: string = chains.items[0].status.chain.chainIds.at(-1);
      const file = join(root, 'cim-layers', `${top.slice('sha256:'.length)}.cim`);
      expect((await run(['cim', 'ls', file])).stdout).toMatch(/^Files\/\n/);
      const long = await run(['cim', 'ls', '-l', file, 'files\\WINDOWS']);
      expect(long.stdout).toMatch(/^d[-a-z]{5} +- {2}2026-01-01T00:00:00\.1234567Z {2}System32\/$/m);
      expect((await run(['cim', 'stat', file, 'Files/Windows/win.ini'])).stdout).toMatch(/^Type: +file$/m);
      const shown = await run(['cim', 'cat', file, 'Files/Windows/win.ini']);
      expect(shown.stdout).toBe(readFileSync(join(work, 'moved/Windows/win.ini'), 'utf8'));
      const tree = await run(['cim', 'tree', file]);
      expect(tree.stdout).toMatch(/^\/\n├── Files\/\n│ {3}├── /);
      expect(tree.stdout).toMatch(/\n\d+ directories, \d+ files\n$/);
      expect(await run(['cim', 'cat', file, 'Files/none'])).toMatchObject({ code: 1, stdout: '' });
      expect(await run(['cim', 'cat', file, 'Files'])).toMatchObject({ code: 1, stdout: '' });
    });

    test('inspect and verify, with the offset of each fault', async () => {
      const files = images();
      for (const file of files) {
        expect(await run(['cim', 'verify', file])).toEqual({
          code: 0,
          stdout: `${file}: no faults\n`,
          stderr: '',
        });
        expect(JSON.parse((await run(['cim', 'inspect', file, '-o', 'json'])).stdout)).toMatchObject({
          version: { major: 1, minor: 0 },
        });
      }
      const copy = join(work, 'damaged.cim');
      const bytes = readFileSync(files[0]!);
      bytes.fill(0xff, 0, 8);
      writeFileSync(copy, bytes);
      const verified = await run(['cim', 'verify', copy]);
      expect(verified.code).toBe(1);
      expect(verified.stdout).toMatch(/damaged\.cim: offset 0x[0-9a-f]+: /);
    });
  });

  test('systems that are not supported are named', async () => {
    const as = (platform: string) => {
      const code = `Object.defineProperty(process, 'platform', { value: '${platform}' })`;
      const options = { env: { NODE_OPTIONS: `--import data:text/javascript,${encodeURIComponent(code)}` } };
      return { run: (...args: string[]) => run(args, options) };
    };
    for (const command of ['doctor', 'observe']) {
      const { code, stderr } = await as('darwin').run(command);
      expect({ code, stderr }).toEqual({
        code: 1,
        stderr: expect.stringMatching(
          /^error: macOS is not supported: cimlet works on Windows and Linux\nhint: /,
        ),
      });
    }
    expect((await as('freebsd').run('doctor')).stderr).toMatch(/^error: freebsd is not supported/);
    expect((await as('darwin').run('plan', '-f', manifests, '--offline')).code).toBe(0);
  });

  test('delete has nothing to do where no root is, and makes none', async () => {
    const none = join(work, 'none', 'root');
    const result = await run(['delete', 'mount/copy', '--yes', '--root', none]);
    expect(result.code).toBe(1);
    expect(result.stdout).toContain('There is nothing to delete.');
    expect(result.stderr).toMatch(/^error: delete: Mount\/copy is not on this host\nhint: /);
    expect(await run(['delete', '-f', manifests, '--yes', '--root', none])).toMatchObject({ code: 0 });
    expect(existsSync(join(work, 'none'))).toBe(false);
  });

  test('delete takes everything away', async () => {
    const result = await run(['delete', '-f', manifests, 'mount/blocked', '--yes']);
    expect(result).toMatchObject({ code: 0, stderr: '' });
    expect(result.stdout).toMatch(/\nDeleted: 6 succeeded, 0 failed, 0 skipped in /);
    expect(existsSync(join(work, 'moved'))).toBe(false);
    expect(await run(['delete', '-f', manifests])).toMatchObject({ code: 0 });
    expect(await run(['get', 'all'])).toMatchObject({ code: 0, stdout: '' });
  });
});
