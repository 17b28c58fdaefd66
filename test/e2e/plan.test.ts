/** Plans as files and as promises: saved, made elsewhere, offline, from several places, with exit codes to act on. */

import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, rmSync, unlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { createEmbeddedHost } from '../../src/hosts/embedded/embedded-host.ts';
import { checkDocument } from '../../src/manifests/validate.ts';
import type { Plan, SavedPlan } from '../../src/reconciler/types.ts';
import { layerItems } from '../support/host-layers.ts';
import { expectProgram, runProgram } from '../support/program.ts';
import { isRoot, requireOrSkip } from '../support/requirements.ts';
import { BASE, brief, fingerprint, onlyError, PATCH, World } from './world.ts';

const capabilities = await createEmbeddedHost({ root: '/nowhere' }).capabilities();
const kernel = requireOrSkip('root and kernel EROFS mounts', isRoot && capabilities['view.Kernel'].available);

async function ready(): Promise<World> {
  const world = new World();
  await world.image('app', [BASE, PATCH]);
  world.app();
  return world;
}

describe.runIf(kernel)('a saved plan', () => {
  test('is done exactly, once, and is refused when something moved, naming it', async () => {
    const world = await ready();
    const file = world.path('plan.json');
    await world.run(['plan', '-f', world.manifest, '--out', file]);
    const saved = JSON.parse(readFileSync(file, 'utf8')) as SavedPlan;
    expect(checkDocument('plan', saved.plan)).toEqual([]);

    writeFileSync(world.manifest, `${world.appText()}# a comment\n`);
    const edited = onlyError(await world.run(['apply', file], 1));
    expect(edited.error).toContain(`it no longer fits: ${world.manifest} changed`);
    expect(edited.hint).toMatch(/plan again/);
    world.app();
    await world.image('app', [BASE]);
    expect(onlyError(await world.run(['apply', file], 1)).error).toMatch(/create Image\/app differs/);
    await world.image('app', [BASE, PATCH]);
    const other = onlyError(await expectProgram(['apply', file, '--root', world.path('other')], 1));
    expect(other.error).toMatch(/it was made for embedded host .*root, not for embedded host .*other/);
    expect((await world.observe()).layers).toEqual([]);

    const { stdout } = await world.run(['apply', file, '-o', 'json']);
    const done = JSON.parse(stdout) as { plan: Plan; result: { succeeded: number } };
    expect(done.plan.actions.map(({ id }) => id)).toEqual(saved.plan.actions.map(({ id }) => id));
    expect(done.result.succeeded).toBe(5);
    expect(onlyError(await world.run(['apply', file], 1)).error).toMatch(
      /nothing to create any more for Image\/app/,
    );
    await world.expectEmptyPlan();
  });

  test('of a repair is refused when the host drifted further', async () => {
    const world = await ready();
    await world.apply();
    const file = world.path('plan.json');
    execFileSync('umount', [world.mountPoint]);
    await world.run(['plan', '-f', world.manifest, '--out', file]);
    unlinkSync(world.layerFile(1, /\.cim$/));
    const { error } = onlyError(await world.run(['apply', file], 1));
    expect(error).toMatch(/there is now Snapshot\/\S+ to repair/);
    expect((await world.observe()).mounts[0]?.state).toBe('missing');
  });

  test.each([
    [
      'changed by hand',
      (text: string) => text.replaceAll('"path": "', '"path": "/x'),
      /changed after it was saved|not a saved plan/,
    ],
    ['cut off', (text: string) => text.slice(0, 500), /not JSON/],
    ['of something else', () => '{"a": 1}', /not a saved plan/],
  ])('%s is refused', async (_name, change, message) => {
    const world = await ready();
    const file = world.path('plan.json');
    await world.run(['plan', '-f', world.manifest, '--out', file]);
    writeFileSync(file, change(readFileSync(file, 'utf8')));
    const { error, hint } = onlyError(await world.run(['apply', file], 1));
    expect(error).toMatch(message);
    expect(hint).toMatch(/plan/);
    expect(existsSync(join(world.root, 'cim-layers'))).toBe(false);
  });
});

