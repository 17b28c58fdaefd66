/** The commands that README and docs tell people to type, typed. */

import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { makeExampleImage } from '../../examples/image.ts';
import { canRunRegistry, certsD, run, startRegistry } from '../images/registry/registry-fixture.ts';
import { type BackgroundProgram, expectProgram, runProgram, startProgram } from '../support/program.ts';
import { makeTemporaryDirectory } from '../support/stored-blob.ts';

const REPOSITORY = resolve(import.meta.dirname, '../..');

/** Commands about the repository itself; CI runs the first two, and the others take long. */
const NOT_HERE = [
  /^npm ci/,
  /^npm test$/,
  /^npm run (demo|bench|test:windows)\b/,
  /^npm run types:generate/,
  /^npx vitest/,
  /^npm pack/,
];

const documents = [
  'README.md',
  'CONTRIBUTING.md',
  ...readdirSync(join(REPOSITORY, 'docs'), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.md'))
    .map((name) => join('docs', name)),
];

/** Wants the network, for which a registry of this machine stands in. */
const FROM_REGISTRY = /-f examples\/registry\b/;

/** A registry that has the example's image under the name that examples/registry gives it; its certs.d. */
async function mirrorOfMicrosoft(directory: string): Promise<string> {
  const registry = await startRegistry(directory);
  onTestFinished(() => registry.stop());
  const target = `docker://${registry.host}/windows/nanoserver:ltsc2025`;
  const layout = join(REPOSITORY, 'examples/images/hello');
  await run('skopeo', ['copy', '--quiet', '--dest-tls-verify=false', `oci:${layout}`, target]);
  return certsD(directory, { 'mcr.microsoft.com': `server = "http://${registry.host}"\n` });
}

/** Lines of `sh` blocks, without comments. */
function commandsIn(document: string): string[] {
  const text = readFileSync(join(REPOSITORY, document), 'utf8');
  return [...text.matchAll(/```sh\n(.*?)```/gs)]
    .flatMap(([, block = '']) => block.split('\n'))
    .map((line) => line.replace(/\s+#.*$/, '').trim())
    .filter((line) => line !== '' && !line.startsWith('#'));
}

describe('commands in the documents', () => {
  beforeAll(() => makeExampleImage(join(REPOSITORY, 'examples/images')));
  afterAll(() => {
    for (const path of ['/tmp/cimlet-try', '/tmp/cimlet-demo'])
      rmSync(path, { recursive: true, force: true });
  });

  for (const document of documents) {
    const commands = commandsIn(document).filter(
      (line) => ![...NOT_HERE, FROM_REGISTRY].some((pattern) => pattern.test(line)),
    );
    if (commands.length === 0) continue;
    test(`${document}: ${commands.length} commands`, async () => {
      let inBackground: BackgroundProgram | undefined;
      onTestFinished(async () => {
        await inBackground?.stop();
      });
      for (const command of commands) {
        if (command === 'kill %1') {
          expect(await inBackground?.stop(), command).toBe(0);
          continue;
        }
        const args = /^(?:npm start --|cimlet) (.*)$/.exec(command)?.[1]?.split(' ');
        expect(args, `${document} has a command this test doesn't know: ${command}`).toBeDefined();
        if (args?.at(-1) === '&') {
          inBackground = await startProgram(args.slice(0, -1), { cwd: REPOSITORY });
          continue;
        }
        const { code, stdout, stderr } = await runProgram(args ?? [], { cwd: REPOSITORY });
        expect(code, `${command}\n${stdout}\n${stderr}`).toBe(0);
      }
    });
  }

  test.runIf(canRunRegistry)('commands that pull from a registry', async () => {
    const directory = makeTemporaryDirectory();
    const env = { CIMLET_REGISTRY_CONFIG: await mirrorOfMicrosoft(directory), CIMLET_ROOT: directory };
    const commands = documents.flatMap(commandsIn).filter((line) => FROM_REGISTRY.test(line));
    expect(commands).not.toEqual([]);
    for (const command of commands) {
      const args = command
        .replace('npm start -- ', '')
        .replace(/ --root \S+/, '')
        .split(' ');
      await expectProgram(args, 0, { cwd: REPOSITORY, env });
    }
  });

  test('npm scripts that the documents name exist', () => {
    const { scripts } = JSON.parse(readFileSync(join(REPOSITORY, 'package.json'), 'utf8')) as {
      scripts: Record<string, string>;
    };
    const named = documents.flatMap((document) =>
      [...readFileSync(join(REPOSITORY, document), 'utf8').matchAll(/npm run ([a-z0-9:]+)/g)].map(
        ([, name]) => name,
      ),
    );
    expect(named.filter((name) => name === undefined || !(name in scripts))).toEqual([]);
  });

  test('links between documents lead somewhere', () => {
    const broken = documents.flatMap((document) => {
      const directory = join(REPOSITORY, document, '..');
      const links = readFileSync(join(REPOSITORY, document), 'utf8').matchAll(/\]\((?!https?:)([^)#]+)/g);
      return [...links].map(([, link = '']) => join(directory, link)).filter((path) => !existsSync(path));
    });
    expect(broken).toEqual([]);
  });
});
