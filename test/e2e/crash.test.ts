/** The real program killed anywhere: the plan in between explains and writes nothing, the next run finishes the work. */

import { spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, unlinkSync, watch } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { createEmbeddedHost } from '../../src/hosts/embedded/embedded-host.ts';
import { layerItems } from '../support/host-layers.ts';
import { mountsBelow } from '../support/mounts.ts';
import { COMPILE_CACHE } from '../support/program.ts';
import { isRoot, requireOrSkip } from '../support/requirements.ts';
import { BASE, fingerprint, PATCH, World } from './world.ts';

const MAIN = join(import.meta.dirname, '../../src/main.ts');
const DIRECTORIES = ['', 'cim-layers', 'snapshots', 'views', 'mounts', 'extracted'];
const NOISE = randomBytes(4_000_000).toString('latin1');
const TOP = [...PATCH, ...layerItems({ noise: NOISE }).slice(1)];

const capabilities = await createEmbeddedHost({ root: '/nowhere' }).capabilities();
const kernel = requireOrSkip('root and kernel EROFS mounts', isRoot && capabilities['view.Kernel'].available);

/** Said in the names of the tests; CIMLET_TEST_SEED repeats a run. */
const SEED = process.env.CIMLET_TEST_SEED ?? randomBytes(4).toString('hex');

function choose(what: string, most: number): number {
  return 1 + (createHash('sha256').update(`${SEED} ${what}`).digest().readUInt32LE(0) % most);
}

/** CIMLET_CRASH_ROUNDS multiplies the points in time that are tried. */
function rounds(usual: number): number[] {
  return Array.from({ length: usual * Number(process.env.CIMLET_CRASH_ROUNDS ?? 1) }, (_, index) => index);
}

/** When to kill: at the first file name in the root, or line of output, that matches; or at the nth change of a file. */
type Moment = { file: RegExp } | { output: RegExp } | { change: number };

/** Runs the program and kills it at the moment; false when that didn't come. */
async function runAndKill(world: World, args: readonly string[], moment: Moment): Promise<boolean> {
  for (const name of DIRECTORIES) mkdirSync(join(world.root, name), { recursive: true });
  const child = spawn(process.execPath, [MAIN, ...args, '--root', world.root], {
    stdio: ['ignore', 'pipe', 'ignore'],
    env: { ...process.env, NODE_COMPILE_CACHE: COMPILE_CACHE },
  });
  let changes = 0;
  const kill = () => child.kill('SIGKILL');
  const watchers = DIRECTORIES.map((directory) =>
    watch(join(world.root, directory), (_event, name) => {
      changes++;
      if ('change' in moment && changes >= moment.change) kill();
      if ('file' in moment && moment.file.test(`${directory}/${name}`)) kill();
    }),
  );
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    if ('output' in moment && moment.output.test(text)) kill();
  });
  await once(child, 'close');
  for (const watcher of watchers) watcher.close();
  return child.signalCode === 'SIGKILL';
}

async function ready(): Promise<World> {
  const world = new World();
  await world.image('app', [BASE, TOP], { compression: 'none' });
  world.app();
  return world;
}

/** Loop devices over files of this place. */
function loopDevices(world: World): string[] {
  return readdirSync('/sys/block').filter((name) => {
    const file = `/sys/block/${name}/loop/backing_file`;
    return existsSync(file) && readFileSync(file, 'utf8').includes(world.directory);
  });
}

async function expectPlanWritesNothing(world: World, explanation = /./): Promise<void> {
  const before = fingerprint(world.directory);
  const { stdout } = await world.run(['plan', '-f', world.manifest]);
  expect(fingerprint(world.directory)).toEqual(before);
  expect(stdout).toMatch(explanation);
}

async function expectConvergence(
  world: World,
  { mountPoint = world.mountPoint, explanation = /./ } = {},
): Promise<void> {
  await expectPlanWritesNothing(world, explanation);
  await world.apply();
  const plan = await world.plan(0, '--detailed-exitcode');
  expect([plan.actions, plan.blocked, plan.notes]).toEqual([[], [], []]);
  expect(readFileSync(join(mountPoint, 'noise'), 'utf8')).toBe(NOISE);
  expect(readdirSync(join(mountPoint, 'dir')).sort()).toEqual(['b.txt', 'c.txt']);
  expect(mountsBelow(world.directory)).toEqual([mountPoint]);
  expect(loopDevices(world).length).toBeLessThanOrEqual(1);
}