describe.runIf(kernel)('a plan made elsewhere', () => {
  test('from an observed state gives the same actions, and touches nothing', async () => {
    const world = await ready();
    const node = world.path('node.json');
    const elsewhere = async () => {
      const observed = await world.run(['observe', '-f', world.manifest, '-o', 'json']);
      expect(checkDocument('host-state', JSON.parse(observed.stdout))).toEqual([]);
      writeFileSync(node, observed.stdout);
      const args = [
        'plan',
        '-f',
        world.manifest,
        '--observed',
        node,
        '-o',
        'json',
        '--root',
        world.path('ci'),
      ];
      const plan = JSON.parse((await expectProgram(args)).stdout) as Plan;
      expect(checkDocument('plan', plan)).toEqual([]);
      expect(existsSync(world.path('ci'))).toBe(false);
      return plan;
    };
    expect((await elsewhere()).actions).toEqual((await world.plan()).actions);
    await world.apply();
    expect((await elsewhere()).actions).toEqual([]);
    unlinkSync(world.layerFile(1, /\.cim$/));
    execFileSync('umount', [world.mountPoint]);
    const [there, here] = [await elsewhere(), await world.plan()];
    expect(brief(there.actions)).toEqual(brief(here.actions));
    expect(there.actions.map(({ work }) => work)).toEqual(here.actions.map(({ work }) => work));
  });

  test('offline needs neither host nor root', async () => {
    const world = await ready();
    const args = ['plan', '-f', world.manifest, '--offline', '--host', 'windows', '--root', '/proc/nowhere'];
    const before = fingerprint(world.directory);
    const { stdout } = await expectProgram([...args, '-o', 'json', '--detailed-exitcode'], 2);
    const plan = JSON.parse(stdout) as Plan;
    expect(checkDocument('plan', plan)).toEqual([]);
    expect([plan.host.kind, plan.summary.create]).toEqual(['offline', 5]);
    expect((await expectProgram(args)).stdout).toMatch(/^Planned offline, from the files alone/);
    expect(fingerprint(world.directory)).toEqual(before);
  });
});

describe.runIf(kernel)('exit codes', () => {
  test('say nothing to do, changes, or error, in either way of counting', async () => {
    const world = await ready();
    const codes = async () => {
      const results: (number | null)[] = [];
      for (const flags of [[], ['--detailed-exitcode'], ['--exit-code']]) {
        const args = ['plan', '-f', world.manifest, '--root', world.root, ...flags];
        results.push((await runProgram(args)).code);
      }
      return results;
    };
    expect(await codes()).toEqual([0, 2, 1]);
    await world.apply();
    expect(await codes()).toEqual([0, 0, 0]);
    rmSync(world.path('images/app'), { recursive: true });
    expect(await codes()).toEqual([1, 1, 2]);
    rmSync(world.manifest);
    expect(await codes()).toEqual([1, 1, 2]);
  });
});

