/** A root that is damaged, read-only, full or taken, through the real program. */

import { execFileSync, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { createEmbeddedHost } from '../../src/hosts/embedded/embedded-host.ts';
import { acquireRootLock } from '../../src/state/root-lock.ts';
import { type LayerItem, layerItems } from '../support/host-layers.ts';
import { expectProgram } from '../support/program.ts';
import { isRoot, requireOrSkip } from '../support/requirements.ts';
import { BASE, fingerprint, onlyError, PATCH, World } from './world.ts';

const capabilities = await createEmbeddedHost({ root: '/nowhere' }).capabilities();
const kernel = requireOrSkip('root and kernel EROFS mounts', isRoot && capabilities['view.Kernel'].available);

async function ready(...layers: LayerItem[][]): Promise<World> {
  const world = new World();
  await world.image('app', layers.length > 0 ? layers : [BASE, PATCH]);
  world.app();
  return world;
}

describe.runIf(kernel)('a damaged root:', () => {
  test('state.db that is no database: refused with what to do, and that works', async () => {
    const world = await ready();
    await world.apply();
    const file = join(world.root, 'state.db');
    writeFileSync(file, randomBytes(8192));
    const before = fingerprint(world.root);
    for (const args of [
      ['plan', '-f', world.manifest],
      ['get', 'all'],
    ]) {
      const { error, hint } = onlyError(await world.run(args, 1));
      expect(error).toContain(`open state database ${file}`);
      expect(hint).toBe(
        `hint: move ${file} away and apply again: layers and mounts are found again on the host`,
      );
    }
    expect(fingerprint(world.root)).toEqual(before);
    onlyError(await world.apply(1));
    expect(readFileSync(join(world.mountPoint, 'a.txt'), 'utf8')).toBe('alpha');
    rmSync(file);
    await world.apply();
    await world.expectEmptyPlan();
  });

  test('state.db with a flipped page is never taken for good', async () => {
    const world = await ready();
    await world.apply();
    const file = join(world.root, 'state.db');
    const bytes = readFileSync(file);
    randomBytes(2000).copy(bytes, 4096);
    writeFileSync(file, bytes);
    const { error, hint } = onlyError(await world.run(['get', 'all'], 1));
    expect(error).toContain(`state database ${file}`);
    expect(hint).toMatch(/move .* away/);
  });

  test('a torn mount record: the mount counts as foreign and is left alone, until somebody unmounts it', async () => {
    const world = await ready();
    await world.apply();
    const [record = ''] = fingerprint(join(world.root, 'mounts')).filter((line) => line.includes('.json'));
    writeFileSync(join(world.root, 'mounts', record.split(' ')[0] ?? ''), '{"formatVersion": 1, "requ');
    const plan = await world.plan(1);
    expect(plan.blocked).toMatchObject([{ key: 'Mount/app', code: 'already-exists' }]);
    await world.apply(1);
    expect(readFileSync(join(world.mountPoint, 'a.txt'), 'utf8')).toBe('alpha');
    execFileSync('umount', [world.mountPoint]);
    await world.apply();
    await world.expectEmptyPlan();
  });

  test('a file where the root should be', async () => {
    const world = await ready();
    writeFileSync(world.root, 'a file');
    const { error, hint } = onlyError(await world.apply(1));
    expect(error).toContain(world.root);
    expect(hint).toMatch(/--root/);
    expect(readFileSync(world.root, 'utf8')).toBe('a file');
  });
});

describe.runIf(kernel)('a read-only root', () => {
  test('refuses apply and delete by name; looking at it works', async () => {
    const world = await ready();
    await world.apply();
    execFileSync('mount', ['--bind', world.root, world.root]);
    execFileSync('mount', ['-o', 'remount,ro,bind', world.root]);
    const before = fingerprint(world.directory, [world.mountPoint]);
    for (const command of ['apply', 'delete']) {
      const { error, hint } = onlyError(await world.run([command, '-f', world.manifest, '--yes'], 1));
      expect(error).toMatch(/read-?only/i);
      expect(error).toContain(world.root);
      expect(hint).toMatch(/--root|write/);
    }
    await world.expectEmptyPlan();
    expect((await world.run(['get', 'mounts'])).stdout).toMatch(/app/);
    expect(fingerprint(world.directory, [world.mountPoint])).toEqual(before);
    execFileSync('umount', [world.root]);
  });

  test('that does not exist yet', async () => {
    const world = await ready();
    mkdirSync(world.path('place'));
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'ro', 'read-only', world.path('place')]);
    const root = world.path('place/root');
    const args = ['apply', '-f', world.manifest, '--yes', '--root', root];
    const { error, hint } = onlyError(await expectProgram(args, 1));
    expect(error).toMatch(new RegExp(`make root ${root}: .*\\(EROFS\\)`));
    expect(hint).toMatch(/choose another --root/);
    expect(existsSync(world.root)).toBe(false);
  });
});

describe.runIf(kernel)('a full disk', () => {
  test.each([
    ['of noise', layerItems({ 'a.txt': 'a', noise: randomBytes(6_000_000).toString('latin1') })],
    [
      'of 300 MB that take 300 kB as zstd',
      [
        ...BASE,
        { name: 'Files/bomb', type: 'file', content: Buffer.alloc(300_000_000, 'bomb') } as LayerItem,
      ],
    ],
  ])(
    'for a layer %s: one error, nothing half-visible, and more room is all it takes',
    async (name, items) => {
      const world = new World();
      await world.image('app', [items], { compression: 'zstd' });
      world.app();
      mkdirSync(world.root);
      execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=4m', 'small', world.root]);
      const before = world.surroundings();
      const { error, hint } = onlyError(await world.apply(1));
      expect(error).toMatch(/no space left on device/);
      expect(error).toContain(world.root);
      expect(hint).toMatch(/free space on that file system, or choose another --root/);
      expect(await world.observe()).toMatchObject({ layers: [], mounts: [], leftovers: [] });
      expect(world.surroundings()).toEqual(before);
      execFileSync('mount', ['-o', 'remount,size=400m', world.root]);
      if (name === 'of noise') {
        await world.apply();
        await world.expectEmptyPlan();
      }
    },
  );
});

describe.runIf(kernel)('two agents on one root', () => {
  test('the second is refused by the name of the first, which is unharmed', async () => {
    const world = await ready();
    const lock = acquireRootLock(world.root, 'apply');
    try {
      for (const command of ['apply', 'delete']) {
        const { error, hint } = onlyError(await world.run([command, '-f', world.manifest, '--yes'], 1));
        expect(error).toContain(`lock root ${world.root}: in use by cimlet apply (pid ${process.pid} on `);
        expect(hint).toMatch(/wait until it has finished/);
      }
      expect((await world.plan()).summary.create).toBe(5);
    } finally {
      lock.release();
    }
    await world.apply();
  });

  test('two applies at once: one does it all, the other does nothing', async () => {
    const world = await ready(BASE, layerItems({ noise: randomBytes(9_000_000).toString('latin1') }));
    const args = ['apply', '-f', world.manifest, '--yes', '--root', world.root];
    const main = join(import.meta.dirname, '../../src/main.ts');
    const first = spawn(process.execPath, [main, ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
    const ended = once(first, 'exit');
    for await (const chunk of first.stdout) if (String(chunk).includes('started')) break;
    const { error } = onlyError(await world.run(args, 1));
    expect(error).toContain(`(pid ${first.pid} on `);
    first.stdout.resume();
    expect(await ended).toEqual([0, null]);
    await world.expectEmptyPlan();
  });
});
