/** The whole program as a Windows process: from manifests to mounted, killed, restarted, drifted, deleted. */

import { mkdir, mkdtemp, readdir, readFile, realpath, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { makeExampleImage } from '../../examples/image.ts';
import { takeSteps } from '../native/doubles/steps.ts';
import { expectProgram } from '../support/program.ts';
import { readTree } from '../support/tree.ts';
import {
  openWindowsWorld,
  type ProcessResult,
  runWindowsProcess,
  type WindowsWorld,
} from '../support/windows.ts';
import { canRunWindows } from '../support/windows-tools.ts';

const REPOSITORY = join(import.meta.dirname, '../..');
const MAIN = join(REPOSITORY, 'src/main.ts');
/** The examples that don't extract. */
const EXAMPLES = ['hello.yaml', 'verified.yaml'];

function cimlet(world: WindowsWorld, ...args: string[]): Promise<ProcessResult> {
  const common = ['--host', 'windows', '--root', 'C:\\cimlet'];
  return runWindowsProcess(world, { script: MAIN, args: [...args, ...common] });
}

async function expectCimlet(world: WindowsWorld, code: number, ...args: string[]): Promise<string> {
  const result = await cimlet(world, ...args);
  expect(result.code, `${args.join(' ')}\n${result.stdout}\n${result.stderr}`).toBe(code);
  return result.stdout;
}

async function copyExamples(from: string, to: string, mountsAt: string): Promise<void> {
  await mkdir(to);
  for (const name of EXAMPLES) {
    const text = await readFile(join(from, name), 'utf8');
    await writeFile(join(to, name), text.replaceAll('/tmp/cimlet-demo', mountsAt));
  }
}

/** What the embedded host shows of the same manifests: another writer, another view, one content. */
async function witnessOf(images: string): Promise<{ [mount: string]: string[] }> {
  const directory = await mkdtemp(join(tmpdir(), 'cimlet-witness-'));
  onTestFinished(() => rm(directory, { recursive: true, force: true }));
  const manifests = join(directory, 'manifests');
  await copyExamples(join(REPOSITORY, 'examples/manifests'), manifests, join(directory, 'views'));
  for (const name of EXAMPLES) {
    const text = await readFile(join(manifests, name), 'utf8');
    const extracted = text
      .replace(/\n {2}path:/g, '\n  view: Extracted\n  path:')
      .replaceAll('../images', images);
    await writeFile(join(manifests, name), extracted);
  }
  await expectProgram(['apply', '-f', manifests, '--root', join(directory, 'root'), '--yes']);
  return {
    hello: contentsOf(await realpath(join(directory, 'views/hello'))),
    verified: contentsOf(await realpath(join(directory, 'views/verified'))),
  };
}

/** Names and contents. Times aren't what Wine shows of a volume, nor links: the doubles leave an empty file for each. */
function contentsOf(root: string): string[] {
  return [...readTree(root)]
    .filter(([, { type, size }]) => type === 'directory' || (type === 'file' && size !== 0))
    .map(([path, { type, sha256 = '' }]) => `${path} ${type} ${sha256}`)
    .sort();
}

describe.runIf(canRunWindows())('cimlet as a Windows process', () => {
  it('goes from manifests to mounted, over a kill and drift, and back to nothing', async () => {
    const world = await openWindowsWorld();
    onTestFinished(() => world.close());
    const volumes = async () =>
      (await readdir(join(world.drive, '../dosdevices'))).filter((name) => name.startsWith('volume'));
    const shown = async (name: string) => contentsOf(await realpath(join(world.drive, 'views', name)));
    await makeExampleImage(join(world.drive, 'demo/images'));
    const witness = await witnessOf(join(world.drive, 'demo/images'));
    const manifests = join(world.drive, 'demo/manifests');
    await copyExamples(join(REPOSITORY, 'examples/manifests'), manifests, 'C:/views');
    const files = ['-f', 'C:\\demo\\manifests'];

    await world.plan([{ call: 'CimMergeMountVerifiedImage', action: 'kill-after' }]);
    await expectCimlet(world, 137, 'apply', ...files, '--yes');
    await expectCimlet(world, 0, 'apply', ...files, '--yes');
    expect({ hello: await shown('hello'), verified: await shown('verified') }).toEqual(witness);
    expect(await volumes()).toHaveLength(2);

    const [volume = ''] = (await world.calls())
      .filter(({ call }) => call === 'CimMountImage')
      .map(({ args }) => String(args.volume).slice(1, -1))
      .slice(-1);
    const away = await takeSteps(world, [
      ['bindfltapi', 'BfRemoveMapping', 'none', 'C:\\views\\hello'],
      ['cimfs', 'CimDismountImage', volume],
    ]);
    expect(away).toEqual([['0x00000000'], ['0x00000000']]);
    expect(await expectCimlet(world, 2, 'plan', ...files, '--detailed-exitcode')).toContain('Mount/hello');
    await expectCimlet(world, 0, 'apply', ...files, '--yes');
    expect(await shown('hello')).toEqual(witness.hello);

    await expectCimlet(world, 0, 'delete', ...files, '--yes');
    expect(await volumes()).toEqual([]);
    expect(await readdir(join(world.drive, 'cimlet/cim-layers'))).toEqual([]);
    expect(await readdir(join(world.drive, 'cimlet/snapshots'))).toEqual([]);
    expect(await readdir(join(world.drive, 'doubles/bindings'))).toEqual([]);
  }, 300_000);
});
