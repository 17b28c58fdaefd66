import { execFileSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { makeExampleImage } from '../../examples/image.ts';
import { NODES, runCimlet } from './run-cimlet.ts';

const REPOSITORY = resolve(import.meta.dirname, '../..');
const PACKED = [
  'package.json',
  'tsconfig.json',
  'tsconfig.build.json',
  'src',
  'bin',
  'schemas',
  'docs',
  'examples',
  'deploy',
  'LICENSE',
];

let work: string;
let installed: string;

// The package is built in a copy: a dist folder in the checkout would shadow the sources of every other test.
beforeAll(() => {
  work = mkdtempSync(join(tmpdir(), 'cimlet-package-'));
  const copy = join(work, 'checkout');
  mkdirSync(copy);
  for (const name of PACKED) {
    if (existsSync(join(REPOSITORY, name)))
      cpSync(join(REPOSITORY, name), join(copy, name), { recursive: true });
  }
  symlinkSync(join(REPOSITORY, 'node_modules'), join(copy, 'node_modules'));
  execFileSync('npm', ['pack', '--offline', '--silent'], { cwd: copy, stdio: 'pipe' });
  const tarball = readdirSync(copy).find((name) => name.endsWith('.tgz'));
  installed = join(work, 'node_modules', 'cimlet');
  mkdirSync(installed, { recursive: true });
  execFileSync('tar', ['-xzf', join(copy, tarball!), '-C', installed, '--strip-components=1']);
  symlinkSync(join(REPOSITORY, 'node_modules'), join(installed, 'node_modules'));
}, 300_000);

afterAll(() => rmSync(work, { recursive: true, force: true }));

test('the package holds emitted JavaScript and schemas, no sources', () => {
  const names = readdirSync(installed);
  expect(names).toEqual(expect.arrayContaining(['bin', 'deploy', 'dist', 'schemas', 'LICENSE']));
  expect(names).not.toContain('src');
  // Not the image that the demo may have left there, nor what makes it: that needs the sources.
  expect(readdirSync(join(installed, 'examples'))).toEqual(['fleet', 'manifests']);
});

// Every other test's programs take their modules from an archive (support/modules).
test.each(Object.entries(NODES))('sources run as they are, on %s', async (_name, node) => {
  expect(await runCimlet(['--version'], { node, env: { NODE_OPTIONS: '' } })).toEqual({
    code: 0,
    stdout: 'cimlet 0.1.0\n',
    stderr: '',
  });
});

describe.each(Object.entries(NODES))('installed, on %s', (_name, node) => {
  const run = (args: string[]) =>
    runCimlet(args, { node, launcher: join(installed, 'bin/cimlet.cjs'), cwd: work });

  test('prints its version, and nothing else', async () => {
    expect(await run(['--version'])).toEqual({ code: 0, stdout: 'cimlet 0.1.0\n', stderr: '' });
  });

  test('validates manifests with the packaged schemas', async () => {
    const file = join(work, 'image.yaml');
    writeFileSync(
      file,
      'apiVersion: cimlet.dev/v1alpha1\nkind: Image\nmetadata: {name: app}\nspec: {source: {ociLayout: ./app}}\n',
    );
    expect(await run(['validate', '-f', file])).toEqual({
      code: 0,
      stdout: 'Valid: 1 resource in 1 file.\n',
      stderr: '',
    });
  });

  test('applies an image: the worker runs from emitted JavaScript too', async () => {
    await makeExampleImage(join(work, 'images'));
    const root = join(work, 'applied');
    const file = join(work, 'app.yaml');
    writeFileSync(
      file,
      `apiVersion: cimlet.dev/v1alpha1
kind: Image
metadata: { name: app }
spec: { source: { ociLayout: ./images/hello } }
---
apiVersion: cimlet.dev/v1alpha1
kind: Mount
metadata: { name: view }
spec: { image: app, path: ${join(work, 'view')}, view: Extracted }
`,
    );
    expect(await run(['apply', '-f', file, '--root', root])).toMatchObject({ code: 0, stderr: '' });
    expect(existsSync(join(work, 'view/Windows/win.ini'))).toBe(true);
    expect(await run(['delete', '-f', file, '--root', root])).toMatchObject({ code: 0, stderr: '' });
  });

  test('doctor looks at the host', async () => {
    const { code, stdout, stderr } = await run(['doctor', '-o', 'json', '--root', join(work, 'root')]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(JSON.parse(stdout).works).toBe(true);
    expect(existsSync(join(work, 'root'))).toBe(false);
  });
});
