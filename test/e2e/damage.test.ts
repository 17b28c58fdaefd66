/** Damage to what cimlet keeps, through the real program: seen or at least survived, explained, and repaired. */

import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { createEmbeddedHost } from '../../src/hosts/embedded/embedded-host.ts';
import { layerItems } from '../support/host-layers.ts';
import { isRoot, requireOrSkip } from '../support/requirements.ts';
import { BASE, brief, fingerprint, flip, onlyError, PATCH, World } from './world.ts';

const capabilities = await createEmbeddedHost({ root: '/nowhere' }).capabilities();
const kernel = requireOrSkip('root and kernel EROFS mounts', isRoot && capabilities['view.Kernel'].available);

async function applied(): Promise<World> {
  const world = new World();
  await world.image('app', [BASE, PATCH]);
  world.app();
  await world.apply();
  return world;
}

/** The plan says exactly this and writes nothing; apply does it; then there is nothing to do. */
async function expectRepair(world: World, expected: string[]): Promise<void> {
  const before = fingerprint(world.root);
  const plan = await world.plan();
  expect(fingerprint(world.root)).toEqual(before);
  expect(brief(plan.actions)).toEqual(expected);
  await world.apply();
  await world.expectEmptyPlan();
  expect(readFileSync(join(world.mountPoint, 'dir/c.txt'), 'utf8')).toBe('gamma');
}

describe.runIf(kernel)('a committed layer with', () => {
  test('a truncated CIM is found by its size and built anew', async () => {
    const world = await applied();
    const cim = world.layerFile(1, /\.cim$/);
    truncateSync(cim, 40);
    const { stdout } = await world.run(['cim', 'verify', cim], 1);
    expect(stdout).toContain(`${cim}: offset 0x28: image ends within its 72-byte header`);
    await expectRepair(world, ['!Snapshot repair file-size']);
  });

  test.each([
    ['header', /\.cim$/, 'first', /offset 0x0: image: not a CIM file/],
    ['tables', /region_.*_0$/, 'last', /offset 0x\w+: the root, file \d+, is no directory/],
  ] as const)(
    'a flipped bit in its %s is found when a view needs it, and the next apply repairs it',
    async (_name, pattern, at, fault) => {
      const world = await applied();
      const cim = world.layerFile(1, /\.cim$/);
      const damaged = world.layerFile(1, pattern);
      flip(damaged, at);
      const verified = await world.run(['cim', 'verify', cim], 1);
      expect(verified.stdout).toMatch(fault);
      expect(verified.stdout).toContain(damaged);
      execFileSync('umount', [world.mountPoint]);
      rmSync(join(world.root, 'views'), { recursive: true });
      const before = world.surroundings();
      const { error, hint } = onlyError(await world.apply(1));
      expect(error).toMatch(/Mount\/app: .*read CIM: /);
      expect(hint).toMatch(/^hint: layer sha256:\w+ is damaged; plan and apply again/);
      expect((await world.observe()).leftovers).toEqual([]);
      expect(world.surroundings()).toEqual(before);
      await expectRepair(world, ['!Snapshot repair file-corrupt', '!Mount/app repair unmounted']);
    },
  );

  test('a flipped bit that cannot be noted is told all the same', async () => {
    const world = await applied();
    flip(world.layerFile(1, /\.cim$/), 'first');
    const snapshots = join(world.root, 'snapshots');
    for (const folder of readdirSync(snapshots)) mkdirSync(join(snapshots, folder, 'damage.json'));
    execFileSync('umount', [world.mountPoint]);
    rmSync(join(world.root, 'views'), { recursive: true });
    expect(onlyError(await world.apply(1)).error).toMatch(/Mount\/app: .*read CIM: .*offset 0x0/);
  });

  test('a flipped bit is found when another layer is forked from it', async () => {
    const world = await applied();
    await world.image('app', [BASE, PATCH, layerItems({ 'dir/d.txt': 'delta' })]);
    const damaged = world.layerFile(1, /region_.*_0$/);
    flip(damaged, 'last');
    const { error, hint } = onlyError(await world.apply(1));
    expect(error).toMatch(/Snapshot\/.*read CIM: /);
    expect(hint, error).toMatch(/is damaged; plan and apply again/);
    const { layers, mounts, leftovers } = await world.observe();
    expect([layers.length, mounts[0]?.state, leftovers]).toEqual([2, 'mounted', []]);
    await world.apply();
    await world.expectEmptyPlan();
    expect(readFileSync(join(world.mountPoint, 'dir/d.txt'), 'utf8')).toBe('delta');
  });

  test('a torn layer.json is no layer; it is built anew and the rest goes', async () => {
    const world = await applied();
    const folder = join(world.root, 'snapshots');
    for (const name of readdirSync(folder))
      writeFileSync(join(folder, name, 'layer.json'), '{"formatVersion": 1, "la');
    expect((await world.observe()).leftovers.length).toBeGreaterThan(2);
    await expectRepair(world, ['!Snapshot repair layer-missing', '!Snapshot repair layer-missing']);
    expect((await world.observe()).leftovers).toEqual([]);
  });

  test('a layer.json that says something else is none either', async () => {
    const world = await applied();
    for (const text of ['{}', 'null', '{"formatVersion":1,"layer":{"chainId":7},"cimFiles":[{}]}']) {
      const id = world.layerFile(1, /\.cim$/).replace(/^.*\/|\.cim$/g, '');
      writeFileSync(join(world.root, 'snapshots', id, 'layer.json'), text);
      expect(brief((await world.plan()).actions)).toEqual(['!Snapshot repair layer-missing']);
      await world.apply();
    }
    await world.expectEmptyPlan();
  });
});