describe.runIf(kernel)('manifests', () => {
  test('from standard input: relative to the working directory, and nothing is pruned', async () => {
    const world = await ready();
    const text = world.appText().replace('../images', 'images');
    const stdin = { input: text, cwd: world.directory };
    const { stdout } = await world.run(['apply', '-f', '-', '--yes'], 0, stdin);
    expect(stdout).toMatch(/5 succeeded/);
    const less = { ...stdin, input: text.slice(0, text.indexOf('---')) };
    const plan = await world.run(['plan', '-f', '-', '--detailed-exitcode'], 0, less);
    expect(plan.stdout).toMatch(/^No changes/m);
  });

  test('from several places are one whole', async () => {
    const world = await ready();
    const [image = '', chain = '', mount = ''] = world.appText().split('---\n');
    world.write('manifests/app.yaml', image);
    const two = world.write('other/chain.yml', chain);
    const three = world.write('other/mount.json', JSON.stringify(toJson(mount, world.mountPoint)));
    const incomplete = await world.run(['plan', '-f', world.manifest, '-f', three], 1);
    expect(incomplete.stderr).toMatch(/mount\.json:1:\d+: .*LayerChain.*app/);
    const files = ['-f', world.manifest, '-f', two, '-f', three];
    await world.run(['apply', ...files, '--yes']);
    await world.run(['plan', ...files, '--detailed-exitcode']);
    const doubled = await world.run(['plan', ...files, '-f', world.path('manifests')], 0);
    expect(doubled.stdout).toMatch(/it moves here from source|No changes/);
  });

  test('--target takes one resource and what it needs', async () => {
    const world = await ready();
    const second = world.appText({ path: world.path('second') }).split('---\n')[2] ?? '';
    world.write('manifests/second.yaml', second.replace('name: app', 'name: second'));
    const folder = ['-f', world.path('manifests'), '--target'];
    await world.run(['apply', ...folder, 'layerchain/app', '--yes']);
    expect(await world.observe()).toMatchObject({ layers: { length: 2 }, mounts: [] });
    await world.run(['apply', ...folder, 'Mount/second', '--yes']);
    expect((await world.observe()).mounts.map(({ path }) => path)).toEqual([world.path('second')]);
    const { error } = onlyError(await world.run(['plan', ...folder, 'mount/third'], 1));
    expect(error).toMatch(/Mount\/third/);
  });

  test.each([
    ['field', 'layers:', 'layer:', /app\.yaml:9:27: .*"layer" in spec .*did you mean `layers`/],
    [
      'kind',
      'kind: LayerChain',
      'kind: LayersChain',
      /app\.yaml:7:7: .*LayersChain.*did you mean `LayerChain`/,
    ],
    ['value', 'format: ForkedCIM', 'format: ForkdCIM', /app\.yaml:9:16: .*did you mean `ForkedCIM`/],
    ['reference', 'chain: app', 'chain: ap', /app\.yaml:14:15: .*LayerChain\/ap, .*did you mean `app`/],
    [
      'API version',
      'v1alpha1\nkind: LayerChain',
      'v1alpha2\nkind: LayerChain',
      /app\.yaml:6:13: .*v1alpha2.*knows cimlet\.dev\/v1alpha1/,
    ],
    ['YAML', 'spec: {chain', 'spec: {chain: [', /app\.yaml:14:\d+: /],
  ])(
    'with a misspelt %s are refused at its place, and nothing is done',
    async (_name, right, wrong, message) => {
      const world = await ready();
      const text = world.appText();
      expect(text).toContain(right);
      world.write('manifests/app.yaml', text.replace(right, wrong));
      const { stderr } = await world.run(['apply', '-f', world.manifest, '--yes'], 1);
      expect(stderr).toMatch(message);
      expect(stderr).toMatch(/error: \d+ problems? in the manifests; nothing was done/);
      expect(existsSync(join(world.root, 'cim-layers'))).toBe(false);
    },
  );

  test.each([
    [
      ['plan', '--detailed-exitcodes'],
      /unknown option '--detailed-exitcodes'.*\(Did you mean --detailed-exitcode\?\)/s,
    ],
    [['aply'], /unknown command 'aply'.*\(Did you mean apply\?\)/s],
    [['plan', '--target', 'mont/app'], /image\/NAME, layerchain\/NAME or mount\/NAME/],
    [['plan', '--offline', '--observed', 'x', '-f', '.'], /--offline.*--observed|--observed.*--offline/],
    [['plan'], /no manifests named/],
    [['plan', '-f', '/nowhere/at/all'], /\/nowhere\/at\/all/],
  ])('%j is refused with what was meant', async (args, message) => {
    const result = await expectProgram(args, 1);
    expect(result.stderr).toMatch(message);
    onlyError(result);
  });
});

function toJson(yaml: string, path: string): unknown {
  expect(yaml).toContain(path);
  return {
    apiVersion: 'cimlet.dev/v1alpha1',
    kind: 'Mount',
    metadata: { name: 'app' },
    spec: { chain: 'app', path },
  };
}

test.runIf(kernel)('new layers on top of what is there are all that is built', async () => {
  const world = await ready();
  await world.apply();
  await world.image('app', [BASE, PATCH, layerItems({ 'dir/d.txt': 'delta' })]);
  expect(brief((await world.plan()).actions)).toEqual([
    'Image/app change image-changed',
    'Snapshot create needed-by',
    'LayerChain/app replace image-changed',
    'Mount/app replace layers-changed',
  ]);
});
