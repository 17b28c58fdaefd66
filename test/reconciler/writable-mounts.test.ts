import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { Host } from '../../src/hosts/host.ts';
import { type EffectName, SNAPSHOT_CAPABILITIES } from '../../src/hosts/memory/memory-host.ts';
import type { MountResource } from '../../src/manifests/resources.ts';
import { chain, expectEmpty, expectValidRecords, image, mount, openWorld, type World } from './support.ts';

let world: World;
beforeEach(() => {
  world = openWorld({ capabilities: SNAPSHOT_CAPABILITIES });
  world.images.set('app', 'ab');
});
afterEach(() => {
  expectValidRecords(world.state);
  world.close();
});

const BASE = [image('app'), chain('app')];

function writable(spec: Partial<MountResource['spec']> = {}): MountResource {
  return mount('app', { access: 'ReadWrite', ...spec });
}

function write(text: string, path = '/mnt/app'): void {
  world.host.writeAt(path, 'Files/written', Buffer.from(text));
}

function written(path = '/mnt/app'): string | undefined {
  return world.host.viewAt(path)?.get('Files/written')?.toString();
}

async function keys(): Promise<string[]> {
  const { snapshots } = await world.host.observe({ signal: new AbortController().signal });
  return snapshots.map(({ key }) => key);
}