async function expectDeletion(world: World): Promise<void> {
  await world.run(['delete', '-f', world.manifest, '--yes']);
  expect(mountsBelow(world.directory)).toEqual([]);
  expect(loopDevices(world)).toEqual([]);
  expect(existsSync(world.mountPoint)).toBe(false);
  const left = DIRECTORIES.slice(1).flatMap((name) => readdirSync(join(world.root, name)));
  expect(left).toEqual([]);
}

const POINTS: [string, Moment, RegExp][] = [
  ['the first layer is begun', { output: /Snapshot\/\w+ started/ }, /./],
  ['a CIM is being written', { file: /^cim-layers\/tmp-/ }, /an earlier run was stopped halfway/],
  ['a layer is unpacked', { file: /^snapshots\/tmp-[0-9a-f]+$/ }, /an earlier run was stopped halfway/],
  ['a layer is committed', { file: /^snapshots\/[0-9a-f]+$/ }, /Mount\/app/],
  ['a view is being built', { file: /^views\/tmp-/ }, /Mount\/app/],
  ['a mount is recorded', { file: /^mounts\/[0-9a-f-]+\.json$/ }, /./],
];

describe.runIf(kernel)('apply killed when', () => {
  test.each(POINTS)('%s', async (_name, moment, explanation) => {
    const world = await ready();
    expect(await runAndKill(world, ['apply', '-f', world.manifest, '--yes'], moment)).toBe(true);
    await expectConvergence(world, { explanation });
  });
});

describe.runIf(kernel)(`killed at any change of a file (seed ${SEED})`, () => {
  test.each(rounds(3).map((round) => choose(`create ${round}`, 60)))('apply, change %i', async (change) => {
    const world = await ready();
    await runAndKill(world, ['apply', '-f', world.manifest, '--yes'], { change });
    await expectConvergence(world);
  });

  test.each(rounds(1).map((round) => choose(`repair ${round}`, 50)))(
    'a repair, change %i',
    async (change) => {
      const world = await ready();
      await world.apply();
      unlinkSync(world.layerFile(0, /\.cim$/));
      unlinkSync(world.layerFile(1, /region_.*_1$/));
      await runAndKill(world, ['apply', '-f', world.manifest, '--yes'], { change });
      await expectConvergence(world);
    },
  );

  test.each(rounds(1).map((round) => choose(`move ${round}`, 50)))(
    'a move with new layers, change %i',
    async (change) => {
      const world = await ready();
      await world.image('app', [PATCH], { compression: 'none' });
      await world.apply();
      await world.image('app', [BASE, TOP], { compression: 'none' });
      world.app({ path: world.path('moved/view') });
      await runAndKill(world, ['apply', '-f', world.manifest, '--yes'], { change });
      await expectConvergence(world, { mountPoint: world.path('moved/view') });
      await expectDeletion(world);
      expect(existsSync(world.path('moved'))).toBe(false);
    },
  );

  test.each(rounds(2).map((round) => choose(`delete ${round}`, 25)))('delete, change %i', async (change) => {
    const world = await ready();
    await world.apply();
    await runAndKill(world, ['delete', '-f', world.manifest, '--yes'], { change });
    await expectPlanWritesNothing(world);
    if (change % 2 === 0) await expectDeletion(world);
    else await expectConvergence(world);
  });

  test.each([choose('cleaning', 6)])('an apply that cleans up after another, change %i', async (change) => {
    const world = await ready();
    await runAndKill(world, ['apply', '-f', world.manifest, '--yes'], { file: /^snapshots\/tmp-/ });
    await runAndKill(world, ['apply', '-f', world.manifest, '--yes'], { change });
    rmSync(join(world.root, 'owner.json'), { force: true });
    await expectConvergence(world);
  });
});
