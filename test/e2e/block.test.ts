/** A verified chain of block CIMs from YAML: merged, shown as the forked chain is, refused when tampered with, deleted whole. */

import { existsSync, readdirSync, readFileSync, realpathSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { createEmbeddedHost } from '../../src/hosts/embedded/embedded-host.ts';
import { layerItems } from '../support/host-layers.ts';
import { mountsBelow } from '../support/mounts.ts';
import { isRoot, requireOrSkip } from '../support/requirements.ts';
import { diffTrees, readTree } from '../support/tree.ts';
import { BASE, brief, flip, onlyError, PATCH, World } from './world.ts';

const capabilities = await createEmbeddedHost({ root: '/nowhere' }).capabilities();
const kernel = requireOrSkip('root and kernel EROFS mounts', isRoot && capabilities['view.Kernel'].available);

const LAYERS = [
  [...BASE, ...layerItems({ 'opaque/below.txt': 'hidden', 'dir/big': 'b'.repeat(20_000) }).slice(1)],
  PATCH,
  [
    ...layerItems({ 'a.txt': 'again', 'opaque/.wh..wh..opq': '', 'opaque/above.txt': 'shown' }),
    { name: 'Files/dir/second-name', type: 'hard-link' as const, linkName: 'Files/big' },
  ],
];

/** One image as a forked chain and as a verified block chain, each at its own path. */
async function twoForms(view: 'Kernel' | 'Extracted', mountSpec = ''): Promise<World> {
  const world = new World();
  await world.image('app', LAYERS);
  writeManifests(world, view, mountSpec);
  return world;
}

function writeManifests(world: World, view: 'Kernel' | 'Extracted', mountSpec = ''): void {
  const documents = [
    'kind: Image\nmetadata: {name: app}\nspec: {source: {ociLayout: ../images/app}, platform: {os: windows, architecture: amd64}}',
    chain('forked', 'format: ForkedCIM'),
    chain('block', 'format: BlockCIM, integrity: Verified, vhdFooter: true'),
    mount(world, 'forked', view, ''),
    mount(world, 'block', view, mountSpec),
  ];
  world.write(
    'manifests/app.yaml',
    documents.map((document) => `apiVersion: cimlet.dev/v1alpha1\n${document}\n`).join('---\n'),
  );
}

function chain(name: string, spec: string): string {
  return `kind: LayerChain\nmetadata: {name: ${name}}\nspec: {${spec}, layers: [{image: app}], retry: {limit: 0}}`;
}

function mount(world: World, name: string, view: string, spec: string): string {
  const more = spec === '' ? '' : `, ${spec}`;
  return `kind: Mount\nmetadata: {name: ${name}}\nspec: {chain: ${name}, path: ${world.path('views', name)}, view: ${view}, retry: {limit: 0}${more}}`;
}

function containers(world: World): string[] {
  const snapshots = join(world.root, 'snapshots');
  return readdirSync(snapshots, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.bcim'))
    .map((name) => join(snapshots, name));
}

/** Changes a bit so that the file looks like the one that was verified last, as a failing disk does. */
function rot(container: string): void {
  flip(container, 'middle');
  const { size, ctimeNs } = statSync(container, { bigint: true });
  const kept = join(container, '../check.json');
  const check = JSON.parse(readFileSync(kept, 'utf8')) as object;
  writeFileSync(kept, JSON.stringify({ ...check, stamp: `${size} ${ctimeNs}` }));
}

async function rootHashOf(world: World): Promise<string> {
  const { merges, mounts } = await world.observe();
  const rootHash = merges[0]?.rootHash ?? 'none';
  expect(mounts.map((each) => each.rootHash).sort()).toEqual([rootHash, undefined]);
  return rootHash;
}

describe.each([
  ['Kernel', kernel],
  ['Extracted', true],
] as const)('a verified chain of three block layers (%s)', (view, available) => {
  test.runIf(available)(
    'shows what the forked chain shows, plans empty, and goes without a trace',
    async () => {
      const world = await twoForms(view);
      const surroundings = world.surroundings();
      await world.apply();
      await world.expectEmptyPlan();
      const tree = (name: string) => readTree(realpathSync(world.path('views', name)));
      expect(diffTrees(tree('forked'), tree('block'))).toEqual([]);
      expect(tree('block').get('big')?.links).toEqual(['big', 'dir/second-name']);
      expect(readdirSync(world.path('views/block/opaque'))).toEqual(['above.txt']);
      expect(existsSync(world.path('views/block/gone.txt'))).toBe(false);
      expect(containers(world)).toHaveLength(4);
      for (const file of containers(world)) expect(statSync(file).size % 4096, file).toBe(512);

      const rootHash = await rootHashOf(world);
      expect(rootHash).toMatch(/^sha256:[0-9a-f]{64}$/);
      const { stdout } = await world.run(['describe', 'layerchain/block']);
      expect(stdout).toContain(rootHash);

      await world.run(['delete', '-f', world.manifest, '--yes']);
      expect(mountsBelow(world.directory)).toEqual([]);
      for (const folder of ['cim-layers', 'snapshots', 'views', 'mounts', 'extracted'])
        if (existsSync(join(world.root, folder))) expect(readdirSync(join(world.root, folder))).toEqual([]);
      expect(world.surroundings()).toEqual(surroundings);
    },
  );

  test.runIf(available)('is refused with another root hash than expected, naming both', async () => {
    const world = await twoForms(view);
    await world.apply();
    const rootHash = await rootHashOf(world);
    const wrong = `sha256:${'0'.repeat(64)}`;
    await world.run(['delete', '-f', world.manifest, '--yes']);
    writeManifests(world, view, `expectedRootHash: "${wrong}"`);
    const refused = await world.run(['apply', '-f', world.manifest, '--yes'], 1);
    expect(refused.stdout + refused.stderr).toContain(wrong);
    expect(refused.stdout + refused.stderr).toContain(rootHash);
    expect(existsSync(world.path('views/block'))).toBe(false);
    expect(existsSync(world.path('views/forked'))).toBe(true);
    writeManifests(world, view, `expectedRootHash: "${rootHash}"`);
    await world.apply();
    await world.expectEmptyPlan();
    expect(readFileSync(world.path('views/block/a.txt'), 'utf8')).toBe('again');
  });

  test.runIf(available)('has a flipped bit found by the next plan, and repaired under its view', async () => {
    const world = await twoForms(view);
    await world.apply();
    const tree = () => readTree(realpathSync(world.path('views/block')));
    const before = tree();
    const [layer = '', ...others] = containers(world);
    const merged = others.find((file) => file.endsWith('merged.bcim')) ?? '';
    for (const victim of [layer, merged]) {
      flip(victim, 'middle');
      const { actions } = await world.plan();
      expect(brief(actions.filter(({ kind }) => kind !== 'Mount'))).toEqual([
        expect.stringMatching(
          victim.endsWith('merged.bcim')
            ? /^!Merge\/BlockCIM\/sha256:\w+ repair file-corrupt$/
            : /^!Snapshot repair file-corrupt$/,
        ),
      ]);
      expect(actions[0]?.reasons[0]?.message).toMatch(/\.bcim is not what was sealed: offset 0x\w+: /);
      await world.apply();
      await world.expectEmptyPlan();
      expect(diffTrees(before, tree())).toEqual([]);
    }
  });

  test.runIf(available)(
    'is refused when its bits rotted without a trace, and the next apply repairs it',
    async () => {
      const world = await twoForms(view);
      await world.apply();
      await world.run(['delete', 'mount/block', '--yes']);
      const [victim = ''] = containers(world);
      rot(victim);
      expect(brief((await world.plan()).actions)).toEqual(['Mount/block create new']);
      const { error, hint } = onlyError(await world.apply(1));
      expect(error).toContain(victim);
      expect(hint).toContain('apply again');
      expect(existsSync(world.path('views/block'))).toBe(false);
      expect(brief((await world.plan()).actions)[0]).toBe('!Snapshot repair file-corrupt');
      await world.apply();
      await world.expectEmptyPlan();
      expect(readFileSync(world.path('views/block/a.txt'), 'utf8')).toBe('again');
    },
  );
});