describe('a writable Mount', () => {
  it('gets a snapshot of its own, is mounted, and nothing is left to do', async () => {
    const plan = await world.plan([...BASE, writable({ scratch: { size: '1Gi' } })]);
    const action = plan.actions.find(({ id }) => id === 'Mount/app');
    expect(action?.detail).toMatch(/^\/mnt\/app, writable over ForkedCIM sha256:/);
    expect(action?.work).toMatchObject({
      request: { access: 'ReadWrite', snapshot: 'mount/app' },
      snapshot: { key: 'mount/app', kind: 'active', scratch: { bytes: 2 ** 30 } },
    });
    const resources = [...BASE, writable({ scratch: { size: '1Gi' } })];
    expect(await world.apply(resources)).toMatchObject({ failed: [] });
    write('kept');
    expectEmpty(await world.plan(resources));
  });

  it('is mounted again with what was written, after drift and another process', async () => {
    const resources = [...BASE, writable()];
    await world.apply(resources);
    write('kept');
    const [mounted] = (await world.host.observe({ signal: new AbortController().signal })).mounts;
    world.host.dropMount(mounted!.volumeGuid);
    world.restart();
    expect((await world.apply(resources)).succeeded).toBe(1);
    expect(written()).toBe('kept');
    expectEmpty(await world.plan(resources));
  });

  it('keeps its scratch when it moves, and when it becomes read-only for a while', async () => {
    await world.apply([...BASE, writable()]);
    write('kept');
    await world.apply([...BASE, writable({ path: '/mnt/elsewhere' })]);
    expect(written('/mnt/elsewhere')).toBe('kept');
    await world.apply([...BASE, mount('app')]);
    expect(written()).toBeUndefined();
    await world.apply([...BASE, writable()]);
    expect(written()).toBe('kept');
  });

  it('is taken away from where it was only if it can be shown again, unless that is not wanted', async () => {
    const host: Host = world.host;
    const dismounts = vi.spyOn(host, 'dismount');
    await world.apply([...BASE, writable()]);
    await world.apply([...BASE, writable({ path: '/mnt/elsewhere' })]);
    await world.apply([...BASE, mount('app')]);
    await world.apply([]);
    const options = dismounts.mock.calls.map(([, , option]) => option);
    expect(options.map((option) => option?.toShowAgain)).toEqual([true, false, false]);
  });

  it.each<[string, string, NonNullable<MountResource['spec']['scratch']> | undefined, RegExp]>([
    ['layers', 'ac', undefined, /its scratch was made over ForkedCIM/],
    ['size', 'ab', { size: '2Gi' }, /its scratch was made of no particular size/],
    ['place', 'ab', { location: '/elsewhere' }, /its scratch was made in the root/],
  ])('never gives up its scratch for a change of its %s', async (_, layers, scratch, message) => {
    await world.apply([...BASE, writable()]);
    write('kept');
    world.images.set('app', layers);
    const wanted = scratch === undefined ? writable() : writable({ scratch });
    const plan = await world.plan([...BASE, wanted]);
    expect(plan.blocked).toMatchObject([
      { key: 'Mount/app', code: 'failed-precondition', message: expect.stringMatching(message) },
    ]);
    await world.apply([...BASE, wanted]);
    expect(written()).toBe('kept');
  });

  it('loses its scratch, and the layers, when it is no longer declared', async () => {
    await world.apply([...BASE, writable()]);
    await world.apply([]);
    const state = await world.host.observe({ signal: new AbortController().signal });
    expect([state.mounts, state.snapshots, state.layers]).toEqual([[], [], []]);
  });

  it('leaves its scratch, and the layers below, with deletionPolicy: Orphan', async () => {
    await world.apply([...BASE, writable({ deletionPolicy: 'Orphan' })]);
    write('kept');
    await world.apply([]);
    expect(await keys()).toEqual(['mount/app']);
    expect(written()).toBe('kept');
  });

  it.each([
    ['mounted', false],
    ['dismounted', true],
  ])('goes with its scratch by name when the records are lost, %s', async (_, isDismounted) => {
    await world.apply([...BASE, writable()]);
    const [mounted] = (await world.host.observe({ signal: new AbortController().signal })).mounts;
    if (isDismounted) world.host.dropMount(mounted!.volumeGuid);
    world.restart({ isStateLost: true });
    expect(world.state.records().resources).toEqual([]);
    expect(await world.remove('Mount/app')).toMatchObject({ failed: [] });
    const { mounts, snapshots } = await world.host.observe({ signal: new AbortController().signal });
    expect([mounts, snapshots]).toEqual([[], []]);
  });

  it('goes with its scratch by name', async () => {
    await world.apply([...BASE, writable()]);
    await world.remove('Mount/app');
    expect(await keys()).toEqual([]);
    expectEmpty(await world.plan(BASE));
  });

  it('shares the scratch of another: made after it, removed before it', async () => {
    const other = mount('other', { chain: 'app', access: 'ReadWrite', scratch: { shareWith: 'app' } });
    expect(await world.apply([...BASE, other, writable()])).toMatchObject({ failed: [] });
    write('shared', '/mnt/other');
    expect(written()).toBeUndefined();
    expect(await world.apply([])).toMatchObject({ failed: [], skipped: [] });
    expect(await keys()).toEqual([]);
  });

  it('does not let layers go that a snapshot made by hand needs', async () => {
    await world.apply([...BASE]);
    const { layers } = await world.host.observe({ signal: new AbortController().signal });
    const ids = layers.map(({ chainId }) => chainId);
    const top = layers.find(({ chainId }) => layers.every(({ parent }) => parent !== chainId));
    const ordered = ids.filter((id) => id !== top?.chainId).concat(top === undefined ? [] : [top.chainId]);
    const request = { key: 'by hand', kind: 'active', chain: ordered, format: 'ForkedCIM' } as const;
    await world.host.prepareSnapshot(request, { signal: new AbortController().signal });
    expect(await world.apply([])).toMatchObject({ failed: [] });
    expect((await world.host.observe({ signal: new AbortController().signal })).layers).toHaveLength(2);
  });

  it('is blocked where the host has no writable mounts, and with a scratch that makes no sense', async () => {
    const none = openWorld();
    none.images.set('app', 'ab');
    const { blocked } = await none.plan([...BASE, writable()]);
    none.close();
    expect(blocked).toMatchObject([{ key: 'Mount/app', code: 'unsupported-host' }]);
    const bad: [NonNullable<MountResource['spec']['scratch']>, RegExp][] = [
      [{ location: 'relative' }, /spec.scratch.location: it is not absolute/],
      [{ shareWith: 'app' }, /names the Mount itself/],
      [{ size: 'much' }, /spec.scratch.size/],
    ];
    for (const [scratch, message] of bad) {
      const plan = await world.plan([...BASE, writable({ scratch })]);
      expect(plan.blocked[0]).toMatchObject({
        code: 'invalid-manifest',
        message: expect.stringMatching(message),
      });
    }
  });

  it.each<[EffectName, 'before' | 'after']>([
    ['prepareSnapshot', 'before'],
    ['prepareSnapshot', 'after'],
    ['mount', 'before'],
    ['mount', 'after'],
  ])('is finished by the next run when the process dies in %s (%s)', async (method, stage) => {
    const resources = [...BASE, writable()];
    world.killAt(method, stage, 1);
    await world.apply(resources).catch(() => undefined);
    world.restart();
    expect(await world.apply(resources)).toMatchObject({ failed: [] });
    write('works');
    expectEmpty(await world.plan(resources));
  });

  it.each<[EffectName, 'before' | 'after']>([
    ['dismount', 'after'],
    ['removeSnapshot', 'before'],
    ['removeSnapshot', 'after'],
  ])('goes with the next run when the process dies in %s (%s)', async (method, stage) => {
    await world.apply([...BASE, writable()]);
    world.killAt(method, stage, 1);
    await world.apply([]).catch(() => undefined);
    world.restart();
    expect(await world.apply([])).toMatchObject({ failed: [] });
    expect(await keys()).toEqual([]);
    expectEmpty(await world.plan([]));
  });
});
